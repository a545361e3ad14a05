"""Detects whether this worker consumes messages, and ends it if it does not."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar, ParamSpec

import structlog
from celery.concurrency.thread import TaskPool

from chordwise.errors import ServiceUnavailableError
from chordwise.telemetry.liveness import INTERVAL_SECONDS, State
from worker.chunk_threads import ChunkThreads


class Consumption:
    """The time of the last answer of the broker, and the number of busy threads.

    The event loop and the threads of the pool write it; the watchdog reads it. An empty answer
    counts like a message. A worker whose threads or slots are all busy requests no messages: that
    time does not count as quiet.
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
        """Record that the broker answered a request for messages."""
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
    def recording(self) -> Iterator[None]:
        """Report to the broker inside the block; the slot does not count as busy."""
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
        """Whether no messages are requested because there is no capacity for them."""
        return self._at_work >= self._slots or not self._has_room()

    @property
    def quiet_seconds(self) -> float:
        """The seconds for which there was a free slot and no answer."""
        return 0.0 if self.is_busy else self._clock() - self._last_at


log = structlog.get_logger(__name__)


Arguments = ParamSpec("Arguments")


class CountedThreads(TaskPool):  # type: ignore[misc]  # Celery ships no types
    """Celery's thread pool, with two differences.

    It counts the busy threads. It also frees the slot of a task whose end Celery cannot record
    because the broker accepts no result: Celery would keep the slot forever and stop consuming once
    all are kept. The work itself is in PostgreSQL by then.
    """

    consumption: ClassVar[Consumption]
    chunk_threads: ClassVar[ChunkThreads]

    def on_apply(
        self, target: Callable[Arguments, object], *args: object, **options: object
    ) -> object:
        """Run a task in a thread."""
        self.chunk_threads.count_message()
        return super().on_apply(self._watched(target), *args, **options)

    def _watched(self, target: Callable[Arguments, object]) -> Callable[Arguments, object]:
        @functools.wraps(target)
        def run(*args: Arguments.args, **options: Arguments.kwargs) -> object:
            with self.chunk_threads.message(), self.consumption.working():
                try:
                    return target(*args, **options)
                except Exception as error:  # noqa: BLE001 - any error has to free the slot
                    log.warning("task.end_not_recorded", error=type(error).__name__)
                    return _ENDED

        return run


# What Celery's tracer returns: no failure, no value, no seconds.
_ENDED = (0, None, 0.0)

_FIRST_CHECK_SECONDS = 1.0
_CHECKS = 3


class Watchdog:
    """A thread beside Celery's event loop, which may hang or may have ended.

    It waits for a broker that is unavailable or full without a time limit; running calls continue.
    It ends a worker that does not consume although the broker is healthy, or whose event loop has
    ended.
    """

    def __init__(
        self,
        consumption: Consumption,
        *,
        timeout_seconds: float,
        ping: Callable[[], None],
        show: Callable[[State], None],
        leave: Callable[[str], None],
    ) -> None:
        self._consumption = consumption
        self._interval_seconds = min(INTERVAL_SECONDS, timeout_seconds / _CHECKS)
        # Checks are counted instead of time, so that the time of a stopped process does not count.
        self._max_failed_checks = round(timeout_seconds / self._interval_seconds)
        self._failed_checks = 0
        self._shown: State | None = None
        self._ping_broker = ping
        self._show = show
        self._leave = leave

    def start(self) -> None:
        """Start checking every few seconds."""
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def begin(self, **_: object) -> None:
        """Report at once that the worker consumes; its supervisor may be waiting."""
        self._consumption.answered()
        self._shown = State.CONSUMING
        self._show(State.CONSUMING)

    def check(self) -> State | None:
        """Check once; return what the worker does, or `None` if it should consume and does not."""
        state = self._observed() or self._ping()
        if state is not None:
            self._failed_checks = 0
            if self._consumption.has_begun or state is State.WAITING:
                self._shown = state
                self._show(state)
            return state
        self._failed_checks += 1
        if self._failed_checks >= self._max_failed_checks:
            self._leave("the broker answers, but the worker consumes no messages")
        return None

    def _observed(self) -> State | None:
        if self._consumption.is_busy:
            return State.BUSY
        is_recent = self._consumption.quiet_seconds < 2 * self._interval_seconds
        return State.CONSUMING if is_recent else None

    def _ping(self) -> State | None:
        try:
            self._ping_broker()
        except ServiceUnavailableError as error:
            if self._shown is not State.WAITING:
                log.warning("worker.waiting", reason=error.what)
            return State.WAITING
        return None

    def _run(self) -> None:
        pause, seconds = threading.Event(), min(_FIRST_CHECK_SECONDS, self._interval_seconds)
        while not pause.wait(seconds):
            seconds = self._interval_seconds
            try:
                self.check()
            except Exception:  # a full disk, for example, must not end the watch
                log.exception("watchdog.defect")
