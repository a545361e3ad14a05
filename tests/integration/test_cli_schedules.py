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
paths = ["letters"]

[embedded]
start = false
"""
ADD = ("schedules", "add", "tidy", "--cron", "0 5 * * SUN")
PRUNE = (*ADD, "--kind", "prune", "--keep-cache-days", "30")


@pytest.fixture(autouse=True)
def _configuration(tmp_path: Path) -> None:
    """Write the settings of the commands."""
    (tmp_path / "chordwise.toml").write_text(CONFIGURATION, "utf-8")


def answer(*arguments: str) -> dict[str, list[dict[str, object]]]:
    """Run a command that succeeds; return its JSON."""
    found: dict[str, list[dict[str, object]]] = json.loads(output_of(*arguments, "--json").out)
    return found


def test_a_schedule_is_added_changed_and_removed() -> None:
    """Relative paths are relative to the folder in which the command is run."""
    letters = ("schedules", "add", "letters", "--cron", "30 2 * * *", "--path", "in")
    assert run(letters) == ExitCode.SUCCESS
    assert run(PRUNE) == ExitCode.SUCCESS
    assert run([*letters, "--time-zone", "Asia/Tokyo"]) == ExitCode.SUCCESS

    first, second = answer("schedules", "list")["schedules"]
    assert (first["name"], first["time_zone"], first["origin"]) == (
        "letters",
        "Asia/Tokyo",
        "database",
    )
    assert isinstance(first["options"], dict)
    assert first["options"]["paths"] == [str(Path.cwd() / "in")]
    assert (second["kind"], second["cron"]) == ("prune", "0 5 * * SUN")

    assert run(["schedules", "remove", "tidy"]) == ExitCode.SUCCESS
    (left,) = answer("schedules", "list")["schedules"]
    assert left["name"] == "letters"


def test_adding_a_schedule_reports_its_due_time_and_missing_folders(tmp_path: Path) -> None:
    """The schedule is added with a warning, because the folder may be mounted later."""
    nightly = ("schedules", "add", "nightly", "--cron", "30 2 * * *", "--path", "in")
    lacking = output_of(*nightly).err
    (tmp_path / "in").mkdir()
    ready = output_of(*nightly).err

    assert "\nWarning: Create or mount its folder" in lacking
    assert "Warning" not in ready
    assert "02:30 UTC." in ready


def test_an_export_schedule_is_added() -> None:
    """It stores the source, the format, and the folder relative to the current one."""
    export = (*ADD, "--kind", "export", "--view", "failures", "--format", "xlsx", "--folder", "out")

    assert run(export) == ExitCode.SUCCESS

    (line,) = answer("schedules", "list")["schedules"]
    assert isinstance(line["options"], dict)
    wanted = {"view": "failures", "format": "xlsx", "folder": str(Path.cwd() / "out"), "raw": False}
    assert {name: line["options"][name] for name in wanted} == wanted


@pytest.mark.parametrize("kind", ["analyze", "reanalyze"])
def test_the_lane_of_a_schedule_is_stored(kind: str) -> None:
    """This applies to the kinds that ask a model; without the option the lane is not set."""
    paths = ("--path", "in") if kind == "analyze" else ()
    plain = ("schedules", "add", "plain", "--cron", "0 5 * * SUN", "--kind", kind, *paths)

    assert run(plain) == ExitCode.SUCCESS
    assert run([*ADD, "--kind", kind, *paths, "--lane", "batch"]) == ExitCode.SUCCESS

    found = [line["options"] for line in answer("schedules", "list")["schedules"]]
    asked = [
        (each["lane"], each["expires_after_hours"]) for each in found if isinstance(each, dict)
    ]
    assert asked == [(None, 22), ("batch", 22)]


def test_the_next_due_time_is_shown_in_the_zone_of_the_schedule() -> None:
    run(["schedules", "add", "tokyo", "--cron", "30 2 * * *", "--path", "in"])
    run(
        [
            "schedules",
            "add",
            "tokyo",
            "--cron",
            "30 2 * * *",
            "--path",
            "in",
            "--time-zone",
            "Asia/Tokyo",
        ]
    )

    said = output_of("schedules", "list")

    assert "02:30" in said.out
    assert "Not yet loaded by a scheduler: nightly." in said.err


REFUSED: list[tuple[tuple[str, ...], str]] = [
    ((*ADD[:-1], "0 5 * *", "--path", "in"), "has 4 fields instead of 5"),
    ((*ADD, "--path", "in", "--time-zone", "Europe/Bonn"), "no time zone “Europe/Bonn”"),
    ((*ADD, "--path", "in", "--profile", "none"), "there is no profile “none”"),
    (ADD, "there is nothing to analyze"),
    ((*ADD, "--kind", "prune"), "kind = “prune” needs at least one of"),
    ((*PRUNE, "--lane", "batch"), "lane is only for kind = “analyze” or “reanalyze”"),
    ((*ADD, "--kind", "export", "--folder", "out"), "needs either view or sql"),
    (
        ("schedules", "add", "a/b", "--cron", "0 5 * * *", "--path", "in"),
        "a name consists of letters",
    ),
    (("schedules", "run", "none"), "There is no schedule “none”."),
    (("schedules", "remove", "none"), "There is no schedule “none”."),
]


def test_invalid_commands_are_refused_with_a_reason() -> None:
    for arguments, said in REFUSED:
        assert said in output_of(*arguments, code=ExitCode.USAGE).in_one_line
        assert answer("schedules", "list")["schedules"] == []


def test_a_configured_schedule_is_run_by_hand(settings: Settings) -> None:
    """A scheduler need not have read it; it does not run twice at the same time."""
    assert run(["schedules", "run", "nightly"]) == ExitCode.SUCCESS
    assert "is running" in output_of("schedules", "run", "nightly", code=ExitCode.USAGE).err
    assert run(["schedules", "remove", "nightly"]) == ExitCode.USAGE
    assert run(["schedules", "add", "nightly", "--cron", "0 5 * * *", "--path", "in"]) == (
        ExitCode.USAGE
    )

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
    a_pipeline(settings).execute('UPDATE schedules SET options = \'{"kind": "dance"}\'')

    (line,) = answer("schedules", "list")["schedules"]
    assert line["defect"] == "cron: Field required"
    said = output_of("schedules", "list").in_one_line
    assert "tidy is invalid: cron: Field required. Another version" in said
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
