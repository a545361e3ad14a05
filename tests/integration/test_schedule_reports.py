"""Tests of schedules that write a file: reports and exports, also after kills."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import pytest

from chordwise.domain.states import InboxStatus
from chordwise.errors import ReadError
from chordwise.pipeline.exports import writers
from chordwise.readers.reader import UnreadDocument
from chordwise.settings import ScheduleSettings, Settings
from chordwise.storage.inbox_files import InboxFile
from tests.fakes.pipeline import AN_UNREAD_SCAN, a_document, quoting_the_text
from tests.fakes.processes import KilledError
from tests.fakes.scheduling import FakeScheduler, a_scheduler, at_night

INTO_THE_NIGHT = (
    "UPDATE results SET needs_review = true, created_at = '2026-03-28T01:00Z'",
    "UPDATE runs SET created_at = '2026-03-28T01:00Z', finished_at = '2026-03-28T01:00Z'",
    "UPDATE model_calls SET started_at = '2026-03-28T01:00Z'",
)
HOSTILE = "letter|<b>one</b>![a](//evil.example)`\x1b[2J\u202e.txt"


def reporting(folder: Path) -> ScheduleSettings:
    run = f"night-report --out {folder}/morning-{{due}}.md"
    return ScheduleSettings(cron="0 * * * *", run=run)


def a_scheduler_after_a_run(settings: Settings, folder: Path) -> FakeScheduler:
    """Return a scheduler after a run with one analyzed and one unreadable document."""
    scheduler = a_scheduler(settings, quoting_the_text, repeat_last=True, morning=reporting(folder))
    pipeline = scheduler.pipeline
    letter = a_document("The bridge was opened in May 1902. Carts crossed it.", HOSTILE)
    pipeline.analyze(letter, AN_UNREAD_SCAN)
    for moved in INTO_THE_NIGHT:
        pipeline.execute(moved)
    scheduler.start_at("2026-03-28T06:01")
    return scheduler


def report_of(scheduler: FakeScheduler, hour: str, folder: Path) -> str:
    scheduler.sleep_until(f"2026-03-28T{hour}:01")
    scheduler.tick()
    scheduler.carry_out()
    written = "UPDATE schedule_runs SET finished_at = due_at + interval '5 seconds'"
    scheduler.pipeline.execute(written + " WHERE schedule = 'morning'")
    return max(folder.glob("morning-*")).read_text("utf-8")


def section(written: str, heading: str) -> str:
    return written.partition(f"## {heading}\n\n")[2].partition("\n\n")[0]


def test_a_report_has_every_section(settings: Settings, tmp_path: Path) -> None:
    """The next one begins at the end of the previous one."""
    scheduler = a_scheduler_after_a_run(settings, tmp_path)
    scheduler.pipeline.execute(
        "UPDATE deliveries SET finished_at = '2026-03-28T01:00Z', attempts = 9,"
        " status = CASE kind WHEN 'webhook' THEN 'failed' ELSE 'delivered' END,"
        " last_error = 'The server answered 410.'"
    )

    written = report_of(scheduler, "06", tmp_path)

    ((status, outcome),) = scheduler.rows("SELECT status, outcome ->> 'file' FROM schedule_runs")
    assert (status, Path(str(outcome)).read_text("utf-8")) == ("succeeded", written)
    assert len([line for line in written.splitlines() if line.startswith("#")]) == 9
    assert (
        r"letter\|&lt;b&gt;one&lt;/b&gt;!\[a\](//evil.example)\`\\u001b\[2J\\u202e.txt" in written
    )
    assert "| needs_ocr | 1 |" in section(written, "What failed")
    assert "| needs_ocr | scan.pdf holds no text. | Run it through OCR. |" in written
    (line,) = section(written, "Permanently failed deliveries").splitlines()[2:]
    assert line.endswith("| webhook | run.finished | 9 | The server answered 410. |")
    assert [file.suffix for file in tmp_path.glob("morning-*")] == [".md"]
    newest = report_of(scheduler, "07", tmp_path)
    assert newest.startswith("# Chordwise, 2026-03-28 05:00 to 2026-03-28 06:00 UTC")
    assert "## Runs\n\nNothing." in newest


@pytest.mark.parametrize("end", ["finished", "cancelled"])
def test_the_end_of_a_run_is_in_one_report(settings: Settings, tmp_path: Path, end: str) -> None:
    scheduler = a_scheduler_after_a_run(settings, tmp_path)
    scheduler.pipeline.execute("UPDATE runs SET status = 'open', finished_at = NULL")
    first = report_of(scheduler, "06", tmp_path)
    ended = "UPDATE runs SET status = :end, finished_at = '2026-03-28T05:30Z'"
    scheduler.pipeline.execute(ended, end=end)

    second, third = report_of(scheduler, "07", tmp_path), report_of(scheduler, "08", tmp_path)

    assert "| open |" in section(first, "Runs")
    assert f"| {end} |" in section(second, "Runs")
    assert "needs_ocr" in section(second, "What failed")
    assert section(third, "Runs") == section(third, "What failed") == "Nothing."


def test_an_end_after_the_due_time_is_reported_next(settings: Settings, tmp_path: Path) -> None:
    scheduler = a_scheduler_after_a_run(settings, tmp_path)
    scheduler.pipeline.execute("UPDATE runs SET finished_at = '2026-03-28T05:00:30Z'")
    scheduler.pipeline.execute("UPDATE model_calls SET started_at = '2026-03-28T05:00:30Z'")

    first, second = report_of(scheduler, "06", tmp_path), report_of(scheduler, "07", tmp_path)

    assert "| open |" in section(first, "Runs")
    assert section(first, "What it cost") == "Nothing."
    assert "| finished |" in section(second, "Runs")
    assert section(second, "Runs").endswith("| yes |")
    assert "| scripted |" in section(second, "What it cost")


def test_the_end_of_an_occurrence_is_in_one_report(settings: Settings, tmp_path: Path) -> None:
    tidy = at_night("prune --cache 30")
    scheduler = a_scheduler(settings, morning=reporting(tmp_path), tidy=tidy)
    scheduler.sleep_until("2026-03-28T02:31")
    scheduler.tick()
    scheduler.pipeline.execute(
        "UPDATE schedule_runs SET status = 'running', lease_until = 'infinity'"
        " WHERE schedule = 'tidy'"
    )
    scheduler.carry_out()
    first = report_of(scheduler, "06", tmp_path)
    scheduler.pipeline.execute(
        "UPDATE schedule_runs SET status = 'failed', error_message = 'It broke.',"
        " finished_at = '2026-03-28T05:30Z' WHERE schedule = 'tidy'"
    )

    second, third = report_of(scheduler, "07", tmp_path), report_of(scheduler, "08", tmp_path)

    done = "Schedules"
    assert "| tidy | 2026-03-28 01:30 | running | – |" in section(first, done)
    assert "| tidy | 2026-03-28 01:30 | failed | It broke. |" in section(second, done)
    assert section(third, done) == "Nothing."


def test_failures_are_listed_with_their_hints(settings: Settings, tmp_path: Path) -> None:
    scheduler = a_scheduler(settings, morning=reporting(tmp_path))
    errors = {
        f"{number:02}.pdf": ReadError(f"No {number}.", f"Fix {number}.", "unreadable", "broken")
        for number in range(25)
    }
    errors["zz.pdf"] = ReadError("It is locked.", "Unlock it.", "encrypted", "zz_locked")
    scheduler.pipeline.submit(*(UnreadDocument(source=s, error=e) for s, e in errors.items()))
    scheduler.pipeline.execute(INTO_THE_NIGHT[1])

    written = report_of(scheduler, "06", tmp_path)

    assert len(section(written, "What failed, by name").splitlines()[2:]) == 20
    assert "| zz.pdf | – | encrypted | zz_locked | It is locked. | Unlock it. |" in written
    assert "| 07.pdf | – | unreadable | broken | No 7. | Fix 7. |" in written
    assert "… and 6 more" in written
    assert "| unreadable | broken | 25 |" in section(written, "What failed")


def test_failed_inbox_files_without_a_run_are_listed(settings: Settings, tmp_path: Path) -> None:
    scheduler = a_scheduler(settings, morning=reporting(tmp_path))
    file = InboxFile(
        byte_count=1,
        modified_ns=1,
        folder="/in",
        name="a|b.txt",
        raw_name=b"a|b.txt",
        profile="",
        status=InboxStatus.FAILED,
        reason="usage",
        message="The side-car is wrong." * 100,
        hint="docs/inbox.md",
        delivered_at=datetime(2026, 3, 28, 1, tzinfo=UTC),
    )
    with scheduler.pipeline.context.database.write() as session:
        session.add(file)

    first, second = report_of(scheduler, "06", tmp_path), report_of(scheduler, "07", tmp_path)

    told = section(first, "Files of an inbox that could not be taken in")
    assert "| /in | a\\|b.txt | usage | The side-car is wrong." in told
    assert told.endswith("… | docs/inbox.md |")
    assert len(told) < 500
    assert section(second, "Files of an inbox that could not be taken in") == "Nothing."


COSTS = (
    ("0", "$0.00 | 0"),
    ("0.0123", "$0.0123 | 0"),
    ("0.00000001", "under $0.0001 | 0"),
    ("12.5", "$12.50 | 0"),
    (None, "unknown | 1"),
)


def test_costs_are_formatted_as_in_other_outputs(settings: Settings, tmp_path: Path) -> None:
    """In the report of each hour, the call has another cost."""
    scheduler = a_scheduler_after_a_run(settings, tmp_path)
    cost = "UPDATE model_calls SET cost_usd = CAST(:usd AS numeric), started_at = :at"
    for hour, (usd, shown) in enumerate(COSTS, start=6):
        scheduler.pipeline.execute(
            cost, usd=usd, at=datetime(2026, 3, 28, hour - 2, 30, tzinfo=UTC)
        )

        written = report_of(scheduler, f"{hour:02}", tmp_path)

        assert f"| {shown} |" in section(written, "What it cost")


@pytest.mark.parametrize("is_link", [False, True])
def test_a_report_is_not_written_through_a_link(
    settings: Settings,
    tmp_path: Path,
    is_link: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Other users may be able to write to the folder of reports, which may also be missing."""
    folder, other = tmp_path / "gone", tmp_path / "other.toml"
    other.write_text("other", "utf-8")
    scheduler = a_scheduler_after_a_run(settings, folder)
    if is_link:
        folder.mkdir()
        (folder / "morning-20260328-0500.md").symlink_to(other)

    scheduler.carry_out()

    assert other.read_text("utf-8") == "other"
    ((status, message),) = scheduler.rows("SELECT status, error_message FROM schedule_runs")
    assert status == "failed"
    assert str(folder) in str(message)
    assert ("There is no folder" in str(message)) is not is_link


