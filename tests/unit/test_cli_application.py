"""Tests of the command line as a whole: commands, errors, exit codes and Ctrl-C."""

from __future__ import annotations

import json
import signal
import sys
import weakref
from pathlib import Path

import pytest

from chordwise.cli.application import commands_to_load, explain, hoist, modules, wants_listing
from chordwise.cli.invocation import Invocation
from chordwise.cli.run_watch import interruptible
from chordwise.errors import ConfigurationError, ExitCode
from tests.fakes.commands import output_of
from tests.fakes.processes import completed

ROOT = Path(__file__).resolve().parents[2]


def fail_with(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("arguments", "hoisted"),
    [
        (["analyze", "a", "--home", "h"], ["--home", "h", "analyze", "a"]),
        (["analyze", "--config=c.toml", "a"], ["--config=c.toml", "analyze", "a"]),
        (["--debug", "runs", "--json"], ["--debug", "runs", "--json"]),
        (["analyze", "--", "--debug"], ["analyze", "--", "--debug"]),
        (["analyze", "a", "--home"], ["--home", "analyze", "a"]),
    ],
)
def test_global_options_are_accepted_anywhere(arguments: list[str], hoisted: list[str]) -> None:
    """They are moved to the front; arguments after a double dash are unchanged."""
    assert hoist(arguments) == hoisted


def test_only_the_module_of_the_named_command_is_loaded() -> None:
    assert set(commands_to_load(["--home", "h", "version"])) == {"version"}
    assert set(commands_to_load(["--help"])) == set(modules())


def test_all_commands_are_listed_without_a_command() -> None:
    listed = output_of("--help").out

    assert [name for name in modules() if f"\n  {name} " not in listed] == []
    assert wants_listing([]) is wants_listing(["--home", "h", "-h"]) is True
    assert wants_listing(["runs", "--help"]) is wants_listing(["nonsense"]) is False


@pytest.mark.parametrize("command", sorted(modules()))
def test_every_command_has_help_with_an_example(command: str) -> None:
    shown = output_of(command, "--help").out

    assert f"chordwise {command}" in shown.partition("\n")[2].replace("\n  ", " ")


@pytest.mark.parametrize("group", [[], ["experiment"], ["schedules"], ["prompts"]])
def test_no_summary_in_a_list_of_commands_is_truncated(
    group: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command has a summary of one short sentence that fits into 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    commands = output_of(*group, "--help").out.partition("Commands:\n")[2].partition("\n\n")[0]

    assert commands
    assert [line for line in commands.splitlines() if not line.endswith(".")] == []
    assert "..." not in commands


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["analyze"], ["analyze", "x", "--type", "poem"], ["runs", "--limit", "0"]],
)
def test_unknown_commands_and_invalid_values_are_usage_errors(arguments: list[str]) -> None:
    """The exit code is 2, and the message is on standard error."""
    captured = output_of(*arguments, code=ExitCode.USAGE)

    assert captured.out == ""
    assert captured.err


@pytest.mark.parametrize(
    ("pattern", "said"), [("*.pdf", "matches no file"), ("a/**/*.pdf", "there is no folder {}/a.")]
)
def test_a_pattern_that_matches_nothing_is_a_usage_error(
    tmp_path: Path, pattern: str, said: str
) -> None:
    """The error precedes the start of the stack and names the missing file or folder."""
    printed = output_of(
        "analyze", str(tmp_path / pattern), "--home", str(tmp_path / "home"), code=ExitCode.USAGE
    ).err

    assert said.format(tmp_path) in printed
    assert not (tmp_path / "home").exists()


def test_nothing_is_started_if_the_database_cannot_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHORDWISE_DATABASE_URL", "postgresql://u:p@127.0.0.1:1/chordwise")
    document = tmp_path / "a.txt"
    document.write_text("Tea.", "utf-8")

    printed = output_of(
        "analyze", str(document), "--home", str(tmp_path / "home"), code=ExitCode.UNAVAILABLE
    ).err

    assert "PostgreSQL cannot be reached" in printed
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            ConfigurationError("The file \x1b[31m is wrong.", "Mend it."),
            ExitCode.CONFIGURATION,
            "Error: The file is wrong.\nHint: Mend it.\n",
        ),
        (KeyboardInterrupt(), ExitCode.DETACHED, "Interrupted.\n"),
    ],
)
def test_an_error_is_printed_as_a_sentence_without_control_characters(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: ExitCode, said: str
) -> None:
    assert explain(error, Invocation()) == code
    assert capsys.readouterr().err == said


def test_a_traceback_has_neither_secrets_nor_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With `--debug`, errors of libraries are shown in full and may quote untrusted text."""
    for error in (ConfigurationError("a\x1b[2Jb", "Mend it."), ValueError("c\x1b[2Jd")):
        try:
            try:
                fail_with(OSError("GET https://user:hunter2@host/v1?code=hunter2"))
            except OSError as cause:
                raise error from cause
        except (ConfigurationError, ValueError) as raised:
            explain(raised, Invocation(is_debug=True))

    shown = capsys.readouterr().err
    assert shown.count("Traceback") == 4
    assert "https://…@host/v1?…" in shown
    assert "c\\u001b[2Jd" in shown
    assert "hunter2" not in shown
    assert "\x1b" not in shown


def test_an_internal_error_is_logged_without_secrets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The user sees one sentence; the log has the traceback."""
    (tmp_path / "logs").mkdir()

    with pytest.raises(ZeroDivisionError) as raised:
        fail_with(ZeroDivisionError("postgresql://user:hunter2@host/db"))
    code = explain(raised.value, Invocation(home=tmp_path))

    shown = capsys.readouterr().err
    written = (tmp_path / "logs" / "command.log").read_text("utf-8")
    assert code == ExitCode.INTERNAL
    assert "Traceback" not in shown
    assert "Traceback" in written
    assert "ZeroDivisionError" in written
    assert "hunter2" not in shown + written


@pytest.mark.parametrize("word", ["version", "--version"])
def test_version_as_json(word: str) -> None:
    version = json.loads(output_of(word, "--json").out)

    assert version["schema_version"] == 1
    assert version["schema_revision"] == max(
        file.stem for file in (ROOT / "migrations" / "versions").glob("0*.py")
    )


def test_a_closed_pipe_is_not_an_error(tmp_path: Path) -> None:
    program = f"{sys.executable} -m chordwise config --home {tmp_path}"

    done = completed("/bin/sh", "-c", f"{program} | head -n 1; {program} | true", folder=ROOT)

    assert done.stderr == ""


def test_ctrl_c_raises_keyboard_interrupt() -> None:
    """The previous handler is restored afterwards."""
    before = signal.getsignal(signal.SIGINT)

    with interruptible():
        assert signal.getsignal(signal.SIGINT) is not before
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(signal.SIGINT)

    assert signal.getsignal(signal.SIGINT) is before


class Freed:
    """An object with a finalizer, such as those of database drivers and import locks."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_in_a_finalizer_is_not_lost() -> None:
    """Python drops the exception in a finalizer; the next pause ends immediately instead."""
    freed = Freed()
    weakref.finalize(freed, signal.raise_signal, signal.SIGINT)

    with interruptible() as interruption:
        assert not interruption.wait(0)
        del freed
        assert interruption.wait(60)


def test_the_second_ctrl_c_interrupts_immediately() -> None:
    """The first one requests a stop and notifies the user."""
    heard: list[str] = []

    with interruptible(lambda: heard.append("stopping")) as stopped:
        assert not stopped.is_set()
        signal.raise_signal(signal.SIGINT)
        assert stopped.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    assert heard == ["stopping"]
