"""Leaving in order: stop consuming, let running calls finish for a while, hand the rest back."""

from __future__ import annotations

import os
import threading

import structlog
from celery.signals import worker_shutting_down

from chordwise.errors import ServiceUnavailableError
from chordwise.pipeline.context import Context

log = structlog.get_logger(__name__)


class Shutdown:
    """Bounds Celery's warm shutdown, which waits for its threads without end.

    Threads cannot be interrupted: what is still in flight after the grace is given back through
    PostgreSQL and asked again elsewhere, at most one paid call for each slot.
    """

    def __init__(self, context: Context, grace_seconds: float) -> None:
        self._context = context
        self._grace_seconds = grace_seconds
        self._begun = False

    def install(self) -> None:
        """Listen for the signal with which Celery begins its shutdown."""
        worker_shutting_down.connect(self._begin, weak=False)

    def _begin(self, **_: object) -> None:
        if self._begun:
            return
        self._begun = True
        timer = threading.Timer(self._grace_seconds, self._leave)
        timer.daemon = True
        timer.start()

    def _leave(self) -> None:
        try:
            released = self._context.leases.release_all()
            log.info("worker.handed_back", count=released)
        except ServiceUnavailableError as error:
            log.warning("worker.not_handed_back", reason=error.what)
        finally:
            os._exit(0)
