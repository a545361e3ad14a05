"""The cache of completions: their JSON, and the store of a process."""

from __future__ import annotations

from datetime import timedelta

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject
from chordwise.llm.model import Completion, FinishReason, Usage
from chordwise.settings import Settings
from chordwise.storage.cached_completions import CompletionStore
from chordwise.storage.database import Database

_COUNTS = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens")


def completion_store(settings: Settings, database: Database) -> CompletionStore | None:
    """Return the cache of a process, or `None` if the settings disable it."""
    if not settings.cache.enabled:
        return None
    return CompletionStore(database, timedelta(days=settings.cache.max_age_days))


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
    counts = {name: count for name in _COUNTS if isinstance(count := usage.get(name), int)}
    return Completion(
        text=json_values.text(stored.get("text")),
        finish_reason=FinishReason.STOP,
        usage=Usage(**counts),
        provider=json_values.text(stored.get("provider")),
        model=json_values.text(stored.get("model")),
        response_id=json_values.text(stored.get("response_id")),
        service_tier=json_values.text(stored.get("service_tier")),
    )
