"""Tells a local server, after a question now and then, how long to keep the model in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from chordwise.errors import ModelError
from chordwise.llm.model import ChatModel, Completion, CompletionRequest, ModelProfile

log = structlog.get_logger(__name__)


class KeptLoaded:
    """Calls `keep` after an answer, unless it did less than `interval_seconds` ago.

    After the answer, because the model is loaded then for certain: before it, `keep` would wait for
    the loading. That it fails is a line in the log, once, and never costs an answer.
    """

    def __init__(
        self,
        model: ChatModel,
        keep: Callable[[], None],
        interval_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._keep = keep
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._due_at = clock()
        self._has_failed = False

    @property
    def profile(self) -> ModelProfile:
        """Return the profile of the model inside."""
        return self._model.profile

    def complete(self, request: CompletionRequest) -> Completion:
        """Ask once, then say how long the model is to stay.

        Raises:
            ModelError: What the model inside raised.
        """
        completion = self._model.complete(request)
        if self._is_due():
            self._tell()
        return completion

    def _is_due(self) -> bool:
        with self._lock:
            now = self._clock()
            if now < self._due_at:
                return False
            self._due_at = now + self._interval_seconds
            return True

    def _tell(self) -> None:
        try:
            self._keep()
        except ModelError as error:
            if not self._has_failed:
                log.warning("model.keep_alive_failed", model=self.profile.model, reason=error.what)
            self._has_failed = True
