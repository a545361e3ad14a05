"""Limits concurrent questions; the time of a question starts after the wait for its turn."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Semaphore

from chordwise.llm.model import Completion, CompletionRequest, Middleware

_SLOTS_PER_EXTRA_CALL = 4


def max_unstored_calls(slots: int) -> int:
    """Return how many calls may be in flight or unstored: what a killed process can lose."""
    return slots + slots // _SLOTS_PER_EXTRA_CALL


class Slots:
    """The slots of a process, which bound its calls in flight; see also `max_unstored_calls`."""

    def __init__(self, count: int) -> None:
        self.asking = Semaphore(max_unstored_calls(count))
        self.sent = Semaphore(count)
        self.unstored = Semaphore(max_unstored_calls(count))


class Turn:
    """A turn at one of the slots, for one thread.

    Entering it permits the thread to prepare a request; `send` permits it to send the request. With
    all answers it calls `finish` before it stores them, so that another thread can prepare, and
    `close` once they are stored. A request that fails, or gets no permit, ends the turn at once.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._is_asking = self._is_sent = self._is_unstored = False

    def __enter__(self) -> None:
        if not self._is_asking:
            self._is_asking = self._slots.asking.acquire()

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.release_slot()
        if error is not None:
            self.close()

    def send(self) -> None:
        """Wait, within the turn, until the request may be sent."""
        if not self._is_unstored:
            self._is_unstored = self._slots.unstored.acquire()
        if not self._is_sent:
            self._is_sent = self._slots.sent.acquire()

    def release_slot(self) -> None:
        """Release the slot of this thread's request, so that another thread can send one."""
        if self._is_sent:
            self._is_sent = False
            self._slots.sent.release()

    def finish(self) -> None:
        """End the requests of this turn, so that another thread can prepare one."""
        if self._is_asking:
            self._is_asking = False
            self._slots.asking.release()

    def close(self) -> None:
        """End the turn, if it is held."""
        self.finish()
        if self._is_unstored:
            self._is_unstored = False
            self._slots.unstored.release()


@dataclass(slots=True, eq=False)
class ConcurrencyLimited(Middleware):
    """Sends requests within one of the `turns`; in a server's queue, deadlines would expire."""

    turns: AbstractContextManager[object]

    def complete(self, request: CompletionRequest) -> Completion:
        """Wait for a turn, then ask."""
        with self.turns:
            return self.model.complete(request)
