"""Tests of `chordwise schedules`, which lists, adds, runs and removes schedules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chordwise.embedded.supervisor import has_open_work
from chordwise.errors import ExitCode
from chordwise.settings import Settings
from tests.fakes.commands import output_of, run
from tests.fakes.pipeline import a_pipeline

pytestmark = pytest.mark.usefixtures("addressed")
CONFIGURATION = """
[schedules.nightly]
cron = "0 2 * * *"
time_zone = "Europe/Berlin"
run = "submit letters"

[embedded]
start = false
"""
SUNDAYS = ("--cron", "0 5 * * SUN")
PRUNE = ("schedules", "add", "tidy", "prune --cache 30", *SUNDAYS)


@pytest.fixture(autouse=True)
def _configuration(tmp_path: Path) -> None:
    """Write the settings of the commands."""
    (tmp_path / "chordwise.toml").write_text(CONFIGURATION, "utf-8")


def answer(*arguments: str) -> dict[str, list[dict[str, object]]]:
    """Run a command that succeeds; return its JSON."""
    content: dict[str, list[dict[str, object]]] = json.loads(output_of(*arguments, "--json").out)
    return content


def test_a_schedule_is_added_changed_and_removed() -> None:
    """The command runs in the folder in which it was added."""
    letters = ("schedules", "add", "letters", "submit in", "--cron", "30 2 * * *")
    assert run(letters) == ExitCode.SUCCESS
    assert run(PRUNE) == ExitCode.SUCCESS
    assert run([*letters, "--time-zone", "Asia/Tokyo"]) == ExitCode.SUCCESS

    first, second = answer("schedules", "list")["schedules"]
    assert (first["name"], first["time_zone"], first["origin"]) == (
        "letters",
        "Asia/Tokyo",
        "database",
    )
    assert (first["run"], first["folder"]) == ("submit in", str(Path.cwd()))
    assert (second["run"], second["cron"]) == ("prune --cache 30", "0 5 * * SUN")

    assert run(["schedules", "remove", "tidy"]) == ExitCode.SUCCESS
    (left,) = answer("schedules", "list")["schedules"]
    assert left["name"] == "letters"


def test_adding_a_schedule_reports_its_due_time_and_missing_folders(tmp_path: Path) -> None:
    """A folder may be mounted later; the due time is that of the zone of the schedule."""
    letters = ("schedules", "add", "letters", "submit in", "--cron", "30 2 * * *")
    lacking = output_of(*letters).err
    (tmp_path / "in").mkdir()
    ready = output_of(*letters).err
    run([*letters, "--time-zone", "Asia/Tokyo"])
    listed = output_of("schedules", "list")

    assert "\nWarning: Create or mount its folder" in lacking
    assert "Warning" not in ready
    assert "02:30 UTC." in ready
    assert "02:30" in listed.out
    assert "Not yet loaded by a scheduler: nightly." in listed.err


REFUSED: list[tuple[tuple[str, ...], str, int]] = [
    (("add", "x", "prune --cache 9", "--cron", "0 5 * *"), "has 4 fields instead of 5", 2),
    (("add", "x", "prune", *SUNDAYS, "--time-zone", "Europe/Bonn"), "no time zone", 2),
    (("add", "x", "dance", *SUNDAYS), "“dance” is not a command that a schedule can run", 2),
    (("add", "x", "submit in --labls a", *SUNDAYS), "No such option: --labls", 78),
    (("add", "a/b", "submit in", *SUNDAYS), "a name consists of letters", 2),
    (("run", "none"), "There is no schedule “none”.", 2),
    (("remove", "none"), "There is no schedule “none”.", 2),
]


def test_invalid_commands_are_refused_with_a_reason() -> None:
    for arguments, said, code in REFUSED:
        assert said in output_of("schedules", *arguments, code=code).in_one_line
        assert answer("schedules", "list")["schedules"] == []


def test_a_configured_schedule_is_run_by_hand(settings: Settings) -> None:
    """A scheduler need not have read it; it does not run twice at the same time."""
    assert run(["schedules", "run", "nightly"]) == ExitCode.SUCCESS
    assert "is running" in output_of("schedules", "run", "nightly", code=ExitCode.USAGE).err
    assert run(["schedules", "remove", "nightly"]) == ExitCode.USAGE
    assert run(["schedules", "add", "nightly", "submit in", *SUNDAYS]) == ExitCode.USAGE

    pipeline = a_pipeline(settings)
    pipeline.execute("UPDATE schedule_runs SET status = 'failed', error_message = 'It is gone.'")
    (line,) = answer("schedules", "history", "nightly")["schedule_runs"]
    assert (line["trigger"], line["status"], line["runs"]) == ("command", "failed", [])
    assert "It is gone." in output_of("schedules", "history").out


def test_the_history_of_a_current_or_removed_schedule_is_shown() -> None:
    """An unknown name is an error; a schedule that was never due has an empty history."""
    run(PRUNE)
    for name in ("nightly", "tidy"):
        assert answer("schedules", "history", name)["schedule_runs"] == []
    said = output_of("schedules", "history", "none", code=ExitCode.USAGE)
    run(["schedules", "run", "tidy"])
    run(["schedules", "remove", "tidy"])

    assert "There is no schedule “none”." in said.err
    assert "No schedule has been due" not in said.err
    (line,) = answer("schedules", "history", "tidy")["schedule_runs"]
    assert line["schedule"] == "tidy"


def test_an_unreadable_schedule_is_listed_with_the_reason(settings: Settings) -> None:
    """A schedule of a newer version is an example; it can be removed or redefined."""
    run(PRUNE)
    a_pipeline(settings).execute("UPDATE schedules SET run = 'dance'")

    (line,) = answer("schedules", "list")["schedules"]
    assert str(line["defect"]).startswith("run: “dance” is not a command")
    assert "tidy is invalid: run: “dance” is not" in output_of("schedules", "list").in_one_line
    assert run(["schedules", "run", "tidy"]) == ExitCode.USAGE

    run(PRUNE)
    (line,) = answer("schedules", "list")["schedules"]
    assert line["defect"] is None


def test_the_path_of_an_exported_file_is_shown_in_full(settings: Settings) -> None:
    """In a narrow terminal it spans several lines."""
    run(PRUNE)
    run(["schedules", "run", "tidy"])
    path = f"/srv/{'very-' * 20}long/tidy-20261125-0200.csv"
    outcome = json.dumps({"file": path})
    a_pipeline(settings).execute("UPDATE schedule_runs SET outcome = CAST(:o AS jsonb)", o=outcome)

    shown = output_of("schedules", "history").out.splitlines()[1:]

    cells = [line.split()[-1] for line in shown if line.strip()]
    assert path in "".join(cells)


def test_the_embedded_stack_keeps_running_while_there_are_schedules(settings: Settings) -> None:
    """An idle stack may stop once the schedules are removed and finished."""
    assert settings.database_url is not None
    address = settings.database_url.get_secret_value()
    assert not has_open_work(address)

    run(PRUNE)
    assert has_open_work(address)
    run(["schedules", "run", "tidy"])
    run(["schedules", "remove", "tidy"])
    assert has_open_work(address)

    a_pipeline(settings).execute("UPDATE schedule_runs SET status = 'succeeded'")
    assert not has_open_work(address)
