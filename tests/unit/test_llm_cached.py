"""Tests of the cache of completions for identical requests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from chordwise.domain.analysis_tasks import Stage
from chordwise.domain.tiers import Route, Tier
from chordwise.errors import ModelOverloadedError
from chordwise.llm.middleware.cached import (
    Cached,
    CacheEntry,
    ClaimStatus,
    answer_settings,
    is_cacheable,
    key_of,
)
from chordwise.llm.middleware.metered import CallStart, NullLedger
from chordwise.llm.model import Completion, CompletionRequest, FinishReason, Usage
from chordwise.pipeline.models.answer_cache import from_json, to_json
from chordwise.settings import ModelSettings
from tests.fakes.completion_requests import a_page, a_request
from tests.fakes.scripted_model import Answer, ScriptedModel, cut_off

ABOUT = answer_settings(ModelSettings(provider="openai", model="gpt"))


class MemoryCache:
    """A cache in memory whose first results can be scripted."""

    def __init__(self, first: Iterable[ClaimStatus] = ()) -> None:
        self.kept: dict[str, Completion] = {}
        self.released: list[str] = []
        self._first = list(first)

    def find_or_claim(self, entry: CacheEntry) -> Completion | ClaimStatus:
        if self._first:
            return self._first.pop(0)
        return self.kept.get(entry.key, ClaimStatus.OURS)

    def store(self, entry: CacheEntry, completion: Completion) -> None:
        self.kept[entry.key] = completion

    def release(self, entry: CacheEntry) -> None:
        self.released.append(entry.key)


class Hits(NullLedger):
    """A ledger of hits in memory that also records the sleeps."""

    def __init__(self) -> None:
        self.rows: dict[UUID, CallStart] = {}
        self.slept: list[float] = []

    def record_hit(self, start: CallStart, completion: Completion, latency_ms: int) -> UUID:
        assert completion.text
        assert latency_ms >= 0
        call_id = uuid4()
        self.rows[call_id] = start
        return call_id


def cached(
    *script: Answer, cache: MemoryCache | None = None, hits: Hits | None = None
) -> tuple[Cached, ScriptedModel]:
    model, hits = ScriptedModel(script), hits or Hits()
    return Cached(model, cache or MemoryCache(), hits, ABOUT, 10, hits.slept.append), model


def test_the_same_request_is_sent_once() -> None:
    hits, cache = Hits(), MemoryCache()
    model, behind = cached('{"a": 1}', cache=cache, hits=hits)

    first, second = model.complete(a_request()), model.complete(a_request())

    assert len(behind.requests) == 1
    assert first.text == second.text == '{"a": 1}'
    assert [str(call_id) for call_id in hits.rows] == [second.call_id]
    assert first.cache_key == second.cache_key
    assert list(cache.kept) == [first.cache_key]


@pytest.mark.parametrize(
    ("other", "changes"),
    [
        (a_request(user="Another text."), {}),
        (a_request(system="Another task."), {}),
        (a_request(schema={"type": "object"}), {}),
        (a_request(max_output_tokens=99), {}),
        (replace(a_request(), prompt_version="sentiment@2"), {}),
        (replace(a_request(), schema_name="other"), {}),
        (a_request(pictures=(a_page(),)), {}),
        (a_request(), {"model": "other"}),
        (a_request(), {"base_url": "http://127.0.0.1:1/v1"}),
        (a_request(), {"temperature": 0.5}),
        (a_request(), {"structured_output": "none"}),
        (a_request(), {"provider": "anthropic"}),
    ],
)
def test_another_request_or_another_model_has_another_key(
    other: CompletionRequest, changes: dict[str, object]
) -> None:
    about = answer_settings(
        ModelSettings.model_validate({"provider": "openai", "model": "gpt"} | changes)
    )

    assert key_of(other, about) != key_of(a_request(), ABOUT)


def test_the_key_ignores_how_a_request_is_sent() -> None:
    usual = a_request()
    others = (
        replace(usual, attempt=3),
        replace(usual, call_id="x"),
        replace(usual, timeout_seconds=1.0),
        replace(usual, route=Route(tier=Tier.SMALL)),
        replace(usual, task=replace(usual.task, stage=Stage.REPAIR)),
    )

    assert {key_of(other, ABOUT) for other in others} == {key_of(usual, ABOUT)}


@pytest.mark.parametrize(
    "completion",
    [
        *(cut_off("{}", reason) for reason in FinishReason if reason is not FinishReason.STOP),
        cut_off(" \n", FinishReason.STOP),
        replace(cut_off("{}", FinishReason.STOP), refusal="I won't."),
    ],
)
def test_only_complete_answers_are_cached(completion: Completion) -> None:
    cache = MemoryCache()
    model, behind = cached(completion, "{}", cache=cache)

    assert model.complete(a_request()).cache_key == ""
    model.complete(a_request())

    assert not is_cacheable(completion)
    assert len(behind.requests) == 2
    assert cache.released == [key_of(a_request(), ABOUT)]


def test_an_error_is_not_cached() -> None:
    cache = MemoryCache()
    model, _ = cached(ModelOverloadedError("busy"), cache=cache)

    with pytest.raises(ModelOverloadedError):
        model.complete(a_request())

    assert cache.released == [key_of(a_request(), ABOUT)]
    assert cache.kept == {}


def test_a_concurrent_caller_polls_with_growing_delays() -> None:
    hits = Hits()
    model, behind = cached("{}", cache=MemoryCache([ClaimStatus.OTHERS] * 12), hits=hits)

    model.complete(a_request())

    assert len(behind.requests) == 1
    assert hits.slept == sorted(hits.slept)
    assert (hits.slept[0], hits.slept[-1]) == (0.05, 1.0)


@pytest.mark.parametrize("status", [ClaimStatus.OTHERS, ClaimStatus.UNKNOWN])
def test_a_blocked_or_unreachable_cache_is_bypassed(status: ClaimStatus) -> None:
    hits, cache = Hits(), MemoryCache([status] * 100)
    model, behind = cached("{}", cache=cache, hits=hits)

    completion = model.complete(a_request())

    assert len(behind.requests) == 1
    assert (completion.cache_key, cache.kept, cache.released) == ("", {}, [])
    assert sum(hits.slept) <= (0 if status is ClaimStatus.UNKNOWN else 11)


def test_waiting_for_others_counts_toward_the_timeout() -> None:
    hits = Hits()
    model, behind = cached("{}", cache=MemoryCache([ClaimStatus.OTHERS] * 100), hits=hits)

    model.complete(a_request(timeout_seconds=2.0))

    assert 2 <= sum(hits.slept) <= 3
    assert behind.requests[0].timeout_seconds is not None
    assert 1 <= behind.requests[0].timeout_seconds < 2


@pytest.mark.parametrize("tokens", [None, 0, 7])
def test_a_stored_completion_is_restored_unchanged(tokens: int | None) -> None:
    usage = Usage(input_tokens=tokens, output_tokens=3, cache_write_tokens=tokens)
    completion = replace(
        ScriptedModel([]).completion('{"ü": "\\u0000"}'), usage=usage, service_tier="flex"
    )

    assert from_json(to_json(completion)) == completion
