"""The slots of a worker: the threads that analyze chunks, whichever messages name those."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Argument = TypeVar("Argument")
Returned = TypeVar("Returned")


class Slots:
    """Runs the chunks of slices in `count` threads, first come, first served.

    There is room for another slice while fewer chunks than slots are at work or wait: so each slot
    finds the next chunk at once, and no more than one slice is held back from other workers.
    `on_room` is called when there is room again.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="slot")
        self._lock = threading.Lock()
        self._chunks = 0
        self.on_room: Callable[[], None] = lambda: None

    @property
    def has_room(self) -> bool:
        """Whether the worker should take another message."""
        return self._chunks < self._count

    def run(
        self, work: Callable[[Argument], Returned], arguments: Iterable[Argument]
    ) -> list[Returned]:
        """Do the work for each argument in the slots; return what came of it, in order.

        Raises:
            Exception: What the work raised first, after all of it is done.
        """
        given = list(arguments)
        with self._lock:
            self._chunks += len(given)
        futures = [self._threads.submit(self._occupied, work, argument) for argument in given]
        errors = [error for future in futures if (error := future.exception())]
        if errors:
            raise errors[0]
        return [future.result() for future in futures]

    def _occupied(self, work: Callable[[Argument], Returned], argument: Argument) -> Returned:
        try:
            return work(argument)
        finally:
            with self._lock:
                had_room = self.has_room
                self._chunks -= 1
                has_room = self.has_room
            if has_room and not had_room:
                self.on_room()
