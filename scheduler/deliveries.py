"""A thread of its own for deliveries, so that a slow receiver holds nothing else up."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread

import structlog

from chordwise.errors import ServiceUnavailableError
from chordwise.pipeline.deliveries import run_ends
from chordwise.pipeline.runtime.context import Context

log = structlog.get_logger(__name__)

_INTERVAL_SECONDS = 1.0
_FAREWELL_SECONDS = 5.0


class Deliveries:
    """Delivers while this process leads; two at once are harmless, for each takes its own."""

    def __init__(self, context: Context, leads: Callable[[], bool]) -> None:
        self._context = context
        self._leads = leads
        self._stop = Event()
        self._thread = Thread(target=self._run, name="deliveries", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Leave after the attempt under way, or without it: it is made again under its name."""
        self._stop.set()
        self._thread.join(_FAREWELL_SECONDS)

    def _run(self) -> None:
        while not self._stop.wait(_INTERVAL_SECONDS):
            try:
                self._deliver()
            except ServiceUnavailableError as error:
                log.warning("scheduler.put_off", chore="deliver", reason=error.what)
            except Exception:  # a defect must not end the thread
                log.exception("scheduler.defect", chore="deliver")

    def _deliver(self) -> None:
        if not self._leads():
            return
        run_ends.skip_unwanted(self._context)
        while not self._stop.is_set() and run_ends.deliver_next(self._context):
            continue
