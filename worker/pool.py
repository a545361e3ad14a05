"""The threads that tasks run in: counted, and none keeps its slot for a task that ended badly."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ClassVar, ParamSpec

import structlog
from celery.concurrency.thread import TaskPool

from worker.consumption import Consumption

Arguments = ParamSpec("Arguments")

log = structlog.get_logger(__name__)


class CountedThreads(TaskPool):  # type: ignore[misc]  # Celery ships no types
    """Celery's threads, with two differences.

    They tell how many of them are at work. And where Celery cannot note a task's end, because the
    broker takes no result, the slot is free again: Celery would keep it forever, and consume
    nothing once all are kept. The work itself stands in PostgreSQL by then.
    """

    consumption: ClassVar[Consumption]

    def on_apply(
        self, target: Callable[Arguments, object], *args: object, **options: object
    ) -> object:
        """Run a task in a thread."""
        return super().on_apply(self._watched(target), *args, **options)

    def _watched(self, target: Callable[Arguments, object]) -> Callable[Arguments, object]:
        @functools.wraps(target)
        def run(*args: Arguments.args, **options: Arguments.kwargs) -> object:
            with self.consumption.working():
                try:
                    return target(*args, **options)
                except Exception as error:  # noqa: BLE001 - whatever it is, the slot has to be free
                    log.warning("task.end_not_noted", error=type(error).__name__)
                    return _ENDED

        return run


# What Celery's tracer returns: no failure, no value, no seconds.
_ENDED = (0, None, 0.0)
