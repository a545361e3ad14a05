"""A thread of the leader works while its process leads, whatever happens to it."""

from __future__ import annotations

from threading import Event

from chordwise.errors import ServiceUnavailableError
from scheduler.loop import LeaderWork
from tests.fakes.processes import wait_until

SOON = 10.0


def test_it_works_only_while_it_leads() -> None:
    """It rests when another process leads, and continues when it is its turn again."""
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


def test_neither_an_outage_nor_a_defect_ends_it() -> None:
    errors = [ServiceUnavailableError("away"), ValueError("defect")]
    reached = Event()

    def work() -> None:
        if errors:
            raise errors.pop()
        reached.set()

    thread = LeaderWork("work", work, every_seconds=0.001)
    thread.lead(leads=True)

    assert reached.wait(SOON)
    thread.stop()
