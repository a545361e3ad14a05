"""So many questions at once and no more: the others wait their turn before their time counts."""

from __future__ import annotations

from contextlib import AbstractContextManager
from threading import Semaphore

from chordwise.llm.model import ChatModel, Completion, CompletionRequest, ModelProfile


class Turn:
    """One of the turns, kept after an answer until `close`; for one thread.

    An answer is lost with its process until it is stored. So a process has no more to lose than it
    has turns. A request that fails gives the turn back at once.
    """

    def __init__(self, turns: Semaphore) -> None:
        self._turns = turns
        self._is_held = False

    def __enter__(self) -> None:
        if not self._is_held:
            self._is_held = self._turns.acquire()

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is not None:
            self.close()

    def close(self) -> None:
        """Give the turn back, if it is held."""
        if self._is_held:
            self._is_held = False
            self._turns.release()


class Queued:
    """Asks only while it holds one of the `turns`, which all who ask the same server share.

    A server of this machine answers a few requests at once and lets the others wait; their
    deadlines would run out in its queue.
    """

    def __init__(self, model: ChatModel, turns: AbstractContextManager[object]) -> None:
        self._model = model
        self._turns = turns

    @property
    def profile(self) -> ModelProfile:
        """Return the profile of the model inside."""
        return self._model.profile

    def complete(self, request: CompletionRequest) -> Completion:
        """Wait for a turn, then ask.

        Raises:
            ModelError: What the model inside raised.
        """
        with self._turns:
            return self._model.complete(request)
