"""The schedules' place in the scheduler: the leader ticks, and a thread carries out what is due."""

from __future__ import annotations

from threading import Event, Thread

import structlog

from chordwise.domain.troubles import Troubles
from chordwise.errors import ServiceUnavailableError
from chordwise.pipeline.context import Context
from chordwise.pipeline.schedules import scheduling
from chordwise.pipeline.schedules.runner import ScheduleRunner
from scheduler.leadership import Leadership

log = structlog.get_logger(__name__)

TICK_SECONDS = 10.0
_LOOK_SECONDS = 2.0
_OUTAGE_SECONDS = 5.0
_LEAVING_SECONDS = 5.0


class Scheduling:
    """One for each scheduler process; every one of them carries out, the leader alone ticks."""

    def __init__(self, context: Context, leadership: Leadership) -> None:
        self._context = context
        self._leadership = leadership
        self._is_synchronized = False
        self._troubles = Troubles()
        self._stop = Event()
        self._runner = ScheduleRunner(context, self._stop.is_set)
        self._thread = Thread(target=self._run, name="schedules", daemon=True)

    def start(self) -> None:
        """Begin to carry out what is due."""
        self._thread.start()

    def stop(self) -> None:
        """Hand back what is being carried out, after the file at hand."""
        self._stop.set()
        self._thread.join(_LEAVING_SECONDS)

    def tick(self) -> None:
        """Start what is due; whoever begins to lead brings its configuration along.

        Raises:
            ServiceUnavailableError: The database cannot be reached.
        """
        if not self._leadership.hold():
            self._is_synchronized = False
            return
        if not self._is_synchronized:
            scheduling.synchronize(self._context)
            self._is_synchronized = True
        scheduling.tick(self._context, troubles=self._troubles)

    def beat(self) -> None:
        """Keep the lease of what is being carried out.

        Raises:
            ServiceUnavailableError: The database cannot be reached.
        """
        self._runner.beat()

    def _run(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            pause = self._work()

    def _work(self) -> float:
        """Carry one occurrence out; return how long to wait before looking again."""
        try:
            return 0.0 if self._runner.work() else _LOOK_SECONDS
        except ServiceUnavailableError as error:
            log.warning("schedule.put_off", reason=error.what)
        except Exception:  # the thread has to outlive a defect
            log.exception("schedule.defect")
        return _OUTAGE_SECONDS
