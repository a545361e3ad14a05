"""Tests that a scheduled export writes one file for each due time, also after kills."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from chordwise.pipeline.schedules import exports
from chordwise.pipeline.schedules.work import Work
from chordwise.settings import ScheduleSettings, Settings
from tests.fakes.pipeline import quoting_the_text
from tests.fakes.processes import KilledError
from tests.fakes.scheduling import EXPIRE, OUTCOME, FakeScheduler, a_scheduler

FORMULA = "SELECT '=1+1' AS text, 7 AS number"
NAME = "morning-20260328-0500"


def exporting(folder: Path, **values: object) -> ScheduleSettings:
    given = {"cron": "0 * * * *", "kind": "export", "folder": str(folder), **values}
    return ScheduleSettings.model_validate(given)


def a_due_scheduler(settings: Settings, wanted: ScheduleSettings) -> FakeScheduler:
    """Return a scheduler whose last tick started an export."""
    scheduler = a_scheduler(settings, quoting_the_text, repeat_last=True, morning=wanted)
    scheduler.start_at("2026-03-28T06:01")
    return scheduler


def test_a_view_is_exported_at_its_due_time(settings: Settings, tmp_path: Path) -> None:
    """The CSV file has the name of the schedule and the due time."""
    scheduler = a_due_scheduler(settings, exporting(tmp_path, view="document_results"))
    scheduler.pipeline.analyze("The bridge was opened in May 1902. It stands.")

    assert scheduler.carry_out()

    path = tmp_path / f"{NAME}.csv"
    assert scheduler.rows(OUTCOME) == [("succeeded", None, {"file": str(path), "rows": 1})]
    (row,) = csv.DictReader(io.StringIO(path.read_text("utf-8")))
    assert row["status"] == "succeeded"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("values", "text"), [({}, "'=1+1"), ({"raw": True}, "=1+1")])
def test_formulas_are_escaped_unless_raw_output_is_configured(
    settings: Settings, tmp_path: Path, values: dict[str, object], text: str
) -> None:
    scheduler = a_due_scheduler(settings, exporting(tmp_path, sql=FORMULA, **values))

    scheduler.carry_out()

    assert (tmp_path / f"{NAME}.csv").read_text("utf-8") == f"text,number\n{text},7\n"


def test_the_format_of_the_schedule_is_written(settings: Settings, tmp_path: Path) -> None:
    scheduler = a_due_scheduler(settings, exporting(tmp_path, sql=FORMULA, format="parquet"))

    scheduler.carry_out()

    assert [file.name for file in tmp_path.iterdir()] == [f"{NAME}.parquet"]


def test_no_exported_file_is_overwritten(settings: Settings, tmp_path: Path) -> None:
    """An existing file of that name is kept, even a broken link."""
    scheduler = a_due_scheduler(settings, exporting(tmp_path, sql=FORMULA))
    (tmp_path / f"{NAME}.csv").write_text("mine", "utf-8")
    (tmp_path / f"{NAME}-2.csv").symlink_to("nowhere")

    scheduler.carry_out()

    assert (tmp_path / f"{NAME}.csv").read_text("utf-8") == "mine"
    assert not (tmp_path / "nowhere").exists()
    assert (tmp_path / f"{NAME}-3.csv").read_text("utf-8").startswith("text,number\n")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_killed_scheduler_leaves_one_file(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """If it was killed before or after writing, the next scheduler uses what exists."""
    scheduler = a_due_scheduler(settings, exporting(tmp_path, sql=FORMULA))
    write = exports._write

    def killed(work: Work, path: Path) -> int:
        if moment == "after":
            write(work, path)
        raise KilledError

    monkeypatch.setattr(exports, "_write", killed)
    with pytest.raises(KilledError):
        scheduler.carry_out()
    monkeypatch.setattr(exports, "_write", write)
    scheduler.pipeline.execute(EXPIRE)

    assert scheduler.carry_out()

    path = tmp_path / f"{NAME}.csv"
    ((status, code, outcome),) = scheduler.rows(OUTCOME)
    assert (status, code) == ("succeeded", None)
    assert isinstance(outcome, dict)
    assert outcome["file"] == str(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"view": "nothing"}, "There is no table or view “nothing” to export."),
        ({"sql": "DELETE FROM runs"}, "Only read-only statements are allowed"),
        ({"sql": "SELECT 1 / 0 AS nothing"}, "division by zero"),
    ],
)
def test_a_failed_export_is_reported_with_the_reason(
    settings: Settings, tmp_path: Path, values: dict[str, object], reason: str
) -> None:
    scheduler = a_due_scheduler(settings, exporting(tmp_path, **values))

    scheduler.carry_out()

    found = scheduler.rows("SELECT status, error_message, outcome ? 'file' FROM schedule_runs")
    ((status, message, has_file),) = found
    assert (status, has_file in (None, False)) == ("failed", True)
    assert reason in str(message)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_an_error(settings: Settings, tmp_path: Path) -> None:
    """It is not created, because it may be a share that is not mounted."""
    scheduler = a_due_scheduler(settings, exporting(tmp_path / "share", sql=FORMULA))

    scheduler.carry_out()

    message = f"There is no folder {tmp_path / 'share'}."
    assert scheduler.rows("SELECT status, error_message FROM schedule_runs") == [
        ("failed", message)
    ]


def test_a_scheduler_that_stops_releases_the_export(settings: Settings, tmp_path: Path) -> None:
    """It stops between two batches of rows; no partial file is visible."""
    many = "SELECT n FROM generate_series(1, 5000) AS n"
    scheduler = a_due_scheduler(settings, exporting(tmp_path, sql=many))
    scheduler.stopped = True

    scheduler.carry_out()

    assert scheduler.rows("SELECT status, attempts FROM schedule_runs") == [("due", 0)]
    assert list(tmp_path.iterdir()) == []
    scheduler.stopped = False
    scheduler.carry_out()
    assert len((tmp_path / f"{NAME}.csv").read_text("utf-8").splitlines()) == 5001
