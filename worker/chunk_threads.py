"""The threads of a worker that analyze the chunks of all messages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from chordwise.errors import ConfigurationError
from chordwise.pipeline.runtime.messages import MAX_SLICE

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
