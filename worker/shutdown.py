"""Leaving in order: stop consuming, let running calls finish for a while, hand the rest back."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from threading import Event
from typing import ClassVar

import structlog
from celery import Celery, bootsteps
from celery.signals import worker_ready, worker_shutting_down

from chordwise.errors import ChordwiseError
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.leases import LeaseKeeper
from chordwise.pipeline.runtime.part import Part
from chordwise.settings.sections import WorkerSettings
from worker import transport

log = structlog.get_logger(__name__)

_GIVE_BACK_SECONDS = 5.0


class Shutdown:
    """Bounds Celery's warm shutdown, which waits for its threads without end.

    Threads cannot be interrupted: what is still in flight after the grace is given back, leases
    through PostgreSQL and messages to the broker, and asked again elsewhere, at most one paid call
    for each slot.
    """

    def __init__(self, leases: LeaseKeeper, grace_seconds: float) -> None:
        self._leases = leases
        self._grace_seconds = grace_seconds
        self._begun = threading.Event()
        self.wait_for_siblings: Callable[[], None] = lambda: None
        self.exit_code: int = os.EX_OK

    @property
    def seconds(self) -> float:
        """How long leaving takes at most."""
        return self._grace_seconds + 2 * _GIVE_BACK_SECONDS

    @property
    def has_begun(self) -> bool:
        """Whether this worker is leaving."""
        return self._begun.is_set()

    def install(self, app: Celery) -> None:
        """Listen for the signal with which Celery begins its shutdown, and for its end."""
        worker_shutting_down.connect(lambda **_: self.begin(), weak=False)
        Ending.shutdown = self
        app.steps["worker"].add(Ending)

    def begin(self, reason: str = "") -> None:
        """Leave after the grace; with a reason, as a worker that its supervisor has to replace."""
        if self.has_begun:
            return
        self._begun.set()
        if reason:
            self.exit_code = os.EX_SOFTWARE
            log.error("worker.not_consuming", reason=reason)
        timer = threading.Timer(self._grace_seconds, self.leave)
        timer.daemon = True
        timer.start()

    def leave_broken(self, reason: str) -> None:
        """Leave without a grace, as a worker that its supervisor has to replace."""
        if not self.has_begun:
            self.begin(reason)
            self.leave()

    def leave(self) -> None:
        """Hand everything back, and end this process."""
        try:
            self._hand_back()
            self.wait_for_siblings()
        finally:
            os._exit(self.exit_code)

    def _hand_back(self) -> None:
        try:
            released = self._leases.release_all()
            log.info("worker.handed_back", count=released)
        except ChordwiseError as error:
            log.warning("worker.not_handed_back", reason=error.what)
        # Those that no lease was held for yet would wait for the visibility timeout.
        if transport.give_back(_GIVE_BACK_SECONDS) is None:
            log.warning("worker.messages_not_handed_back")


class Ending(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery ships no types
    """Sees Celery close by itself, after an error that it cannot recover from.

    It may hang then: it waits for its threads, and talks to the broker that gave the error.
    """

    shutdown: ClassVar[Shutdown]

    def close(self, parent: object) -> None:  # noqa: ARG002 - the signature is Celery's
        """Bound what follows; nothing happens where a signal came first."""
        self.shutdown.begin("Celery has ended by itself")


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
