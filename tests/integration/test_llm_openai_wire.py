"""Tests of requests to, and answers of, the OpenAI API and compatible servers such as Ollama."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

import pytest
from pydantic import SecretStr
from typing_extensions import override

from chordwise import errors
from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.llm.model import ChatModel, FinishReason, Usage
from chordwise.llm.provider import connect
from chordwise.settings import ModelSettings
from tests.fakes.completion_requests import SENTIMENT_SCHEMA, a_request
from tests.fakes.official_types import require_openai
from tests.peers.answering_server import AnsweringHandler, AnsweringServer
from tests.peers.faulty_server import FaultyServer, answer, faulty_server, silence
from tests.peers.serving import serving_in_a_thread

pytestmark = pytest.mark.xdist_group("official_types")

FREE_FORM: JsonObject = {"type": "object", "additionalProperties": {"type": "string"}}


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    """Return a server whose answers the test defines."""
    with faulty_server() as server:
        server.play(answer(completion_body()))
        yield server


def completion_body(
    message: JsonObject | None = None, finish_reason: JsonValue = "stop", usage: JsonValue = None
) -> JsonObject:
    choice: JsonObject = {
        "index": 0,
        "finish_reason": finish_reason,
        "message": message or {"role": "assistant", "content": "{}", "refusal": None},
    }
    return {"id": "c1", "model": "gpt-served", "choices": [choice], "usage": usage}


def model_at(server: FaultyServer, **settings: object) -> ChatModel:
    options = {"provider": "openai", "model": "gpt-6.1-terra", "base_url": server.base_url}
    model_settings = ModelSettings.model_validate(options | settings)
    return connect(model_settings, SecretStr("sk-test"))


def sent_by(
    server: FaultyServer, schema: JsonObject | None = None, **settings: object
) -> JsonObject:
    model_at(server, **settings).complete(a_request(schema=schema))
    body = server.received[-1].body
    require_openai(body)
    return body


def test_the_request_has_our_call_id(server: FaultyServer) -> None:
    """The provider's logs can be compared with the ledger by it."""
    model_at(server).complete(replace(a_request(), call_id="0198-a-call"))

    assert server.received[0].headers["x-client-request-id"] == "0198-a-call"


def test_the_request_conforms_to_the_api(server: FaultyServer) -> None:
    body = sent_by(server)

    received = server.received[0]
    assert received.line == "POST /v1/chat/completions HTTP/1.1"
    assert received.headers["authorization"] == "Bearer sk-test"
    assert body == {
        "model": "gpt-6.1-terra",
        "messages": [
            {"role": "system", "content": "Judge the sentiment of the text."},
            {"role": "user", "content": "The film was a joy from the first minute."},
        ],
        "max_completion_tokens": 512,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "sentiment", "strict": True, "schema": SENTIMENT_SCHEMA},
        },
    }


def test_options_of_older_servers_are_sent_when_set(server: FaultyServer) -> None:
    """Ollama reads only `max_tokens`, and a temperature is sent if the user sets one."""
    body = sent_by(
        server,
        max_tokens_field="max_tokens",
        temperature=0.2,
        max_output_tokens=99,
        max_output_tokens_on_retry=99,
    )

    assert body["max_tokens"] == 99
    assert "max_completion_tokens" not in body
    assert body["temperature"] == 0.2


@pytest.mark.parametrize("mode", ["json_object", "none"])
def test_a_schema_that_is_not_enforced_is_in_the_prompt(server: FaultyServer, mode: str) -> None:
    body = sent_by(server, structured_output=mode)

    messages = cast("list[dict[str, str]]", body["messages"])
    assert '"enum":["positive","negative"]' in messages[0]["content"]
    assert body.get("response_format") == ({"type": mode} if mode == "json_object" else None)


def test_a_free_form_schema_is_sent_unchanged_and_not_strict(server: FaultyServer) -> None:
    """In strict mode the map could only be empty."""
    body = sent_by(server, FREE_FORM)

    response_format = cast("dict[str, JsonObject]", body["response_format"])
    assert response_format["json_schema"] == {
        "name": "sentiment",
        "strict": False,
        "schema": FREE_FORM,
    }


