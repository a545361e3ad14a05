"""Tests of the contract of `ChatModel`, run against every implementation and the fake."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import jsonschema_rs
import pytest
from llmock.pytest_plugin import LLMock
from pydantic import SecretStr

from chordwise.domain.json_values import JsonObject
from chordwise.errors import ContextTooLongError, ModelRequestError
from chordwise.llm.model import ChatModel, FinishReason
from chordwise.llm.provider import connect
from chordwise.llm.transport import JsonTransport
from chordwise.settings import ModelSettings
from tests.fakes.completion_requests import SENTIMENT_SCHEMA, a_page, a_request
from tests.fakes.scripted_model import ScriptedModel
from tests.peers.llama_server import CONTEXT_TOKENS_PER_SLOT, llama_server
from tests.peers.tiny_gguf import build

pytestmark = pytest.mark.xdist_group("chat_model")

SCRIPTED_ANSWER = '{"sentiment": "positive", "reason": "joy"}'
IMPLEMENTATIONS = ("scripted", "llama.cpp", "llmock-openai", "llmock-anthropic")
# llmock ignores Anthropic's `output_config`.
ENFORCING = ("scripted", "llama.cpp", "llmock-openai")


@pytest.fixture(scope="module")
def llama_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a real llama.cpp with a random model."""
    with llama_server(build(tmp_path_factory.mktemp("gguf") / "tiny.gguf")) as url:
        yield url


@pytest.fixture
def connected(
    request: pytest.FixtureRequest, llmock: LLMock
) -> Iterator[Callable[[str], ChatModel]]:
    """Return a function that connects the implementation of the given name."""
    transport = JsonTransport()

    def model(name: str) -> ChatModel:
        if name == "scripted":
            return ScriptedModel([SCRIPTED_ANSWER], repeat_last=True)
        if name == "llama.cpp":
            return _connect("local", request.getfixturevalue("llama_url"), transport)
        provider = name.removeprefix("llmock-")
        return _connect(provider, llmock.base_url(provider), transport)

    yield model
    transport.close()


def _connect(provider: str, base_url: str, transport: JsonTransport) -> ChatModel:
    settings = {"provider": provider, "model": "tiny", "base_url": base_url}
    return connect(ModelSettings.model_validate(settings), SecretStr("key"), transport)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_a_completion_has_provider_model_id_and_token_counts(
    connected: Callable[[str], ChatModel], name: str
) -> None:
    model = connected(name)

    completion = model.complete(a_request())

    assert completion.provider == model.profile.provider
    assert completion.model
    assert completion.response_id
    assert completion.usage.input_tokens is not None
    assert completion.usage.input_tokens > 0
    assert completion.usage.output_tokens is not None
    assert completion.usage.output_tokens > 0


@pytest.mark.parametrize("name", ENFORCING)
def test_an_answer_conforms_to_the_schema(connected: Callable[[str], ChatModel], name: str) -> None:
    completion = connected(name).complete(a_request())

    assert completion.finish_reason is FinishReason.STOP
    assert jsonschema_rs.is_valid(SENTIMENT_SCHEMA, json.loads(completion.text))


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_a_model_is_safe_to_share_between_threads(
    connected: Callable[[str], ChatModel], name: str
) -> None:
    """Eight threads send requests at the same time, and each gets its own answer."""
    model = connected(name)
    texts = [f"Text number {number}." for number in range(24)]

    with ThreadPoolExecutor(8) as threads:
        completions = list(threads.map(lambda text: model.complete(a_request(user=text)), texts))

    assert len({completion.response_id for completion in completions}) == len(texts)


@pytest.mark.parametrize("name", ["llama.cpp", "llmock-openai", "llmock-anthropic"])
def test_a_prompt_that_is_too_long_is_reported(
    connected: Callable[[str], ChatModel], llmock: LLMock, name: str
) -> None:
    """The error of each provider is distinguished from other bad requests."""
    llmock.context_overflow()
    prompt = "word " * CONTEXT_TOKENS_PER_SLOT

    with pytest.raises(ContextTooLongError):
        connected(name).complete(a_request(user=prompt))


FORMS: list[JsonObject] = [
    {"type": "string", "minLength": 4_000},
    {"type": "string", "pattern": "^[a-c]{2}$"},
    {"type": "string", "format": "date"},
    {"type": "integer", "minimum": 2, "maximum": 5},
    {"type": ["boolean", "null"]},
    {"oneOf": [{"type": "boolean"}, {"type": "null"}]},
    {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2, "maxItems": 3},
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("provider", ["local", "openai"])
def test_llama_cpp_accepts_both_schema_dialects(
    llama_url: str, form: JsonObject, provider: str
) -> None:
    """A real grammar converter accepts the translated schemas, also those of the strict dialect."""
    schema: JsonObject = {
        "type": "object",
        "properties": {"a": form},
        "required": ["a"],
        "additionalProperties": False,
    }
    transport = JsonTransport()

    completion = _connect(provider, llama_url, transport).complete(a_request(schema=schema))

    transport.close()
    assert completion.finish_reason in {FinishReason.STOP, FinishReason.LENGTH}
    if completion.finish_reason is FinishReason.STOP:
        assert set(json.loads(completion.text)) == {"a"}


@pytest.mark.parametrize("name", ["scripted", "llmock-openai", "llmock-anthropic"])
def test_a_request_with_an_image_is_answered(
    connected: Callable[[str], ChatModel], name: str
) -> None:
    assert connected(name).complete(a_request(pictures=(a_page(),))).text


def test_llama_cpp_reports_truncation_and_rejects_images(
    connected: Callable[[str], ChatModel],
) -> None:
    """The status 500 for an image is not an outage: a retry would not help."""
    completion = connected("llama.cpp").complete(a_request(max_output_tokens=3))

    assert completion.finish_reason is FinishReason.LENGTH
    assert completion.usage.output_tokens == 3
    with pytest.raises(ModelRequestError):
        connected("llama.cpp").complete(a_request(pictures=(a_page(),)))
