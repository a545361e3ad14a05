"""Stores completions in PostgreSQL; each step is one statement for several threads."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import structlog

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.errors import ServiceUnavailableError
from chordwise.llm.middleware.cached import CacheEntry, ClaimStatus
from chordwise.llm.model import Completion, FinishReason, Usage
from chordwise.settings import Settings
from chordwise.storage import cached_completions
from chordwise.storage.cached_completions import CompletionStore, RequestClaim
from chordwise.storage.database import Database

log = structlog.get_logger(__name__)

# A paid answer is worth a short wait; the work continues without the cache.
_DATABASE_TIMEOUT = timedelta(seconds=5)
_COUNTS = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCompletions:
    """The cache as one chunk or synthesis uses it; `owner` is the id of the chunk or job.

    Others wait for the owner's request until its claim expires. A worker that takes over the chunk
    is the same owner and does not wait.
    """

    completions: CompletionStore
    owner: uuid.UUID
    claim_lasts: timedelta

    def find_or_claim(self, entry: CacheEntry) -> Completion | ClaimStatus:
        """Return the completion, or claim the request for the owner."""
        try:
            outcome = self.completions.find_or_claim(self._claim(entry))
        except ServiceUnavailableError as error:
            log.warning("cache.unreachable", reason=error.what)
            return ClaimStatus.UNKNOWN
        if isinstance(outcome, bool):
            return ClaimStatus.OURS if outcome else ClaimStatus.OTHERS
        return from_json(outcome)

    def store(self, entry: CacheEntry, completion: Completion) -> None:
        """Store the completion of a request that the owner has claimed."""
        with _ignoring_outages():
            self.completions.store(self._claim(entry), to_json(completion), _DATABASE_TIMEOUT)

    def release(self, entry: CacheEntry) -> None:
        """Release the claim of a request that gave no completion to store."""
        with _ignoring_outages():
            self.completions.release(self._claim(entry), _DATABASE_TIMEOUT)

    def _claim(self, entry: CacheEntry) -> RequestClaim:
        return RequestClaim(
            key=entry.key,
            token=self.owner,
            lasts=self.claim_lasts,
            provider=entry.provider,
            model=entry.model,
            prompt_version=entry.prompt_version,
        )


def completion_store(settings: Settings, database: Database) -> CompletionStore | None:
    """Return the cache of a process, or `None` if the settings disable it."""
    if not settings.cache.enabled:
        return None
    return CompletionStore(database, timedelta(days=settings.cache.max_age_days))


def stored_completions(
    settings: Settings, completions: CompletionStore | None, owner: uuid.UUID
) -> StoredCompletions | None:
    """Return the cache for an owner, or `None` if it is disabled.

    A claim lasts as long as a question with its waits may take.
    """
    if completions is None:
        return None
    longest = settings.retries.total_seconds + settings.limits.max_wait_seconds
    return StoredCompletions(
        completions=completions, owner=owner, claim_lasts=timedelta(seconds=longest)
    )


def discard(database: Database, completion: Completion) -> None:
    """Delete from the cache a completion that is invalid or incomplete."""
    if not completion.cache_key:
        return
    with _ignoring_outages():
        for attempt in database.attempts(_DATABASE_TIMEOUT):
            with attempt as session:
                cached_completions.discard(session, completion.cache_key)


def to_json(completion: Completion) -> JsonObject:
    """Return a clean completion as it is stored in the table."""
    usage: JsonObject = {name: getattr(completion.usage, name) for name in _COUNTS}
    return {
        "text": completion.text,
        "provider": completion.provider,
        "model": completion.model,
        "response_id": completion.response_id,
        "service_tier": completion.service_tier,
        "usage": usage,
    }


def from_json(stored: JsonObject) -> Completion:
    """Return the completion that `to_json` has written."""
    usage = json_values.as_object(stored.get("usage") or {})
    return Completion(
        text=json_values.text(stored.get("text")),
        finish_reason=FinishReason.STOP,
        usage=Usage(**{name: _count(usage.get(name)) for name in _COUNTS}),
        provider=json_values.text(stored.get("provider")),
        model=json_values.text(stored.get("model")),
        response_id=json_values.text(stored.get("response_id")),
        service_tier=json_values.text(stored.get("service_tier")),
    )


def _count(value: JsonValue) -> int | None:
    return value if isinstance(value, int) else None


@contextmanager
def _ignoring_outages() -> Iterator[None]:
    """Continue without the cache if the database is unavailable."""
    try:
        yield
    except ServiceUnavailableError as error:
        log.warning("cache.unreachable", reason=error.what)