def test_plots_are_written_by_a_schedule(settings: Settings, tmp_path: Path) -> None:
    run = f"insight --out {tmp_path}/plots-{{due}}.html --days 7"
    plots = ScheduleSettings(cron="0 * * * *", run=run)
    scheduler = a_scheduler(settings, quoting_the_text, repeat_last=True, plots=plots)
    scheduler.pipeline.analyze("The bridge was opened in May 1902.")
    scheduler.start_at("2026-03-28T06:01")

    assert scheduler.carry_out()

    query = "SELECT outcome - 'output' FROM schedule_runs WHERE status = 'succeeded'"
    ((outcome,),) = scheduler.rows(query)
    (written,) = tmp_path.glob("plots-*")
    assert isinstance(outcome, dict)
    assert outcome["file"] == str(written)
    assert outcome["totals"]["results"] == 1
    assert isinstance(outcome["totals"]["results"], int)
    assert '<h2 id="throughput">' in written.read_text("utf-8")
    told = scheduler.rows(
        "SELECT event, content FROM deliveries WHERE run_id IS NULL AND kind = 'webhook'"
    )
    assert told == [("report.written", {"schedule": "plots", **outcome})]


STATUS = "SELECT status, error_code FROM schedule_runs ORDER BY due_at DESC LIMIT 1"
FORMULA = "--sql \"SELECT '=1+1' AS text, 7 AS number\""
FILE = "morning-20260328-0500.csv"


