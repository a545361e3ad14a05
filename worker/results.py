"""Where Celery notes how tasks ended, on which only its own count of a chord depends."""

from __future__ import annotations

from typing import ClassVar

import structlog
from celery import Celery
from celery.backends.redis import RedisBackend
from redis.exceptions import OutOfMemoryError

from worker.consumption import Consumption
from worker.transport import TROUBLE

log = structlog.get_logger(__name__)


class PatientResults(RedisBackend):  # type: ignore[misc]  # Celery ships no types
    """Redis or Valkey, which may be full or away: what it does not note stands in PostgreSQL.

    Celery would take a success that cannot be noted for a failure of its task, and tell the chord.
    """

    consumption: ClassVar[Consumption]
    was_full: ClassVar[bool] = False

    def store_result(
        self, task_id: str, result: object, *args: object, **options: object
    ) -> object:
        """Note how a task ended, if there is room."""
        try:
            with self.consumption.noting():
                noted: object = super().store_result(task_id, result, *args, **options)
        except OutOfMemoryError:
            self._note_full()
            return result
        PatientResults.was_full = False
        return noted

    def on_chord_part_return(self, *args: object, **options: object) -> None:
        """Count a task of a chord; the job's own countdown is in PostgreSQL."""
        try:
            with self.consumption.noting():
                super().on_chord_part_return(*args, **options)
        except OutOfMemoryError:
            self._note_full()
        except TROUBLE as error:
            log.warning("task.end_not_noted", reason=type(error).__name__)

    def on_task_call(self, producer: object, task_id: str) -> None:
        """Leave a result alone: nobody here waits for one, and subscribing needs the broker."""

    def _note_full(self) -> None:
        if not self.was_full:
            log.warning("task.end_not_noted", reason="the broker is full")
        PatientResults.was_full = True


def forgive(app: Celery, consumption: Consumption) -> None:
    """Let an application go on where a result finds no room, and tell who waits to note one."""
    PatientResults.consumption = consumption
    path = f"{__name__}:{PatientResults.__name__}"
    app.loader.override_backends = {"redis": path, "rediss": path}
