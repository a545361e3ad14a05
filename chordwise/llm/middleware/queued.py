"""So many questions at once and no more: the others wait their turn before their time counts."""

from __future__ import annotations

from threading import Semaphore

from chordwise.llm.model import ChatModel, Completion, CompletionRequest, ModelProfile


class Queued:
    """Asks only while it holds one of the `turns`, which all who ask the same server share.

    A server of this machine answers a few requests at once and lets the others wait; their
    deadlines would run out in its queue.
    """

    def __init__(self, model: ChatModel, turns: Semaphore) -> None:
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
