"""So many questions at once and no more: the others wait their turn before their time counts."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Semaphore

from chordwise.llm.model import Completion, CompletionRequest, Middleware

_PART_BESIDE = 4


def most_unstored(slots: int) -> int:
    """Return how many calls a process with so many slots has in flight, or answered and not stored.

    So many answers can be lost with it: one for each slot, and for a quarter of them another one.
    """
    return slots + slots // _PART_BESIDE


class Slots:
    """The slots of a process: so many of its calls are in flight; see also `most_unstored`."""

    def __init__(self, count: int) -> None:
        self.asking = Semaphore(most_unstored(count))
        self.sent = Semaphore(count)
        self.unstored = Semaphore(most_unstored(count))


class Turn:
    """A turn at one of the slots, for one thread.

    Entering it permits preparing a request; `send` permits sending it. A thread that has all its
    answers calls `finish` before it stores them, so that another thread can prepare a request, and
    `close` once they are stored. A request that fails gives the turn back at once.

    A thread that holds a permit of the provider never waits for a thread that wants one: a thread
    releases its slot before it asks again, and as many answers may be unstored as threads may ask.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._is_asking = self._is_sent = self._is_unstored = False

    def __enter__(self) -> None:
        if not self._is_asking:
            self._is_asking = self._slots.asking.acquire()

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.recall()
        if error is not None:
            self.close()

    def send(self) -> None:
        """Wait within the turn until the request may be sent."""
        if not self._is_unstored:
            self._is_unstored = self._slots.unstored.acquire()
        if not self._is_sent:
            self._is_sent = self._slots.sent.acquire()

    def recall(self) -> None:
        """Let another thread send its request: this one is not sent, or not any more."""
        if self._is_sent:
            self._is_sent = False
            self._slots.sent.release()

    def finish(self) -> None:
        """Let another thread prepare its request: this one asks no more, and has to be stored."""
        if self._is_asking:
            self._is_asking = False
            self._slots.asking.release()

    def close(self) -> None:
        """Give the turn back, if it is held."""
        self.finish()
        if self._is_unstored:
            self._is_unstored = False
            self._slots.unstored.release()


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
