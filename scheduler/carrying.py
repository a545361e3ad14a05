"""Carries out what schedules have started, in a process of its own, which leaves when idle."""

from __future__ import annotations

import time
from threading import Event, Thread

import structlog

from chordwise.errors import ServiceUnavailableError
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.schedules.runner import ScheduleRunner

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 2.0
_OUTAGE_SECONDS = 5.0
_LEAVING_SECONDS = 5.0
_IDLE_SECONDS = 30.0


class Carrying:
    """Works in a thread, while another one keeps the lease of what is being worked on."""

    def __init__(self, context: Context, stop: Event) -> None:
        self._heartbeat_seconds = context.settings.pipeline.heartbeat_seconds
        self._stop = stop
        self._runner = ScheduleRunner(context, stop.is_set)
        self._thread = Thread(target=self._run, name="schedules", daemon=True)

    def run(self) -> None:
        """Work until there is nothing to do for a while, or told to stop.

        What is being carried out then is handed back, after the file at hand.
        """
        self._thread.start()
        while self._thread.is_alive() and not self._stop.is_set():
            self._beat()
            self._thread.join(self._heartbeat_seconds)
        self._thread.join(_LEAVING_SECONDS)

    def _beat(self) -> None:
        try:
            self._runner.beat()
        except ServiceUnavailableError as error:
            log.warning("schedule.put_off", reason=error.what)

    def _run(self) -> None:
        worked_at, pause = time.monotonic(), 0.0
        while not self._stop.wait(pause) and time.monotonic() - worked_at < _IDLE_SECONDS:
            pause = self._work()
            if pause == 0.0:
                worked_at = time.monotonic()

    def _work(self) -> float:
        """Carry one occurrence out; return how long to wait before looking again."""
        try:
            return 0.0 if self._runner.work() else _LOOK_SECONDS
        except ServiceUnavailableError as error:
            log.warning("schedule.put_off", reason=error.what)
        except Exception:  # the thread has to outlive a defect
            log.exception("schedule.defect")
        return _OUTAGE_SECONDS
