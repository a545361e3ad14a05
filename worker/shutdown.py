"""Orderly shutdown: stop consuming, let running calls finish for a while, return the rest."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from threading import Event
from typing import ClassVar

import structlog
from celery import Celery, bootsteps
from celery.signals import worker_ready, worker_shutting_down

from chordwise.errors import ChordwiseError
from chordwise.pipeline.runtime.child_process import ChildProcess
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.leases import LeaseKeeper
from chordwise.settings.sections import WorkerSettings

log = structlog.get_logger(__name__)

# For the release of the leases and the end of the siblings.
_LEAVING_SECONDS = 10.0


class Shutdown:
    """Bounds Celery's warm shutdown, which waits for its threads without limit.

    Threads cannot be interrupted: work that is still running after the grace period is returned
    through PostgreSQL and repeated by another worker, with at most one paid call for each slot.
    Messages whose work has not begun are sent again.
    """

    def __init__(self, leases: LeaseKeeper, grace_seconds: float) -> None:
        self._leases = leases
        self._grace_seconds = grace_seconds
        self._begun = threading.Event()
        self.wait_for_siblings: Callable[[], None] = lambda: None
        self.exit_code: int = os.EX_OK
        self._keeps_leases = False

    @property
    def seconds(self) -> float:
        """The maximum duration of the shutdown."""
        return self._grace_seconds + _LEAVING_SECONDS

    @property
    def has_begun(self) -> bool:
        """Whether this worker is shutting down."""
        return self._begun.is_set()

    def install(self, app: Celery) -> None:
        """Connect to the signals with which Celery starts and ends its shutdown."""
        worker_shutting_down.connect(lambda **_: self.begin(), weak=False)
        Ending.shutdown = self
        app.steps["worker"].add(Ending)

    def begin(self, reason: str = "") -> None:
        """Shut down after the grace period; with a reason, the supervisor starts a new worker."""
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
        """Shut down without a grace period, so that the supervisor starts a new worker."""
        if not self.has_begun:
            self.begin(reason)
            self.leave()

    def leave_large(self, reason: str, at_once: bool) -> None:  # noqa: FBT001 - a callback
        """Shut down, or end at once, because of the memory that this process takes.

        The leases of what does not finish expire, so that its attempts count and a document that
        takes too much memory is quarantined.
        """
        log.error("worker.too_large", reason=reason, at_once=at_once)
        self.exit_code = os.EX_SOFTWARE
        self._keeps_leases = True
        if at_once:
            os._exit(self.exit_code)
        os.kill(os.getpid(), signal.SIGTERM)

    def leave(self) -> None:
        """Return all work and end this process."""
        try:
            self._return_work()
            self.wait_for_siblings()
        finally:
            os._exit(self.exit_code)

    def _return_work(self) -> None:
        try:
            if not self._keeps_leases:
                released = self._leases.release_all()
                log.info("worker.work_released", count=released)
        except ChordwiseError as error:
            log.warning("worker.work_not_released", reason=error.what)


class Ending(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery ships no types
    """Detects that Celery stops by itself after an error that it cannot recover from.

    It may hang then: it waits for its threads, and uses the broker that caused the error.
    """

    shutdown: ClassVar[Shutdown]

    def close(self, parent: object) -> None:  # noqa: ARG002 - the signature is Celery's
        """Bound the shutdown that follows; do nothing if a signal came first."""
        self.shutdown.begin("Celery has ended by itself")


def shares_of(settings: WorkerSettings, cores: int) -> Sequence[int]:
    """Return the number of concurrent calls of each process; the first is this process."""
    processes = cores if settings.processes == "auto" else settings.processes
    count = min(processes, settings.concurrency)
    share, left = divmod(settings.concurrency, count)
    return [share + (number < left) for number in range(count)]


class Siblings:
    """Runs a process for each further share while this process consumes."""

    def __init__(
        self, context: Context, shares: Sequence[int], leaving_seconds: float, memory: int
    ) -> None:
        self._stop = Event()
        self._parts = [
            ChildProcess(
                context,
                ("worker", f"worker-{number}"),
                self._stop,
                environment={
                    "CHORDWISE_WORKER__PROCESSES": "1",
                    "CHORDWISE_WORKER__CONCURRENCY": str(share),
                    "CHORDWISE_WORKER__MEMORY_MEGABYTES": str(memory),
                },
                leaving_seconds=leaving_seconds,
            )
            for number, share in enumerate(shares, start=2)
        ]

    def follow(self) -> None:
        """Start and stop the siblings together with this process, as Celery reports it."""
        worker_ready.connect(self._begin, weak=False)
        worker_shutting_down.connect(self._leave, weak=False)

    def wait(self) -> None:
        """Wait until all siblings have ended after a stop."""
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
