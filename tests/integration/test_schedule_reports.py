"""The report of the night says what was done, what it cost, and what failed."""

from __future__ import annotations

from pathlib import Path

from chordwise.errors import ReadError
from chordwise.pipeline.submit import open_run
from chordwise.readers.reading import UnreadDocument
from chordwise.settings import ScheduleSettings, Settings
from tests.fakes.pipeline import NOW, a_document, a_run, quoting_the_text
from tests.fakes.scheduling import Night, a_night

HOSTILE = "letter|<b>one</b>.txt"


def reporting(folder: Path) -> ScheduleSettings:
    """Return a schedule that reports every hour."""
    return ScheduleSettings.model_validate(
        {"cron": "0 * * * *", "kind": "report", "folder": str(folder)}
    )


def a_night_with_a_run(settings: Settings, folder: Path) -> Night:
    """Return a night in which one document was analyzed and one could not be read."""
    night = a_night(settings, quoting_the_text, repeat_last=True, morning=reporting(folder))
    pipeline = night.pipeline
    submission = open_run(pipeline.context, a_run(), NOW)
    submission.take_in(a_document("The bridge was opened in May 1902. Carts crossed it.", HOSTILE))
    scan = ReadError("scan.pdf holds no text.", "Run it through OCR.", "unreadable", "needs_ocr")
    submission.take_in(UnreadDocument(source="scan.pdf", error=scan))
    submission.close()
    pipeline.work(submission)
    pipeline.execute("UPDATE results SET needs_review = true")
    night.sleep_until("2026-03-28T06:01")
    night.tick()
    return night


def test_a_report_has_every_section(settings: Settings, tmp_path: Path) -> None:
    """With names that cannot break out of their cells."""
    night = a_night_with_a_run(settings, tmp_path)

    assert night.carry_out()

    ((status, outcome),) = night.rows("SELECT status, outcome ->> 'file' FROM schedule_runs")
    assert status == "succeeded"
    written = Path(str(outcome)).read_text("utf-8")
    headings = [line for line in written.splitlines() if line.startswith("#")]
    assert len(headings) == 6
    assert "letter\\|&lt;b&gt;one&lt;/b&gt;.txt" in written
    assert "| needs_ocr | 1 | Run it through OCR. |" in written
    assert [file.suffix for file in tmp_path.glob("morning-*")] == [".md"]


def test_the_next_report_begins_where_the_last_one_ended(
    settings: Settings, tmp_path: Path
) -> None:
    """And says so where nothing has happened since."""
    night = a_night_with_a_run(settings, tmp_path)
    night.carry_out()
    night.pipeline.execute("UPDATE runs SET created_at = '2026-03-27'")
    night.sleep_until("2026-03-28T07:01")
    night.tick()

    night.carry_out()

    newest = max(tmp_path.glob("morning-*")).read_text("utf-8")
    assert newest.startswith("# Chordwise, 2026-03-28 05:00 to 2026-03-28 06:00 UTC")
    assert "## Runs\n\nNothing." in newest


def test_a_report_that_cannot_be_written_is_a_failure(settings: Settings, tmp_path: Path) -> None:
    """With the folder's name and the reason."""
    night = a_night_with_a_run(settings, tmp_path / "gone")

    night.carry_out()

    ((status, message),) = night.rows("SELECT status, error_message FROM schedule_runs")
    assert status == "failed"
    assert "gone" in str(message)
    assert "No such file" in str(message)
