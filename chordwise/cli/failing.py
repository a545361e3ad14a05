"""The outermost shell: whatever goes wrong becomes a sentence, a hint and an exit code."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from chordwise.cli.invocation import Invocation
from chordwise.cli.rendering.plain_text import one_line
from chordwise.domain.visible_text import visible
from chordwise.errors import ChordwiseError, ExitCode

LOG_NAME = "command"


@dataclass(slots=True, kw_only=True)
class Outcome:
    """How a command ended."""

    exit_code: int = ExitCode.SUCCESS


@contextmanager
def explained(invocation: Invocation) -> Iterator[Outcome]:
    """Turn what the command raises into what the user reads; the outcome is set at the end."""
    outcome = Outcome()
    try:
        yield outcome
    except SystemExit as leaving:
        outcome.exit_code = _code_of(leaving)
    except KeyboardInterrupt:
        outcome.exit_code = ExitCode.DETACHED
        say("Interrupted.")
    except ChordwiseError as error:
        outcome.exit_code = error.exit_code
        _explain(error, invocation)
    except Exception as error:  # noqa: BLE001 - the outermost shell
        outcome.exit_code = ExitCode.INTERNAL
        _explain_defect(error, invocation)


def _code_of(leaving: SystemExit) -> int:
    if leaving.code is None:
        return ExitCode.SUCCESS
    return leaving.code if isinstance(leaving.code, int) else ExitCode.INTERNAL


def _explain(error: ChordwiseError, invocation: Invocation) -> None:
    if invocation.is_debug:
        _say_where(error)
    say(f"Error: {one_line(error.what)}")
    if error.hint:
        say(f"Hint: {one_line(error.hint)}")


def _explain_defect(error: Exception, invocation: Invocation) -> None:
    if invocation.is_debug:
        _say_where(error)
        return
    say(f"Error: something unexpected happened in Chordwise itself: {type(error).__name__}.")
    log = _write_down(error, invocation)
    say(f"Hint: {f'the details are in {log}; ' if log else ''}--debug shows where it happened.")


def _say_where(error: Exception) -> None:
    from chordwise.telemetry.logging import without_secrets  # noqa: PLC0415 - rarely needed

    lines = "".join(traceback.format_exception(error)).rstrip("\n")
    say(visible(without_secrets(lines)))


def _write_down(error: Exception, invocation: Invocation) -> Path | None:
    """Append the details to a log in the home, where there is one; return its path."""
    from chordwise.telemetry.logging import without_secrets  # noqa: PLC0415 - rarely needed

    with suppress(ChordwiseError, OSError):
        log = invocation.settings().home.expanduser() / "logs" / f"{LOG_NAME}.log"
        if log.parent.is_dir():
            with log.open("a", encoding="utf-8", errors="backslashreplace") as output:
                output.write(without_secrets("".join(traceback.format_exception(error))))
            return log
    return None


def say(text: str) -> None:
    """Write a line to standard error; a closed one is no reason to fail."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{text}\n")