def test_a_schema_that_is_not_an_object_is_only_in_the_prompt(server: FaultyServer) -> None:
    """The API accepts only objects at the root."""
    assert "response_format" not in sent_by(server, {"type": "array", "items": {"type": "string"}})


def test_a_local_server_gets_the_limits_in_the_schema(server: FaultyServer) -> None:
    """llama.cpp enforces lengths, which prevents endless output of small models."""
    schema: JsonObject = {
        "type": "object",
        "properties": {"a": {"type": "string", "maxLength": 9}},
        "required": ["a"],
        "additionalProperties": False,
    }

    body = sent_by(server, schema, provider="local")

    assert cast("dict[str, JsonObject]", body["response_format"])["json_schema"]["schema"] == schema


def test_all_parts_of_an_answer_are_read(server: FaultyServer) -> None:
    usage: JsonObject = {
        "prompt_tokens": 11,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    server.play(answer(completion_body(usage=usage)))

    completion = model_at(server).complete(a_request())

    assert completion.text == "{}"
    assert completion.finish_reason is FinishReason.STOP
    assert completion.usage == Usage(input_tokens=11, output_tokens=7, cached_input_tokens=4)
    assert (completion.provider, completion.model) == ("openai", "gpt-served")
    assert completion.response_id == "c1"


@pytest.mark.parametrize(
    ("message", "reason", "text", "finish_reason", "refusal"),
    [
        ({"content": "x"}, "length", "x", FinishReason.LENGTH, ""),
        ({"content": None}, "length", "", FinishReason.LENGTH, ""),
        ({"content": None, "refusal": "I can't"}, "stop", "", FinishReason.REFUSAL, "I can't"),
        ({"content": ""}, "content_filter", "", FinishReason.REFUSAL, ""),
        ({"content": "x"}, None, "x", FinishReason.OTHER, ""),
        ({"content": "x"}, "tool_calls", "x", FinishReason.OTHER, ""),
        ({"content": "x"}, "eos_token", "x", FinishReason.STOP, ""),
        ({"content": [{"type": "text", "text": "a"}, 3]}, "stop", "a", FinishReason.STOP, ""),
        ({"content": 7}, "stop", "", FinishReason.STOP, ""),
        ({"content": "a\ud800\0"}, "stop", "a?\ufffd", FinishReason.STOP, ""),
    ],
)
def test_every_finish_reason_is_distinguished(
    server: FaultyServer,
    message: JsonObject,
    reason: JsonValue,
    text: str,
    finish_reason: FinishReason,
    refusal: str,
) -> None:
    server.play(answer(completion_body(message, reason)))

    completion = model_at(server).complete(a_request())

    assert completion.text == text
    assert completion.finish_reason is finish_reason
    assert completion.refusal == refusal


def test_the_metadata_of_an_answer_can_be_stored(server: FaultyServer) -> None:
    """PostgreSQL texts have no NUL, and a number of 400 digits is not a time."""
    timings: JsonObject = {"prompt_n": 1, "prompt_ms": 10**400, "predicted_n": 1, "predicted_ms": 2}
    odd: JsonObject = {"id": "\0a", "model": "\0b", "service_tier": "\0c", "timings": timings}
    server.play(answer(completion_body() | odd))

    completion = model_at(server).complete(a_request())

    said = (completion.response_id, completion.model, completion.service_tier)
    assert said == ("\ufffda", "\ufffdb", "\ufffdc")
    assert completion.timings is None


@pytest.mark.parametrize(
    "usage",
    [
        None,
        3,
        {},
        {"prompt_tokens": "11", "completion_tokens": -1},
        {"prompt_tokens": True},
        {"prompt_tokens": 10**12, "completion_tokens": 10**30},
        {"prompt_tokens": 1e12, "completion_tokens": 12.5},
    ],
)
def test_an_implausible_usage_is_unknown(server: FaultyServer, usage: JsonValue) -> None:
    server.play(answer(completion_body(usage=usage)))

    assert model_at(server).complete(a_request()).usage == Usage()


@pytest.mark.parametrize(
    "body",
    [{}, [], "x", 3, None, {"choices": []}, {"choices": {}}, {"choices": [3]}, {"choices": [{}]}],
)
def test_json_without_a_completion_is_an_error(server: FaultyServer, body: JsonValue) -> None:
    server.play(answer(body))

    with pytest.raises(errors.ModelTransportError) as caught:
        model_at(server).complete(a_request())

    assert "base_url" in caught.value.hint


def test_an_interrupted_answer_is_an_outage(server: FaultyServer) -> None:
    """Gateways report a failure during an answer as the finish reason `error`."""
    server.play(answer(completion_body(finish_reason="error")))

    with pytest.raises(errors.ModelOverloadedError):
        model_at(server).complete(a_request())


def test_two_kinds_of_429_are_distinguished_and_the_wait_is_kept(server: FaultyServer) -> None:
    """A rate limit requires the server's wait, an empty account needs a person."""
    quota: JsonObject = {"error": {"type": "insufficient_quota", "message": "Check your plan."}}
    server.play(answer({"error": "busy"}, 429, {"Retry-After-Ms": "2500"}), answer(quota, 429))

    with pytest.raises(errors.RateLimitedError) as limited:
        model_at(server).complete(a_request())
    with pytest.raises(errors.QuotaExceededError, match="Check your plan"):
        model_at(server).complete(a_request())

    assert limited.value.retry_after_seconds == 2.5


def test_an_error_contains_neither_key_nor_document(server: FaultyServer) -> None:
    for echo in ("key sk-test is wrong", "bad input: The film was a joy from the first minute."):
        server.play(answer({"error": {"message": echo}}, 400))

        with pytest.raises(Exception, match="rejects") as caught:
            model_at(server).complete(a_request())

        assert "sk-test" not in str(caught.value)
        assert "joy" not in str(caught.value)


def test_the_remaining_time_shortens_the_timeout(server: FaultyServer) -> None:
    server.play(silence)
    request = a_request(timeout_seconds=0.2)

    with pytest.raises(errors.ModelTransportError, match=r"0\.2 s"):
        model_at(server).complete(request)


class OllamaServer(AnsweringServer):
    """Records the requests to its native API."""

    def __init__(self, status: int) -> None:
        super().__init__(0.0, OllamaHandler)
        self.status = status
        self.native: list[JsonObject] = []


class OllamaHandler(AnsweringHandler):
    """Answers `/api/generate` without a prompt as Ollama does."""

    @override
    def do_POST(self) -> None:
        if self.path != "/api/generate":
            super().do_POST()
            return
        assert isinstance(self.server, OllamaServer)
        payload = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.native.append(json_values.as_object(json.loads(payload)))
        answer = {"model": "qwen3:8b", "response": "", "done": True, "done_reason": "load"}
        self.reply(self.server.status, json.dumps(answer).encode())


@contextmanager
def ollama(status: int = 200) -> Iterator[OllamaServer]:
    server = OllamaServer(status)
    with serving_in_a_thread(server):
        yield server


@pytest.mark.parametrize(("keep_alive", "sent"), [("10m", "10m"), ("-1", -1)])
def test_keep_alive_is_sent_natively_after_the_answer(keep_alive: str, sent: str | int) -> None:
    """Two consecutive questions send it once; -1 (unlimited) is a number without a unit."""
    with ollama() as server:
        settings = ModelSettings(
            provider="openai", model="qwen3:8b", base_url=server.base_url, keep_alive=keep_alive
        )
        model = connect(settings, SecretStr(""))

        for _ in range(2):
            model.complete(a_request())

    assert len(server.journal) == 2
    assert server.native == [{"model": "qwen3:8b", "keep_alive": sent}]


def test_a_server_that_is_not_ollama_works_without_keep_alive() -> None:
    with ollama(status=404) as server:
        settings = ModelSettings(
            provider="openai", model="qwen3:8b", base_url=server.base_url, keep_alive="10m"
        )

        completion = connect(settings, SecretStr("")).complete(a_request())

    assert completion.text
    assert len(server.native) == 1
