"""Tests of the cache of completions for identical requests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from chordwise.domain.analysis_tasks import Stage
from chordwise.domain.tiers import Route, Tier
from chordwise.errors import AlreadyAskedError, ModelOverloadedError
from chordwise.llm.middleware.cached import (
    Cached,
    Lookup,
    answer_settings,
    is_cacheable,
    key_of,
)
from chordwise.llm.middleware.metered import CallStart
from chordwise.llm.model import Completion, CompletionRequest, FinishReason, Usage
from chordwise.pipeline.models.ledger import completion_from_json, completion_to_json
from chordwise.settings import ModelSettings
from tests.fakes.completion_requests import a_page, a_request
from tests.fakes.scripted_model import Answer, ScriptedModel, cut_off

ABOUT = answer_settings(ModelSettings(provider="openai", model="gpt"))


class MemoryCache:
    """A cache in memory whose first results can be scripted; it also records the sleeps."""

    def __init__(self, first: Iterable[Lookup] = ()) -> None:
        self.kept: dict[str, Completion] = {}
        self.hits: list[UUID] = []
        self.slept: list[float] = []
        self._first = list(first)

    def find(self, key: str) -> Completion | Lookup:
        if self._first:
            return self._first.pop(0)
        return self.kept.get(key, Lookup.FREE)

    def keep(self, key: str, completion: Completion) -> None:
        self.kept[key] = completion

    def record_hit(self, start: CallStart, completion: Completion, latency_ms: int) -> UUID:
        assert start.provider
        assert completion.text
        assert latency_ms >= 0
        self.hits.append(uuid4())
        return self.hits[-1]


def cached(*script: Answer, cache: MemoryCache) -> tuple[Cached, ScriptedModel]:
    model = ScriptedModel(script)
    return Cached(model, cache, ABOUT, 10, cache.slept.append), model


def test_the_same_request_is_sent_once() -> None:
    cache = MemoryCache()
    model, behind = cached('{"a": 1}', cache=cache)

    first, second = model.complete(a_request()), model.complete(a_request())

    assert len(behind.requests) == 1
    assert first.text == second.text == '{"a": 1}'
    assert [str(call_id) for call_id in cache.hits] == [second.call_id]
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


def test_an_error_is_not_cached() -> None:
    cache = MemoryCache()
    model, _ = cached(ModelOverloadedError("busy"), cache=cache)

    with pytest.raises(ModelOverloadedError):
        model.complete(a_request())

    assert cache.kept == {}


def test_a_concurrent_caller_polls_with_growing_delays() -> None:
    cache = MemoryCache([Lookup.ASKED] * 12)
    model, behind = cached("{}", cache=cache)

    model.complete(a_request())

    assert len(behind.requests) == 1
    assert cache.slept == sorted(cache.slept)
    assert (cache.slept[0], cache.slept[-1]) == (0.05, 1.0)


@pytest.mark.parametrize("status", [Lookup.ASKED, Lookup.UNKNOWN])
def test_a_blocked_or_unreachable_cache_is_bypassed(status: Lookup) -> None:
    cache = MemoryCache([status] * 100)
    model, behind = cached("{}", cache=cache)

    completion = model.complete(a_request())

    assert len(behind.requests) == 1
    assert (completion.cache_key, cache.kept, behind.requests[0].question) == ("", {}, "")
    assert sum(cache.slept) <= (0 if status is Lookup.UNKNOWN else 11)


def test_a_question_that_another_call_asks_first_is_waited_for() -> None:
    cache = MemoryCache()
    model, behind = cached(AlreadyAskedError("asked"), "{}", cache=cache)

    completion = model.complete(a_request())

    assert [request.question for request in behind.requests] == [completion.cache_key] * 2
    assert cache.slept == [0.05]


def test_waiting_for_others_counts_toward_the_timeout() -> None:
    cache = MemoryCache([Lookup.ASKED] * 100)
    model, behind = cached("{}", cache=cache)

    model.complete(a_request(timeout_seconds=2.0))

    assert 2 <= sum(cache.slept) <= 3
    assert behind.requests[0].timeout_seconds is not None
    assert 1 <= behind.requests[0].timeout_seconds < 2


@pytest.mark.parametrize("tokens", [None, 0, 7])
def test_a_stored_completion_is_restored_unchanged(tokens: int | None) -> None:
    usage = Usage(input_tokens=tokens, output_tokens=3, cache_write_tokens=tokens)
    completion = replace(
        ScriptedModel([]).completion('{"ü": "\\u0000"}'), usage=usage, service_tier="flex"
    )

    assert completion_from_json(completion_to_json(completion)) == completion
