"""The further processes of a worker: one interpreter makes use of one core."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event

from celery.signals import worker_ready, worker_shutting_down

from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.part import Part
from chordwise.settings.sections import WorkerSettings


def shares_of(settings: WorkerSettings, cores: int) -> Sequence[int]:
    """Return how many calls at once each process makes; the first process is this one."""
    wanted = cores if settings.processes == "auto" else settings.processes
    count = min(wanted, settings.concurrency)
    share, left = divmod(settings.concurrency, count)
    return [share + (number < left) for number in range(count)]


class Siblings:
    """Runs a process for each share once this one consumes, until it leaves."""

    def __init__(self, context: Context, shares: Sequence[int], leaving_seconds: float) -> None:
        self._stop = Event()
        self._parts = [
            Part(
                context,
                ("worker", f"worker-{number}"),
                self._stop,
                environment={
                    "CHORDWISE_WORKER__PROCESSES": "1",
                    "CHORDWISE_WORKER__CONCURRENCY": str(share),
                },
                leaving_seconds=leaving_seconds,
            )
            for number, share in enumerate(shares, start=2)
        ]

    def follow(self) -> None:
        """Begin and leave as Celery says that this process does."""
        worker_ready.connect(self._begin, weak=False)
        worker_shutting_down.connect(self._leave, weak=False)

    def wait(self) -> None:
        """Wait until all have left, after a stop."""
        self._leave()
        for part in self._parts:
            if part.ident is not None:
                part.wait()

    def _begin(self, **_: object) -> None:
        for part in self._parts:
            if part.ident is None:
                part.start()

    def _leave(self, **_: object) -> None:
        self._stop.set()
