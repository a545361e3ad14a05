"""The slots of a worker: the threads that analyze chunks of all messages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from chordwise.pipeline.runtime.messages import MAX_SLICE

# Threads beside those that call a model: each costs memory, with its connections.
_MAX_PREPARING = MAX_SLICE // 2

Argument = TypeVar("Argument")
Returned = TypeVar("Returned")


class Slots:
    """Analyzes the chunks of slices in order of arrival; `count` of them call a model at once.

    The chunks of a slice start together, so that they can share transactions. There are enough
    threads to prepare another slice meanwhile, so that calls do not wait for it. `on_room` is
    called when a message can be taken again.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        size = count + min(count, _MAX_PREPARING)
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="slot")
        self._free = size
        self._chunks = 0
        self._changed = threading.Condition()
        self._turn = threading.Lock()
        self.on_room: Callable[[], None] = lambda: None

    @property
    def has_room(self) -> bool:
        """Return whether the worker should take another message: no slice is waiting to start."""
        return self._chunks < self.count

    def begin(
        self, work: Callable[[Argument], Returned], arguments: Sequence[Argument]
    ) -> list[Future[Returned]]:
        """Start the work for each argument as soon as a thread is free, in order of arrival."""
        with self._changed:
            self._chunks += len(arguments)
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
            with self._changed:
                had_room = self.has_room
                self._chunks -= 1
                self._free += 1
                has_room = self.has_room
                self._changed.notify()
            if has_room and not had_room:
                self.on_room()
