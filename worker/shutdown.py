"""Leaving in order: stop consuming, let running calls finish for a while, hand the rest back."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import ClassVar

import structlog
from celery import Celery, bootsteps
from celery.signals import worker_shutting_down

from chordwise.errors import ChordwiseError
from chordwise.pipeline.runtime.leases import LeaseKeeper
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
        worker_shutting_down.connect(self._told, weak=False)
        Ending.shutdown = self
        app.steps["worker"].add(Ending)

    def _told(self, **_: object) -> None:
        self.begin()

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
