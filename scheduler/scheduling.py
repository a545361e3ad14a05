"""The schedules' place in the scheduler: the leader starts what is due."""

from __future__ import annotations

from chordwise.domain.troubles import Troubles
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.schedules import scheduling
from scheduler.leadership import Leadership

TICK_SECONDS = 10.0


class Scheduling:
    """One for each scheduler process; every one of them carries out, the leader alone ticks."""

    def __init__(self, context: Context, leadership: Leadership) -> None:
        self._context = context
        self._leadership = leadership
        self._is_synchronized = False
        self._troubles = Troubles()

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
