"""The slots of a worker: the threads that analyze chunks, whichever messages name those."""

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
    """Runs the chunks of slices, first come, first served; `count` of them call a model at once.

    The chunks of a slice begin together, so that what they store at the same moment can share
    transactions. There are threads enough for another slice that is being prepared, so that the
    calls need not wait for it. `on_room` is called when there is room again.
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
        """Whether the worker should take another message: no slice waits for its beginning."""
        return self._chunks < self.count

    def begin(
        self, work: Callable[[Argument], Returned], arguments: Sequence[Argument]
    ) -> list[Future[Returned]]:
        """Begin the work for each argument as soon as it finds a thread, after all begun before."""
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
