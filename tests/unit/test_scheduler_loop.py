"""Tests of the threads that work while their process is the leader."""

from __future__ import annotations

from threading import Event

from chordwise.errors import ServiceUnavailableError
from scheduler.loop import LeaderWork
from tests.fakes.processes import wait_until

SOON = 10.0


def test_leader_work_runs_only_while_the_process_is_the_leader() -> None:
    done: list[int] = []
    thread = LeaderWork("work", lambda: done.append(1), every_seconds=0.001)
    thread.lead(leads=False)
    assert done == []

    thread.lead(leads=True)
    wait_until(lambda: len(done) > 1, SOON, "work")
    thread.lead(leads=False)
    thread.stop()
    before = len(done)

    thread.lead(leads=True)
    assert len(done) == before


def test_leader_work_continues_after_outages_and_unexpected_errors() -> None:
    errors = [ServiceUnavailableError("unavailable"), ValueError("defect")]
    reached = Event()

    def work() -> None:
        if errors:
            raise errors.pop()
        reached.set()

    thread = LeaderWork("work", work, every_seconds=0.001)
    thread.lead(leads=True)

    assert reached.wait(SOON)
    thread.stop()
