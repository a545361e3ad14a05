"""Tests of what `AnthropicModel` sends, and of how it reads answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.errors import (
    ModelTransportError,
)
from chordwise.llm.model import FinishReason, Usage
from chordwise.llm.providers.anthropic import AnthropicModel
from chordwise.settings import ModelSettings
from tests.fakes.completion_requests import a_request
from tests.fakes.official_types import require_anthropic
from tests.peers.faulty_server import FaultyServer, answer, faulty_server

pytestmark = pytest.mark.xdist_group("official_types")


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with faulty_server() as server:
        server.play(answer(message_body()))
        yield server


def message_body(
    content: JsonValue = None, stop_reason: JsonValue = "end_turn", **more: JsonValue
) -> JsonObject:
    blocks: JsonValue = [{"type": "text", "text": "{}"}] if content is None else content
    body: JsonObject = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-served",
        "content": blocks,
        "stop_reason": stop_reason,
        "usage": {"input_tokens": 10, "output_tokens": 7},
    }
    return body | more


def model_at(server: FaultyServer, **settings: object) -> AnthropicModel:
    options = {"provider": "anthropic", "model": "claude-haiku-5-5", "base_url": server.base_url}
    return AnthropicModel(ModelSettings.model_validate(options | settings), SecretStr("sk-ant"))


def test_the_request_conforms_to_the_api(server: FaultyServer) -> None:
    model_at(server).complete(a_request())

    received = server.received[0]
    require_anthropic(received.body)
    assert received.line == "POST /v1/messages HTTP/1.1"
    assert received.headers["anthropic-version"] == "2026-10-21"
    assert received.headers["authorization"] == "Bearer sk-ant"
    assert received.body == {
        "model": "claude-haiku-5-5",
        "max_tokens": 512,
        "system": "Judge the sentiment of the text.",
        "messages": [{"role": "user", "content": "The film was a joy from the first minute."}],
        "output_config": {
            "format": {
                "type": "json_schema",
                "schema": {
                    "type": "object",
                    "properties": {
                        "sentiment": {"enum": ["positive", "negative"]},
                        "reason": {"type": "string"},
                    },
                    "required": ["sentiment", "reason"],
                    "additionalProperties": False,
                },
            }
        },
    }


def test_a_schema_that_cannot_be_enforced_is_in_the_prompt(server: FaultyServer) -> None:
    """A free-form map would be restricted to an empty object."""
    schema: JsonObject = {"type": "object", "additionalProperties": {"type": "string"}}

    model_at(server).complete(a_request(schema=schema))

    body = server.received[0].body
    require_anthropic(body)
    assert "output_config" not in body
    assert '"additionalProperties":{"type":"string"}' in str(body["system"])


def test_cached_tokens_are_included_in_the_input(server: FaultyServer) -> None:
    """Anthropic counts them separately; our input is the sum."""
    usage: JsonObject = {
        "input_tokens": 10,
        "cache_creation_input_tokens": 200,
        "cache_read_input_tokens": 3_000,
        "output_tokens": 7,
        "service_tier": "priority",
        "inference_geo": "us",
    }
    server.play(answer(message_body(usage=usage)))

    completion = model_at(server).complete(a_request())

    assert completion.usage == Usage(
        input_tokens=3_210, output_tokens=7, cached_input_tokens=3_000, cache_write_tokens=200
    )
    assert (completion.provider, completion.model) == ("anthropic", "claude-served")
    assert completion.response_id == "msg_1"
    assert (completion.service_tier, completion.inference_geo) == ("priority", "us")


@pytest.mark.parametrize(
    ("content", "reason", "text", "finish_reason"),
    [
        (None, "end_turn", "{}", FinishReason.STOP),
        (None, "stop_sequence", "{}", FinishReason.STOP),
        (None, "max_tokens", "{}", FinishReason.LENGTH),
        (None, "model_context_window_exceeded", "{}", FinishReason.LENGTH),
        (None, "pause_turn", "{}", FinishReason.OTHER),
        (None, None, "{}", FinishReason.OTHER),
        ([], "end_turn", "", FinishReason.STOP),
        (
            [{"type": "thinking", "thinking": "hm", "text": "no"}, {"type": "text", "text": "a"}],
            "end_turn",
            "a",
            FinishReason.STOP,
        ),
        ([3, {"type": "text", "text": 4}], "end_turn", "", FinishReason.STOP),
    ],
)
def test_every_stop_reason_is_distinguished(
    server: FaultyServer,
    content: JsonValue,
    reason: JsonValue,
    text: str,
    finish_reason: FinishReason,
) -> None:
    server.play(answer(message_body(content, reason)))

    completion = model_at(server).complete(a_request())

    assert (completion.text, completion.finish_reason) == (text, finish_reason)


@pytest.mark.parametrize(
    ("details", "sentence"),
    [
        ({"type": "refusal", "category": "bio", "explanation": "No."}, "bio: No."),
        ({"type": "refusal", "category": None, "explanation": None}, "The model declined"),
        (None, "The model declined"),
    ],
)
def test_refusals_have_a_reason(server: FaultyServer, details: JsonValue, sentence: str) -> None:
    server.play(answer(message_body([], "refusal", stop_details=details)))

    completion = model_at(server).complete(a_request())

    assert completion.finish_reason is FinishReason.REFUSAL
    assert completion.refusal.startswith(sentence)


@pytest.mark.parametrize("body", [{}, [], "x", None, {"content": "text"}])
def test_json_without_a_message_is_an_error(server: FaultyServer, body: JsonValue) -> None:
    server.play(answer(body))

    with pytest.raises(ModelTransportError):
        model_at(server).complete(a_request())
