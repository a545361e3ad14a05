"""Tests of the speed of a run, its progress display, and progress lines in logs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from chordwise.cli.commands.up import LogLines
from chordwise.domain.states import RunStatus
from chordwise.relations.progress import CallCounts, JobCounts, Pace, Progress
from chordwise.rendering.live import Bars, ProgressLines


def a_progress(done: int, chunks: int = 100, status: RunStatus = RunStatus.OPEN) -> Progress:
    return Progress(
        status=status,
        is_taking_in=False,
        jobs=JobCounts(
            documents=10, documents_done=done // 10, total=10, done=done // 10, succeeded=done // 10
        ),
        chunks=chunks,
        chunks_done=done,
        calls=CallCounts(total=done, tokens=done * 1_000, cost_usd=Decimal(done) / 100),
    )


@pytest.mark.parametrize(
    ("seen", "seconds"),
    [
        # Ten chunks took five seconds, so the other ninety take 45.
        ([(100.0, a_progress(0)), (105.0, a_progress(10))], 45),
        # Only the last minute counts, so a slow start does not distort the estimate.
        ([(0.0, a_progress(0)), (1_000.0, a_progress(10)), (1_010.0, a_progress(20))], 80),
        # Too early, no progress, or intake still running.
        ([], None),
        ([(0.0, a_progress(5))], None),
        ([(0.0, a_progress(5)), (1.0, a_progress(9))], None),
        ([(0.0, a_progress(5)), (30.0, a_progress(5))], None),
        ([(0.0, a_progress(5)), (30.0, replace(a_progress(9), is_taking_in=True))], None),
    ],
)
def test_the_remaining_time_follows_from_the_open_chunks_and_the_speed(
    seen: list[tuple[float, Progress]], seconds: int | None
) -> None:
    pace = Pace()
    for moment, progress in seen:
        pace.record(moment, progress)

    assert pace.remaining() == (None if seconds is None else timedelta(seconds=seconds))
    assert seconds != 45 or pace.documents_per_minute() == 12.0


def test_the_speed_is_measured_anew_after_a_retry() -> None:
    """A retry reopens documents that were done; the speed is never negative.

    An unsplit document counts with the average number of chunks: five of ten documents have eighty.
    """
    pace = Pace()
    for moment, done in ((0.0, 40), (10.0, 90), (20.0, 50)):
        pace.record(moment, a_progress(done))
    progress = replace(a_progress(40, chunks=80), jobs=JobCounts(documents=10, total=10, unsplit=5))

    assert pace.documents_per_minute() is None
    pace.record(25.0, a_progress(60))
    assert pace.documents_per_minute() == 12.0
    assert progress.chunks_open == 40 + 80


def test_a_log_gets_the_first_line_the_last_line_and_one_every_five_seconds() -> None:
    """A line says why the last call failed; the last one does not."""
    said: list[str] = []
    times: Iterator[float] = iter([10.0, 10.0, 11.0, 12.0, 15.5, 15.5, 16.0])
    lines = ProgressLines(said.append, lambda: next(times))
    trouble = "127.0.0.1 cannot be reached."

    for done in (10, 20, 30, 40):
        lines.progress(replace(a_progress(done), last_error=trouble), Pace())
    end = replace(a_progress(100, status=RunStatus.FINISHED), last_error=trouble)
    lines.progress(end, Pace())

    assert [line.split(" · ")[1] for line in said] == [
        *("10/100 chunks", "40/100 chunks", "100/100 chunks")
    ]
    assert all(line.endswith(f"the last call failed: {trouble}") for line in said[:2])
    assert said[-1] == "10/10 documents · 100/100 chunks · 100 calls · 100k tokens · $1.00"


def test_bars_are_updated_by_the_intake_and_the_progress() -> None:
    shown: list[object] = []
    bars = Bars(shown.append)

    bars.show_intake(1, 2, "[red]a.txt")
    bars.progress(a_progress(50), Pace())

    assert len(shown) == 2


def test_following_logs_starts_at_their_end(tmp_path: Path) -> None:
    """Partial lines are held back until they are complete; new files are included.

    A log that was rotated is read from its beginning.
    """
    worker = tmp_path / "worker.log"
    worker.write_text("a long line of yesterday\n", "utf-8")
    said: list[str] = []
    logs = LogLines(tmp_path, said.append, "worker", "scheduler")

    with worker.open("a", encoding="utf-8") as log:
        log.write("today\nhalf")
    (tmp_path / "scheduler.log").write_text("started\n", "utf-8")
    (tmp_path / "postgres.log").write_text("chatter\n", "utf-8")
    logs.forward()
    with worker.open("a", encoding="utf-8") as log:
        log.write(" done\n")
    logs.forward()
    worker.write_text("new\n", "utf-8")
    logs.forward()

    assert [line.split() for line in said] == [
        ["scheduler", "started"],
        ["worker", "today"],
        ["worker", "half", "done"],
        ["worker", "new"],
    ]
