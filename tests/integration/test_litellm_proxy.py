"""Tests of requests and answers that pass through a real LiteLLM proxy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import cast

import pytest
from pydantic import SecretStr

from chordwise import errors
from chordwise.domain.json_values import JsonObject
from chordwise.llm.limits.permits import Quota, QuotaKind
from chordwise.llm.model import FinishReason, Usage
from chordwise.llm.providers.openai import OpenAIModel
from chordwise.settings import ModelSettings
from tests.fakes.completion_requests import SENTIMENT_SCHEMA, a_request
from tests.peers import litellm_proxy
from tests.peers.faulty_server import answer, silence
from tests.peers.litellm_proxy import INPUT_USD, KEY, OUTPUT_USD, PROVIDER_KEY, LiteLLMProxy

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("litellm"),
]

ANSWER = {"sentiment": "positive", "reason": "A joy."}
COMPLETION: JsonObject = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_790_000_000,
    "model": "behind-2026",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": json.dumps(ANSWER)},
        }
    ],
    "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150},
}


@pytest.fixture(scope="module")
def started(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiteLLMProxy]:
    program: Path | None = request.config.getoption("--litellm")
    if program is None or not program.exists():
        pytest.skip("LiteLLM's proxy is not installed; `make nightly` installs it")
    with litellm_proxy.litellm_proxy(program, tmp_path_factory.mktemp("litellm")) as proxy:
        yield proxy


@pytest.fixture
def proxy(started: LiteLLMProxy) -> LiteLLMProxy:
    """Return the proxy of a provider that answers properly and has received no request yet."""
    started.provider.play(answer(COMPLETION))
    started.provider.received.clear()
    return started


def model_behind(
    proxy: LiteLLMProxy, model: str = litellm_proxy.MODEL, key: str = KEY
) -> OpenAIModel:
    settings = ModelSettings(provider="openai", model=model, base_url=proxy.base_url)
    return OpenAIModel(settings, SecretStr(key))


def error(message: str, code: str | None, kind: str = "invalid_request_error") -> JsonObject:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def test_a_question_reaches_the_provider_unchanged(proxy: LiteLLMProxy) -> None:
    model_behind(proxy).complete(replace(a_request(), call_id="0198-a-call"))

    (received,) = proxy.provider.received
    assert received.line == "POST /v1/chat/completions HTTP/1.1"
    assert received.headers["authorization"] == f"Bearer {PROVIDER_KEY}"
    assert received.headers["x-client-request-id"] == "0198-a-call"
    assert KEY not in received.content.decode()
    assert received.body["model"] == "behind"
    assert received.body["max_completion_tokens"] == 512
    assert not received.body.get("stream")
    response_format = cast("dict[str, JsonObject]", received.body["response_format"])
    assert response_format["json_schema"] == {
        "name": "sentiment",
        "strict": True,
        "schema": SENTIMENT_SCHEMA,
    }


def test_an_answer_returns_unchanged(proxy: LiteLLMProxy) -> None:
    limits = {"x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": "499"}
    proxy.provider.play(answer(COMPLETION, headers=limits))

    completion = model_behind(proxy).complete(a_request())

    assert json.loads(completion.text) == ANSWER
    assert completion.finish_reason is FinishReason.STOP
    assert completion.usage == Usage(input_tokens=100, output_tokens=50)
    assert completion.reported_cost_usd is not None  # LiteLLM computes it in floating point
    expected_usd = 100 * Decimal(INPUT_USD) + 50 * Decimal(OUTPUT_USD)
    assert round(completion.reported_cost_usd, 12) == expected_usd
    assert completion.response_id
    assert completion.limits == {QuotaKind.REQUESTS: Quota(limit=500, remaining=499)}


def test_the_retry_after_of_the_provider_is_received(proxy: LiteLLMProxy) -> None:
    """The proxy passes it on under its own name, and sends the request only once."""
    refusal = error("Rate limit reached for requests", "rate_limit_exceeded", "requests")
    proxy.provider.play(answer(refusal, 429, {"retry-after": "7"}))

    with pytest.raises(errors.RateLimitedError) as caught:
        model_behind(proxy).complete(a_request())

    assert caught.value.retry_after_seconds == 7
    assert len(proxy.provider.received) == 1


@pytest.mark.parametrize(
    ("status", "refusal", "expected"),
    [
        (
            429,
            error("You exceeded your current quota.", "insufficient_quota"),
            errors.QuotaExceededError,
        ),
        (401, error("Incorrect API key provided.", "invalid_api_key"), errors.ModelAccessError),
        (
            403,
            error("Country, region, or territory not supported", None, "request_forbidden"),
            errors.ModelAccessError,
        ),
        (404, error("The model does not exist.", "model_not_found"), errors.ModelAccessError),
        (
            400,
            error("This model's maximum context length is 8 tokens.", "context_length_exceeded"),
            errors.ContextTooLongError,
        ),
        (
            400,
            error("Invalid prompt: it may be violating our usage policy.", "invalid_prompt"),
            errors.RefusedError,
        ),
        (400, error("Invalid schema for response_format.", None), errors.ModelRequestError),
        (500, error("The server had an error.", None, "server_error"), errors.ModelOverloadedError),
        (
            503,
            error("The engine is overloaded.", None, "server_error"),
            errors.ModelOverloadedError,
        ),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_kinds_of_refusals_of_the_provider_are_distinguished(
    proxy: LiteLLMProxy, status: int, refusal: JsonObject, expected: type[errors.ModelError]
) -> None:
    proxy.provider.play(answer(refusal, status))

    with pytest.raises(errors.ModelError) as caught:
        model_behind(proxy).complete(a_request())

    assert type(caught.value) is expected
    assert len(proxy.provider.received) == 1


def test_a_wrong_key_of_the_proxy_pauses_the_run(proxy: LiteLLMProxy) -> None:
    """A proxy without a database answers 400 and reports that it has none."""
    with pytest.raises(errors.ModelAccessError) as caught:
        model_behind(proxy, key="sk-wrong-key-0123456789").complete(a_request())

    assert "sk-wrong-key-0123456789" not in str(caught.value)
    assert proxy.provider.received == []


def test_a_model_unknown_to_the_proxy_pauses_the_run(proxy: LiteLLMProxy) -> None:
    with pytest.raises(errors.ModelAccessError):
        model_behind(proxy, "no-such-model").complete(a_request())

    assert proxy.provider.received == []


@pytest.mark.parametrize(
    ("model", "seconds", "expected"),
    [
        (litellm_proxy.MODEL, 1, errors.ModelTimeoutError),
        (litellm_proxy.SHORT_MODEL, 120, errors.ModelOverloadedError),
    ],
)
def test_a_silent_provider_is_timed_out(
    proxy: LiteLLMProxy, model: str, seconds: float, expected: type[errors.ModelError]
) -> None:
    proxy.provider.play(silence)

    with pytest.raises(expected):
        model_behind(proxy, model).complete(a_request(timeout_seconds=seconds))


def test_an_interrupted_answer_of_the_provider_is_retried_later(proxy: LiteLLMProxy) -> None:
    proxy.provider.play(lambda connection: connection.reset())

    with pytest.raises(errors.ModelOverloadedError):
        model_behind(proxy).complete(a_request())


def test_the_proxy_contacts_only_the_provider(proxy: LiteLLMProxy) -> None:
    """It requests no prices and sends no telemetry; this test is last and covers all others."""
    assert proxy.outside.connections == 0
