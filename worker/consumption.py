"""Whether this worker takes messages: when the broker last answered, how many slots are busy."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar, ParamSpec

import structlog
from celery.concurrency.thread import TaskPool


class Consumption:
    """Written by the event loop and the threads of the pool, read by the watchdog.

    A message and an empty answer count alike. A worker whose threads are all at work, or whose
    slots have no room, asks for nothing, and is not to blame for it: that time is not quiet.
    """

    def __init__(
        self,
        slots: int,
        clock: Callable[[], float] = time.monotonic,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self._slots = slots
        self._has_room = has_room
        self._clock = clock
        self._lock = threading.Lock()
        self._at_work = 0
        self._last_at = clock()
        self.has_begun = False

    def answered(self) -> None:
        """Note that the broker has answered the question for messages."""
        self.has_begun = True
        self._last_at = self._clock()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Occupy one slot inside the block."""
        self._occupy(1)
        try:
            yield
        finally:
            self._occupy(-1)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Within a slot, tell the broker something: who waits for it is not at work."""
        self._occupy(-1)
        try:
            yield
        finally:
            self._occupy(1)

    def _occupy(self, slots: int) -> None:
        with self._lock:
            if self.is_busy:
                self._last_at = self._clock()
            self._at_work += slots

    @property
    def is_busy(self) -> bool:
        """Whether nothing more is asked for, since there is no room for it."""
        return self._at_work >= self._slots or not self._has_room()

    @property
    def quiet_seconds(self) -> float:
        """How long there was a free slot, and no answer."""
        return 0.0 if self.is_busy else self._clock() - self._last_at


log = structlog.get_logger(__name__)


Arguments = ParamSpec("Arguments")


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
