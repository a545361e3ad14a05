"""The thread of the batch lane works while its process leads, whatever happens to it."""

from __future__ import annotations

from threading import Event

from chordwise.errors import ServiceUnavailableError
from scheduler.loop import Batching
from tests.fakes.processes import wait_until

SOON = 10.0


def test_it_works_only_while_it_leads() -> None:
    """It rests when another process leads, and goes on when it is its turn again."""
    done: list[int] = []
    batching = Batching(lambda: done.append(1), every_seconds=0.001)
    batching.lead(leads=False)
    assert done == []

    batching.lead(leads=True)
    wait_until(lambda: len(done) > 1, SOON, "work")
    batching.lead(leads=False)
    batching.stop()
    before = len(done)

    batching.lead(leads=True)
    assert len(done) == before


def test_neither_an_outage_nor_a_defect_ends_it() -> None:
    errors = [ServiceUnavailableError("away"), ValueError("defect")]
    reached = Event()

    def work() -> None:
        if errors:
            raise errors.pop()
        reached.set()

    batching = Batching(work, every_seconds=0.001)
    batching.lead(leads=True)

    assert reached.wait(SOON)
    batching.stop()
