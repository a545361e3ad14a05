"""Deduplicates identical requests: completions are cached, and concurrent callers wait."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Protocol

from chordwise.domain.json_values import JsonObject
from chordwise.llm.middleware.metered import CallLedger, call_start
from chordwise.llm.model import Completion, CompletionRequest, FinishReason, Middleware
from chordwise.settings import ModelSettings

KEY_FORMAT = 1
_FIRST_WAIT_SECONDS = 0.05
_MAX_WAIT_SECONDS = 1.0
_GROWTH = 1.5


class ClaimStatus(Enum):
    """Claimed by this caller; claimed by another; or unknown, as the cache is unavailable."""

    OURS = auto()
    OTHERS = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """A request: `key` is the hash of everything that determines its answer."""

    key: str
    provider: str
    model: str
    prompt_version: str


class CompletionCache(Protocol):
    """Stores completions; it never raises while it is unavailable."""

    def find_or_claim(self, entry: CacheEntry) -> Completion | ClaimStatus:
        """Return the completion, or claim the request for this caller if it is free."""

    def store(self, entry: CacheEntry, completion: Completion) -> None:
        """Store the completion of a request that this caller has claimed."""

    def release(self, entry: CacheEntry) -> None:
        """Release the claim on a request that produced nothing to store."""


@dataclass(slots=True, eq=False)
class Cached(Middleware):
    """Sends a request only if its completion is not cached; only clean completions are stored.

    While another caller sends the same request, it waits for that completion, up to
    `max_wait_seconds` and within the request's time; then it sends the request itself in the
    time left. `about` are the model settings that determine its answers (`answer_settings`).
    """

    cache: CompletionCache
    ledger: CallLedger
    about: JsonObject
    max_wait_seconds: float
    sleep: Callable[[float], None]

    def complete(self, request: CompletionRequest) -> Completion:
        """Return the cached completion, or ask.

        Raises:
            ModelError: The error of the wrapped model; errors are not cached.
            ServiceUnavailableError: The ledger is unavailable.
        """
        started = time.monotonic()
        entry = self._entry(request)
        outcome = self._poll(entry, request.limit_seconds(self.max_wait_seconds))
        waited = time.monotonic() - started
        match outcome:
            case ClaimStatus.OURS:
                return self._ask_and_store(request.with_less_time(waited), entry)
            case ClaimStatus.OTHERS | ClaimStatus.UNKNOWN:
                return self.model.complete(request.with_less_time(waited))
            case _:
                start = call_start(self.profile, request)
                call_id = self.ledger.record_hit(start, outcome, round(waited * 1000))
                return replace(outcome, call_id=str(call_id), cache_key=entry.key)

    def _poll(self, entry: CacheEntry, timeout_seconds: float) -> Completion | ClaimStatus:
        waited, wait = 0.0, _FIRST_WAIT_SECONDS
        while True:
            outcome = self.cache.find_or_claim(entry)
            if outcome is not ClaimStatus.OTHERS or waited >= timeout_seconds:
                return outcome
            self.sleep(wait)
            waited += wait
            wait = min(wait * _GROWTH, _MAX_WAIT_SECONDS)

    def _ask_and_store(self, request: CompletionRequest, entry: CacheEntry) -> Completion:
        is_stored = False
        try:
            completion = self.model.complete(request)
            if is_cacheable(completion):
                self.cache.store(entry, completion)
                is_stored = True
        finally:
            if not is_stored:
                self.cache.release(entry)
        return replace(completion, cache_key=entry.key) if is_stored else completion

    def _entry(self, request: CompletionRequest) -> CacheEntry:
        return CacheEntry(
            key=key_of(request, self.about),
            provider=self.profile.provider,
            model=self.profile.model,
            prompt_version=request.prompt_version,
        )


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
