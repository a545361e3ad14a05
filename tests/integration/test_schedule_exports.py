"""Tests of commands that write a file for each due time, also after kills."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from chordwise.pipeline.exports import writers
from chordwise.settings import ScheduleSettings, Settings
from tests.fakes.pipeline import quoting_the_text
from tests.fakes.processes import KilledError
from tests.fakes.scheduling import EXPIRE, FakeScheduler, a_scheduler

STATUS = "SELECT status, error_code FROM schedule_runs ORDER BY due_at DESC LIMIT 1"
FORMULA = "--sql \"SELECT '=1+1' AS text, 7 AS number\""
FILE = "morning-20260328-0500.csv"


def exporting(folder: Path, what: str) -> ScheduleSettings:
    run = f"export {what} --output {folder}/morning-{{due}}.csv"
    return ScheduleSettings(cron="0 * * * *", run=run)


def a_due_scheduler(settings: Settings, wanted: ScheduleSettings) -> FakeScheduler:
    scheduler = a_scheduler(settings, quoting_the_text, repeat_last=True, morning=wanted)
    scheduler.start_at("2026-03-28T06:01")
    return scheduler


def test_a_view_is_exported_at_its_due_time(settings: Settings, tmp_path: Path) -> None:
    scheduler = a_due_scheduler(settings, exporting(tmp_path, "document_results"))
    scheduler.pipeline.analyze("The bridge was opened in May 1902. It stands.")

    assert scheduler.carry_out()

    path = tmp_path / FILE
    ((output,),) = scheduler.rows("SELECT outcome ->> 'output' FROM schedule_runs")
    assert str(output).startswith("Wrote 1 row to")
    (row,) = csv.DictReader(io.StringIO(path.read_text("utf-8")))
    assert row["status"] == "succeeded"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("option", "text"), [("", "'=1+1"), ("--raw", "=1+1")])
def test_command_options_apply(settings: Settings, tmp_path: Path, option: str, text: str) -> None:
    scheduler = a_due_scheduler(settings, exporting(tmp_path, f"{FORMULA} {option}"))

    scheduler.carry_out()

    assert (tmp_path / FILE).read_text("utf-8") == f"text,number\n{text},7\n"


def test_no_exported_file_is_overwritten(settings: Settings, tmp_path: Path) -> None:
    scheduler = a_due_scheduler(settings, exporting(tmp_path, FORMULA))
    (tmp_path / FILE).write_text("mine", "utf-8")

    scheduler.carry_out()

    assert (tmp_path / FILE).read_text("utf-8") == "mine"
    assert scheduler.rows(STATUS) == [("failed", "usage")]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_killed_scheduler_leaves_one_file(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    scheduler = a_due_scheduler(settings, exporting(tmp_path, FORMULA))
    new_file = writers.new_file

    @contextmanager
    def killed(path: Path, *, overwrite: bool = False) -> Iterator[BinaryIO]:
        if moment == "after":
            with new_file(path, overwrite=overwrite) as file:
                yield file
        raise KilledError

    monkeypatch.setattr(writers, "new_file", killed)
    with pytest.raises(KilledError):
        scheduler.carry_out()
    monkeypatch.setattr(writers, "new_file", new_file)
    scheduler.pipeline.execute(EXPIRE)

    assert scheduler.carry_out()

    assert scheduler.rows(STATUS) == [("succeeded", None)]
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("nothing", "There is no table or view “nothing” to export."),
        ("--sql 'DELETE FROM runs'", "Only read-only statements are allowed"),
        ("--sql 'SELECT 1 / 0 AS nothing'", "division by zero"),
    ],
)
def test_a_failed_export_is_reported_with_the_reason(
    settings: Settings, tmp_path: Path, what: str, reason: str
) -> None:
    scheduler = a_due_scheduler(settings, exporting(tmp_path, what))

    scheduler.carry_out()

    ((status, message),) = scheduler.rows("SELECT status, error_message FROM schedule_runs")
    assert status == "failed"
    assert reason in str(message)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_an_error(settings: Settings, tmp_path: Path) -> None:
    """It is not created, because it may be a share that is not mounted."""
    scheduler = a_due_scheduler(settings, exporting(tmp_path / "share", FORMULA))

    scheduler.carry_out()

    message = f"There is no folder {tmp_path / 'share'}."
    assert scheduler.rows("SELECT status, error_message FROM schedule_runs") == [
        ("failed", message)
    ]