def exporting(folder: Path, what: str) -> ScheduleSettings:
    run = f"export {what} --output {folder}/morning-{{due}}.csv"
    return ScheduleSettings(cron="0 * * * *", run=run)


def a_due_scheduler(settings: Settings, schedule: ScheduleSettings) -> FakeScheduler:
    scheduler = a_scheduler(settings, quoting_the_text, repeat_last=True, morning=schedule)
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


def test_no_exported_file_is_overwritten(settings: Settings, tmp_path: Path) -> None:
    """The options of the command apply."""
    scheduler = a_due_scheduler(settings, exporting(tmp_path, f"{FORMULA} --raw"))
    (tmp_path / FILE).write_text("mine", "utf-8")

    scheduler.carry_out()

    assert (tmp_path / FILE).read_text("utf-8") == "mine"
    assert scheduler.rows(STATUS) == [("failed", "usage")]
    scheduler.sleep_until("2026-03-28T07:01")
    scheduler.tick()
    scheduler.carry_out()
    (later,) = [path for path in tmp_path.iterdir() if path.name != FILE]
    assert later.read_text("utf-8") == "text,number\n=1+1,7\n"


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
    scheduler.pipeline.expire_leases()

    assert scheduler.carry_out()

    assert scheduler.rows(STATUS) == [("succeeded", None)]
    assert [file.name for file in tmp_path.iterdir()] == [FILE]
    assert (tmp_path / FILE).read_text("utf-8") == "text,number\n'=1+1,7\n"


@pytest.mark.parametrize(
    ("folder", "what", "reason"),
    [
        ("", "nothing", "There is no table or view “nothing” to export."),
        ("", "--sql 'DELETE FROM runs'", "Only read-only statements are allowed"),
        ("", "--sql 'SELECT 1 / 0 AS nothing'", "division by zero"),
        ("share", FORMULA, "There is no folder {}/share."),
    ],
)
def test_a_failed_export_is_reported_with_the_reason(
    settings: Settings, tmp_path: Path, folder: str, what: str, reason: str
) -> None:
    """A missing folder is not created, because it may be a share that is not mounted."""
    scheduler = a_due_scheduler(settings, exporting(tmp_path / folder, what))

    scheduler.carry_out()

    ((status, message),) = scheduler.rows("SELECT status, error_message FROM schedule_runs")
    assert status == "failed"
    assert reason.format(tmp_path) in str(message)
    assert list(tmp_path.iterdir()) == []
