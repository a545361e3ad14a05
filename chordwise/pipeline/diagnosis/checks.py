"""The outcome of looking at one thing that has to be right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from chordwise.errors import ChordwiseError, ExitCode


class CheckStatus(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at; `exit_code` says what a failure means to a script."""

    name: str
    verdict: CheckStatus = CheckStatus.OK
    finding: str
    hint: str = ""
    exit_code: ExitCode = ExitCode.SUCCESS


def warning(name: str, finding: str, hint: str) -> Check:
    """Return a check that came out with a warning."""
    return Check(name=name, verdict=CheckStatus.WARN, finding=finding, hint=hint)


def failed(name: str, error: ChordwiseError) -> Check:
    """Return the failed check for an error."""
    is_ours = error.exit_code in (ExitCode.CONFIGURATION, ExitCode.UNAVAILABLE)
    return Check(
        name=name,
        verdict=CheckStatus.FAIL,
        finding=error.what,
        hint=error.hint,
        exit_code=error.exit_code if is_ours else ExitCode.UNAVAILABLE,
    )


def guarded(name: str, check: Callable[[], Check]) -> Check:
    """Return the check, or the failure that it ended with."""
    try:
        return check()
    except ChordwiseError as error:
        return failed(name, error)
