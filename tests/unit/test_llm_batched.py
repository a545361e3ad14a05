"""Tests of the batch lane: a question has an answer, waits for it, or is asked online."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from functools import partial

import pytest
from pydantic import SecretStr

from chordwise.domain.states import Lane
from chordwise.errors import AwaitingBatchError, ConfigurationError, ModelError, RefusedError
from chordwise.llm import batching
from chordwise.llm.middleware.batched import Batched, BatchQuestion
from chordwise.llm.middleware.cached import answer_settings, key_of
from chordwise.llm.middleware.fallback import Fallback
from chordwise.llm.model import Completion, FinishReason, Usage
from chordwise.llm.prices import BATCH, ListPrice, OwnPrice, max_input_tokens, price_of
from chordwise.llm.providers.openai import OpenAIModel
from chordwise.pipeline.asking.answers import gather
from chordwise.pipeline.models.batch_queue import from_json, to_json
from chordwise.pipeline.models.model_client import lane_for
from chordwise.settings import ModelSettings, Settings
from chordwise.storage import metadata
from chordwise.storage.batches import BatchRequest
from tests.fakes.completion_requests import a_request
from tests.fakes.scripted_model import ScriptedModel

PUBLIC = ModelSettings(provider="openai", model="gpt-6.1-terra")
WAITING = AwaitingBatchError("It waits.")


class ScriptedQueue:
    """Gives the same answer to every question and records the questions."""

    def __init__(self, said: Completion | Exception | None) -> None:
        self.questions: list[BatchQuestion] = []
        self._said = said

    def answer(self, question: BatchQuestion) -> Completion | None:
        self.questions.append(question)
        if isinstance(self._said, Exception):
            raise self._said
        return self._said


def batched(queue: ScriptedQueue, model: ScriptedModel) -> Batched:
    connected = OpenAIModel(PUBLIC, SecretStr("key"))
    return Batched(model, queue, connected.body, price_of(PUBLIC), answer_settings(PUBLIC))


def test_the_answer_of_a_batch_is_the_completion() -> None:
    model, request = ScriptedModel(["{}"]), a_request()
    completion = model.completion("{}")

    assert batched(ScriptedQueue(completion), model).complete(request) is completion
    assert model.requests == []

    batched(ScriptedQueue(None), model).complete(request)
    assert model.requests == [request]


def test_a_batch_question_has_the_cache_key_and_body_of_an_online_request() -> None:
    queue = ScriptedQueue(None)
    request = a_request()

    batched(queue, ScriptedModel(["{}"])).complete(request)

    (question,) = queue.questions
    assert question.key == key_of(request, answer_settings(PUBLIC))
    assert question.body == OpenAIModel(PUBLIC, SecretStr("key")).body(request)
    online = price_of(PUBLIC).max_usd(request)
    assert online is not None
    assert question.max_usd == online / 2


def test_a_waiting_question_does_not_cause_a_fallback() -> None:
    following = ScriptedModel(["{}"])
    first = batched(ScriptedQueue(WAITING), ScriptedModel([]))
    model = Fallback([first, following], lambda *_: None)

    with pytest.raises(AwaitingBatchError):
        model.complete(a_request())

    assert following.requests == []
    assert not isinstance(WAITING, ModelError)


def test_every_question_is_queued_before_the_first_one_waits() -> None:
    names: list[str] = []

    def ask(name: str, error: Exception | None) -> str:
        names.append(name)
        if error:
            raise error
        return name

    with pytest.raises(AwaitingBatchError):
        gather([partial(ask, "a", WAITING), partial(ask, "b", None), partial(ask, "c", WAITING)])

    assert names == ["a", "b", "c"]
    assert gather([partial(ask, "a", None), partial(ask, "b", None)]) == ["a", "b"]


def test_any_other_error_stops_further_questions() -> None:
    def refuse() -> str:
        raise RefusedError("No.")

    with pytest.raises(RefusedError):
        gather([refuse, lambda: pytest.fail("asked")])


def test_configured_prices_are_halved() -> None:
    price = OwnPrice(
        input_usd_per_million_tokens=Decimal(1), output_usd_per_million_tokens=Decimal(2)
    )
    online = price.max_usd(a_request())
    assert online is not None

    assert price.max_usd(a_request(), BATCH) == online / 2


@pytest.mark.parametrize(
    ("provider", "model"), [("openai", "gpt-6.1-terra"), ("anthropic", "claude-haiku-5-5")]
)
@pytest.mark.parametrize("cached", ["cached_input_tokens", "cache_write_tokens"])
def test_cached_batch_prompts_have_both_discounts(provider: str, model: str, cached: str) -> None:
    """They cost half of the online price and no more than was reserved."""
    request = replace(a_request(), max_output_tokens=50)
    price = ListPrice(provider=provider, model=model)
    tokens = max_input_tokens(request)
    usage = Usage(**{"input_tokens": tokens, "output_tokens": 50, cached: tokens})
    answer = replace(
        ScriptedModel([]).completion("{}"), provider=provider, model=model, usage=usage
    )

    online, in_batch = price.cost_usd(answer), price.cost_usd(replace(answer, service_tier=BATCH))
    most = price.max_usd(request, BATCH)

    assert online is not None
    assert in_batch is not None
    assert most is not None
    assert in_batch == online / 2
    assert in_batch <= most


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"provider": "anthropic"}, True),
        ({"batch": False}, False),
        ({"base_url": "https://api.openai.com/v1"}, True),
        ({"base_url": "http://127.0.0.1:8000/v1"}, False),
        ({"base_url": "http://127.0.0.1:8000/v1", "batch": True}, True),
        ({"provider": "local", "base_url": "http://127.0.0.1:8080/v1", "batch": True}, False),
        ({"provider": "extractive"}, False),
    ],
)
def test_batches_are_available_at_public_addresses_and_if_configured(
    changes: dict[str, object], *, expected: bool
) -> None:
    settings = ModelSettings.model_validate({"provider": "openai", "model": "m", **changes})

    assert batching.has_batches(settings) is expected
    if not expected:
        with pytest.raises(ConfigurationError, match="has no Batch API"):
            batching.connect(settings, SecretStr("key"))


def test_a_run_is_in_the_batch_lane_if_one_of_its_models_can_be() -> None:
    models = {"house": ModelSettings(provider="local", model="m"), "cloud": PUBLIC}
    settings = Settings.model_validate(
        {"models": models, "tiers": {"small": "house", "large": "cloud"}}
    )

    assert lane_for(settings, "auto", Lane.BATCH) is Lane.BATCH
    assert lane_for(settings, "house", Lane.BATCH) is Lane.ONLINE
    assert lane_for(settings, "cloud", Lane.ONLINE) is Lane.ONLINE


@pytest.mark.parametrize("tier", ["", "flex"])
def test_a_batch_request_has_no_service_tier(tier: str) -> None:
    """OpenAI rejects lines with `service_tier`; online requests state it."""
    settings = PUBLIC.model_copy(update={"service_tier": tier})
    request = replace(a_request(), attempt=2)

    body = batching.connect(settings, SecretStr("key")).body(request)

    online = OpenAIModel(PUBLIC, SecretStr("key")).body(request)
    assert "service_tier" not in body
    assert {**body, "service_tier": "default"} == online


@pytest.mark.parametrize("reason", list(FinishReason))
def test_a_stored_answer_is_restored_unchanged(reason: FinishReason) -> None:
    completion = replace(
        ScriptedModel([]).completion("ab"),
        finish_reason=reason,
        refusal="No.",
        service_tier=BATCH,
    )

    metadata.configure()
    restored = from_json(BatchRequest(answer=to_json(completion), key="key", call_id=None))

    assert restored == replace(completion, cache_key="key")
