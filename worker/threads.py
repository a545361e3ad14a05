"""The threads of a worker: for chunks, for the tasks of Celery, and the watchdog over them."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import ClassVar, ParamSpec, TypeVar

import structlog
from celery.concurrency.thread import TaskPool

from chordwise.errors import ConfigurationError, ServiceUnavailableError
from chordwise.pipeline.runtime.messages import MAX_SLICE
from chordwise.telemetry.liveness import INTERVAL_SECONDS, State

# Threads beside those that call a model: each costs memory, with its connections.
_MAX_PREPARING = MAX_SLICE

Argument = TypeVar("Argument")
Returned = TypeVar("Returned")


class ChunkThreads:
    """Analyzes the chunks of slices in order of arrival; `count` of them call a model at once.

    The chunks of a slice start together, so that they can share transactions. There are enough
    threads to prepare another slice meanwhile, so that calls do not wait for it. `on_room` is
    called when a message can be taken again.

    Until its chunks begin, a message that was taken counts as the chunks that these threads can
    prepare: a process that took more messages than it can work on would keep them from the others.

    Raises:
        ConfigurationError: The system allows fewer threads.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._preparing = min(count, _MAX_PREPARING)
        self._size = count + self._preparing
        self._threads = ThreadPoolExecutor(self._size, thread_name_prefix="slot")
        # All at once: one that is missing later would leave claimed chunks without a thread.
        all_started, started = threading.Event(), 0
        try:
            for started in range(self._size):  # noqa: B007 - the error says how far it came
                self._threads.submit(all_started.wait)
        except RuntimeError as error:
            raise ConfigurationError(
                f"The system allows this worker {started} of {self._size} threads.",
                "Lower worker.concurrency, or raise the limit of threads: `pids` in"
                " docker-compose.yml, TasksMax of a service, ulimit -u.",
            ) from error
        finally:
            all_started.set()
        self._free = self._size
        self._chunks = 0
        self._not_begun = 0
        self._of_thread = threading.local()
        self._changed = threading.Condition()
        self._turn = threading.Lock()
        self.on_room: Callable[[], None] = lambda: None

    @property
    def has_room(self) -> bool:
        """Whether the worker should take another message: no slice waits for a thread."""
        return self._chunks + self._not_begun * self._preparing < self._size

    def count_message(self) -> None:
        """Count a message that was taken from the broker; `message` ends it."""
        with self._changed:
            self._not_begun += 1

    @contextmanager
    def message(self) -> Iterator[None]:
        """Run the task of a message in this thread."""
        self._of_thread.has_not_begun = True
        try:
            yield
        finally:
            self.mark_begun()

    def mark_begun(self) -> None:
        """Stop counting the message of this thread: its chunks have begun, or it has none."""
        if not getattr(self._of_thread, "has_not_begun", False):
            return
        self._of_thread.has_not_begun = False
        with self._change():
            self._not_begun -= 1

    def begin(
        self, work: Callable[[Argument], Returned], arguments: Sequence[Argument]
    ) -> list[Future[Returned]]:
        """Start the work for each argument as soon as a thread is free, in order of arrival."""
        with self._changed:
            self._chunks += len(arguments)
        self.mark_begun()
        with self._turn:
            return [self._begin(work, argument) for argument in arguments]

    def _begin(self, work: Callable[[Argument], Returned], argument: Argument) -> Future[Returned]:
        with self._changed:
            self._changed.wait_for(lambda: self._free)
            self._free -= 1
        return self._threads.submit(self._occupied, work, argument)

    def _occupied(self, work: Callable[[Argument], Returned], argument: Argument) -> Returned:
        try:
            return work(argument)
        finally:
            with self._change():
                self._chunks -= 1
                self._free += 1

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Change the counts in the block; wake the worker if there is room again."""
        with self._changed:
            had_room = self.has_room
            yield
            has_room = self.has_room
            self._changed.notify()
        if has_room and not had_room:
            self.on_room()


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
