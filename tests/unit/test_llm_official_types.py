"""Every form of request that we send is valid by the types of the official packages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version

import pytest
from anthropic._constants import ANTHROPIC_API_VERSION
from packaging.version import Version
from pydantic import SecretStr, ValidationError

from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.tasks import AnalysisOptions, AnalysisTask, AnalysisType, Stage
from chordwise.errors import InvalidAnswerError
from chordwise.llm.model import ChatModel, CompletionRequest
from chordwise.llm.providers.anthropic import API_VERSION, LEAST_CACHED_TOKENS, AnthropicModel
from chordwise.llm.providers.openai import OpenAIModel
from chordwise.pipeline.asking.question import request_for, with_problems, with_raised_limit
from chordwise.settings import ModelSettings
from tests.fakes.completion_requests import a_request
from tests.fakes.official_types import require_anthropic, require_openai

KEY = SecretStr("sk-test")
OWN_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "total": {"type": "number", "minimum": 0},
        "due": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}, "maxItems": 9},
    },
    "required": ["total"],
    "$defs": {"line": {"type": "object", "properties": {"text": {"type": "string"}}}},
}
QUESTIONS = {
    AnalysisType.SUMMARY: AnalysisOptions(),
    AnalysisType.EXTRACTION: AnalysisOptions(schema=OWN_SCHEMA),
    AnalysisType.REASONING: AnalysisOptions(instructions="Who pays?"),
    AnalysisType.CLASSIFICATION: AnalysisOptions(labels=("contract", "letter")),
    AnalysisType.SENTIMENT: AnalysisOptions(),
}
OPENAI: dict[str, dict[str, object]] = {
    "public": {},
    "flex": {"service_tier": "flex"},
    "Azure": {"base_url": "https://house.openai.azure.com/openai/v1"},
    "Ollama": {
        "base_url": "http://127.0.0.1:11434/v1",
        "max_tokens_field": "max_tokens",
        "keep_alive": "10m",
    },
    "JSON without a schema": {"structured_output": "json_object"},
    "words only": {"structured_output": "none"},
    "a temperature": {"temperature": 0.2},
    "llama.cpp": {"provider": "local", "base_url": "http://127.0.0.1:8080/v1"},
}
ANTHROPIC: dict[str, dict[str, object]] = {
    "public": {},
    "words only": {"structured_output": "none"},
    "a gateway": {"base_url": "http://127.0.0.1:8000/v1"},
}


def openai(**given: object) -> OpenAIModel:
    """Return a model of OpenAI or of a server that speaks like it."""
    values = {"provider": "openai", "model": "gpt-6.1-terra", **given}
    return OpenAIModel(ModelSettings.model_validate(values), KEY)


def anthropic(**given: object) -> AnthropicModel:
    """Return a model of Anthropic."""
    values = {"provider": "anthropic", "model": "claude-haiku-5-5", **given}
    return AnthropicModel(ModelSettings.model_validate(values), KEY)


def questions(model: ChatModel) -> list[CompletionRequest]:
    """Return all kinds of questions: of each type, joined, repaired, and with more room."""
    answers: tuple[JsonObject, ...] = ({"a": 1},)
    found = []
    for analysis_type, options in QUESTIONS.items():
        task = AnalysisTask(
            analysis_type=analysis_type, stage=Stage.ANALYZE, text="A text.", options=options
        )
        joining = replace(task, stage=Stage.SYNTHESIZE, text="", answers=answers)
        found += [request_for(model, each) for each in (task, joining)]
    repaired = with_problems(found[0], InvalidAnswerError("“due” is missing."), model.profile)
    raised = with_raised_limit(found[0], model.profile)
    assert raised is not None
    return [*found, repaired, raised, replace(found[0], system="Rule. " * LEAST_CACHED_TOKENS)]


@pytest.mark.parametrize("form", OPENAI)
def test_chat_completions_are_valid(form: str) -> None:
    """Fields that only some servers know are not among them, nor what new models refuse."""
    model = openai(**OPENAI[form])

    bodies = [model.body(request) for request in questions(model)]

    for body in bodies:
        require_openai(body)
        assert not {"keep_alive", "top_p", "seed", "user", "n"} & body.keys()
        assert ("temperature" in body) is (form == "a temperature")
        assert len({"max_tokens", "max_completion_tokens"} & body.keys()) == 1


@pytest.mark.parametrize("form", ANTHROPIC)
def test_messages_are_valid(form: str) -> None:
    """The version of October 2026 knows no temperature, and asks for a limit."""
    model = anthropic(**ANTHROPIC[form])

    bodies = [model.body(request) for request in questions(model)]

    for body in bodies:
        require_anthropic(body)
        assert body["max_tokens"]
        assert ("output_config" in body) is (form != "words only")


def test_the_types_are_those_of_2026() -> None:
    """The version that we name is the one that the official package speaks."""
    assert API_VERSION == ANTHROPIC_API_VERSION == "2026-10-21"
    assert Version(version("openai")) >= Version("3")
    assert Version(version("anthropic")) >= Version("2")


@pytest.mark.parametrize(
    ("require", "model", "changes"),
    [
        (require_openai, openai(), {"max_completion_tokens": "many"}),
        (require_openai, openai(), {"messages": [{"role": "narrator", "content": "x"}]}),
        (require_openai, openai(), {"service_tier": "slow"}),
        (require_openai, openai(), {"keep_alive": "10m"}),
        (require_openai, openai(), {"response_format": {"type": "json_schema"}}),
        (require_anthropic, anthropic(), {"temperature": 0.0}),
        (require_anthropic, anthropic(), {"system": [{"type": "text", "words": "x"}]}),
        (require_anthropic, anthropic(), {"output_format": {"type": "json_schema"}}),
        (require_anthropic, anthropic(), {"max_tokens": None}),
    ],
)
def test_what_is_wrong_is_found(
    require: Callable[[JsonObject], None],
    model: OpenAIModel | AnthropicModel,
    changes: dict[str, JsonValue],
) -> None:
    """Deep inside, and unknown fields too."""
    body = {**model.body(a_request()), **changes}

    with pytest.raises((ValidationError, AssertionError)):
        require(body)
