"""Deduplicates identical requests: completions are cached, and concurrent callers wait."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Protocol

from chordwise.domain.json_values import JsonObject
from chordwise.errors import AlreadyAskedError
from chordwise.llm.middleware.metered import CallId, CallStart, call_start, count_call
from chordwise.llm.model import Completion, CompletionRequest, FinishReason, Middleware
from chordwise.settings import ModelSettings

KEY_FORMAT = 1
_FIRST_WAIT_SECONDS = 0.05
_MAX_WAIT_SECONDS = 1.0
_GROWTH = 1.5


class Lookup(Enum):
    """No completion: another caller asks; no one asks; or unknown, as the cache is unavailable."""

    ASKED = auto()
    FREE = auto()
    UNKNOWN = auto()


class CompletionCache(Protocol):
    """Stores completions; it never raises while it is unavailable."""

    def find(self, key: str) -> Completion | Lookup:
        """Return the completion of a question, or whether another caller asks it."""

    def keep(self, key: str, completion: Completion) -> None:
        """Store the completion with the end of its call, unless its check fails."""

    def record_hit(self, start: CallStart, completion: Completion, latency_ms: int) -> CallId:
        """Record a question that was answered without a request: one row, without a cost."""


@dataclass(slots=True, eq=False)
class Cached(Middleware):
    """Sends a request only if its completion is not cached; only clean completions are stored.

    While another caller sends the same request, it waits for that completion, up to
    `max_wait_seconds` and within the request's time; then it sends the request itself in the
    time left. `about` are the model settings that determine its answers (`answer_settings`).
    """

    cache: CompletionCache
    about: JsonObject
    max_wait_seconds: float
    sleep: Callable[[float], None]

    def complete(self, request: CompletionRequest) -> Completion:
        """Return the cached completion, or ask.

        Raises:
            ModelError: The error of the wrapped model; errors are not cached.
            ServiceUnavailableError: The ledger is unavailable.
        """
        key = key_of(request, self.about)
        ends_after = request.limit_seconds(self.max_wait_seconds)
        started, slept, wait = time.monotonic(), 0.0, _FIRST_WAIT_SECONDS
        while True:
            outcome = self.cache.find(key)
            waited = time.monotonic() - started
            if isinstance(outcome, Completion):
                return self._hit(request, key, outcome, round(waited * 1000))
            if outcome is Lookup.FREE:
                with suppress(AlreadyAskedError):
                    return self._ask(request.with_less_time(waited), key)
            if outcome is Lookup.UNKNOWN or slept >= ends_after:
                return self.model.complete(request.with_less_time(waited))
            self.sleep(wait)
            slept += wait
            wait = min(wait * _GROWTH, _MAX_WAIT_SECONDS)

    def _hit(
        self, request: CompletionRequest, key: str, completion: Completion, latency_ms: int
    ) -> Completion:
        start = call_start(self.profile, request)
        call_id = self.cache.record_hit(start, completion, latency_ms)
        count_call(start.provider, start.model, None)
        return replace(completion, call_id=str(call_id), cache_key=key)

    def _ask(self, request: CompletionRequest, key: str) -> Completion:
        completion = self.model.complete(replace(request, question=key))
        if not is_cacheable(completion):
            return completion
        self.cache.keep(key, completion)
        return replace(completion, cache_key=key)


def answer_settings(settings: ModelSettings) -> JsonObject:
    """Return the settings of a model that determine its answers."""
    return {
        "provider": settings.provider,
        "model": settings.model,
        "base_url": settings.base_url,
        "structured_output": settings.structured_output,
        "temperature": settings.temperature,
    }


def key_of(request: CompletionRequest, about: JsonObject) -> str:
    """Return the hash of a request without attempts, deadlines and ids.

    Each sample of a vote has a separate key; the first has that of the question without votes.
    """
    parts: JsonObject = {
        "format": KEY_FORMAT,
        "model": about,
        "system": request.system,
        "user": request.user,
        "schema": request.schema,
        "schema_name": request.schema_name,
        "prompt_version": request.prompt_version,
        "max_output_tokens": request.max_output_tokens,
    }
    if request.pictures:
        parts["pictures"] = [
            hashlib.sha256(picture.data).hexdigest() for picture in request.pictures
        ]
    if request.task.sample > 1:
        parts["sample"] = request.task.sample
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def is_cacheable(completion: Completion) -> bool:
    """Return whether a completion ended cleanly and is not empty."""
    clean = completion.finish_reason is FinishReason.STOP and not completion.refusal
    return clean and bool(completion.text.strip())
