"""Limits concurrent questions; the time of a question starts after the wait for its turn."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Semaphore

from chordwise.llm.model import Completion, CompletionRequest, Middleware

_SLOTS_PER_EXTRA_CALL = 4


def max_unstored_calls(slots: int) -> int:
    """Return the maximum number of calls in flight, or answered and not stored, with these slots.

    A process that is killed can lose this many answers: one per slot, and one more for every four
    slots.
    """
    return slots + slots // _SLOTS_PER_EXTRA_CALL


class Slots:
    """The slots of a process, which bound its calls in flight; see also `max_unstored_calls`."""

    def __init__(self, count: int) -> None:
        self.asking = Semaphore(max_unstored_calls(count))
        self.sent = Semaphore(count)
        self.unstored = Semaphore(max_unstored_calls(count))


class Turn:
    """A turn at one of the slots, for one thread.

    Entering it permits the thread to prepare a request; `send` permits it to send the request. A
    thread that has all its answers calls `finish` before it stores them, so that another thread can
    prepare a request, and `close` once they are stored. A request that fails ends the turn at once.

    A thread that holds a permit of the provider waits for one that wants a permit only if that one
    holds the rest of the budget: a thread whose request for a permit is refused releases its slot,
    and `unstored` has as many places as `asking`.
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
    """Sends requests only within one of the `turns`, shared by all callers of the same server.

    A server on this machine answers a few requests at once and queues the others, whose deadlines
    would expire in that queue.
    """

    turns: AbstractContextManager[object]

    def complete(self, request: CompletionRequest) -> Completion:
        """Wait for a turn, then ask."""
        with self.turns:
            return self.model.complete(request)
