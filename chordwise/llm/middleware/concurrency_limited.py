"""So many questions at once and no more: the others wait their turn before their time counts."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Semaphore

from chordwise.llm.model import Completion, CompletionRequest, Middleware


class Slots:
    """The slots of a process: so many of its calls are in flight, or answered and not stored."""

    def __init__(self, count: int) -> None:
        self.prepared = Semaphore(count)
        self.sent = Semaphore(count)


class Turn:
    """A turn at one of the slots, kept after an answer until `close`; for one thread.

    An answer is lost with its process until it is stored. So a process has no more to lose than it
    has slots. Entering the turn permits preparing a request; `send` permits sending it. A thread
    that has all its answers calls `finish` before it stores them, so that another thread can
    prepare a request meanwhile. A request that fails gives the turn back at once.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._is_prepared = False
        self._is_sent = False

    def __enter__(self) -> None:
        if not self._is_prepared:
            self._is_prepared = self._slots.prepared.acquire()

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is not None:
            self.close()

    def send(self) -> None:
        """Wait within the turn until the request may be sent."""
        if not self._is_sent:
            self._is_sent = self._slots.sent.acquire()

    def finish(self) -> None:
        """Let another thread prepare its request: this one asks no more, and has to be stored."""
        if self._is_prepared:
            self._is_prepared = False
            self._slots.prepared.release()

    def close(self) -> None:
        """Give the turn back, if it is held."""
        self.finish()
        if self._is_sent:
            self._is_sent = False
            self._slots.sent.release()


@dataclass(slots=True, eq=False)
class ConcurrencyLimited(Middleware):
    """Asks only while it holds one of the `turns`, which all who ask the same server share.

    A server of this machine answers a few requests at once and lets the others wait; their
    deadlines would run out in its queue.
    """

    turns: AbstractContextManager[object]

    def complete(self, request: CompletionRequest) -> Completion:
        """Wait for a turn, then ask."""
        with self.turns:
            return self.model.complete(request)
