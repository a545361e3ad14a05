"""Ollama's `keep_alive`: how long a model stays in memory, set over its native API.

Its Chat Completions endpoint ignores this field (github.com/ollama/ollama/issues/3645). A loaded
model keeps the last duration that it was given. A native request without a prompt sets the duration
without generating an answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

import structlog

from chordwise.domain.json_values import JsonValue
from chordwise.errors import ConfigurationError, ModelError, ModelRequestError
from chordwise.llm.exchange import HttpModel, endpoint
from chordwise.llm.faults import LOWEST_ERROR_STATUS
from chordwise.llm.model import ChatModel, Completion, CompletionRequest, Middleware
from chordwise.settings import ModelSettings

log = structlog.get_logger(__name__)
UNLIMITED = "-1"
_TIMEOUT_SECONDS = 10.0
_MAX_INTERVAL_SECONDS = 60.0
_SECONDS: Mapping[str, int] = {"s": 1, "m": 60, "h": 3_600}


def with_keep_alive(model: HttpModel) -> ChatModel:
    """Return the model, wrapped to send `keep_alive` to its server if its settings have it."""
    settings = model.settings
    if not settings.keep_alive:
        return model
    url = endpoint(settings.base_url, "/api/generate", *model.endings, "/v1")
    # The native API requires a unit in a string, but not in a number.
    duration: JsonValue = -1 if settings.keep_alive == UNLIMITED else settings.keep_alive

    def send() -> None:
        body = {"model": settings.model, "keep_alive": duration}
        response = model.transport.post_json(url, model.with_key(), body, _TIMEOUT_SECONDS)
        if response.status >= LOWEST_ERROR_STATUS:
            raise ModelRequestError(
                f"The server of {settings.model} answered keep_alive with {response.status}.",
                "keep_alive is for Ollama; remove it for other servers.",
            )

    return KeptLoaded(model, send, interval_seconds(settings))


def require_keep_alive(settings: ModelSettings) -> None:
    """Reject `keep_alive` for a model that is not on a server of the user.

    Raises:
        ConfigurationError: It is set for such a model.
    """
    if not settings.keep_alive:
        return
    if settings.provider != "openai" or not settings.base_url:
        raise ConfigurationError(
            f"keep_alive is set for {settings.model}, which Ollama does not serve.",
            'Remove keep_alive, or set provider = "openai" and base_url to the /v1 of Ollama.',
        )


def interval_seconds(settings: ModelSettings) -> float:
    """Return the interval of the request; a reloaded model has the default of its server again."""
    if settings.keep_alive == UNLIMITED:
        return _MAX_INTERVAL_SECONDS
    length = int(settings.keep_alive[:-1]) * _SECONDS[settings.keep_alive[-1]]
    return min(_MAX_INTERVAL_SECONDS, length / 2)


class KeptLoaded(Middleware):
    """Calls `send` after an answer, at most once per `interval_seconds`.

    The call follows the answer because the model is certainly loaded then; before it, `send` would
    wait for the model to load. The first failure of `send` is logged; failures never affect the
    answer.
    """

    def __init__(
        self,
        model: ChatModel,
        send: Callable[[], None],
        interval_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(model)
        self._send = send
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._due_at = clock()
        self._has_failed = False

    def complete(self, request: CompletionRequest) -> Completion:
        """Return the answer of the model; then call `send` if it is due."""
        completion = self.model.complete(request)
        with self._lock:
            now = self._clock()
            is_due = now >= self._due_at
            self._due_at = now + self._interval_seconds if is_due else self._due_at
        try:
            if is_due:
                self._send()
        except ModelError as error:
            if not self._has_failed:
                log.warning("model.keep_alive_failed", model=self.profile.model, reason=error.what)
            self._has_failed = True
        return completion
