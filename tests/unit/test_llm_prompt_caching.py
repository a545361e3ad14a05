"""What providers keep of prompts, and how far an answer's limit may be raised, on the wire."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import SecretStr

from chordwise.domain.json_values import JsonObject
from chordwise.llm.model import CompletionRequest
from chordwise.llm.providers.anthropic import (
    LEAST_CACHED_TOKENS,
    MAX_UNSTREAMED_TOKENS,
    AnthropicModel,
)
from chordwise.llm.providers.openai import OpenAIModel
from chordwise.settings import ModelSettings
from tests.fakes.completion_requests import a_request
from tests.fakes.official_types import require_anthropic, require_openai

LONG = "Follow this rule in every answer. " * (LEAST_CACHED_TOKENS // 6)


def sent_to_openai(request: CompletionRequest, **given: str | int) -> JsonObject:
    """Return the body of a request, officially valid."""
    settings = ModelSettings.model_validate({"provider": "openai", "model": "gpt", **given})
    body = OpenAIModel(settings, SecretStr("sk")).body(request)
    require_openai(body)
    return body


def sent_to_anthropic(request: CompletionRequest, **given: int) -> JsonObject:
    """Return the body of a request, officially valid."""
    settings = ModelSettings.model_validate({"provider": "anthropic", "model": "claude", **given})
    body = AnthropicModel(settings, SecretStr("sk")).body(request)
    require_anthropic(body)
    return body


def test_long_instructions_are_marked_for_anthropic_to_keep() -> None:
    """They come first, and are the same for all texts of a run."""
    body = sent_to_anthropic(a_request(system=LONG))

    assert body["system"] == [
        {"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}
    ]


def test_short_instructions_are_not_worth_a_mark() -> None:
    """Anthropic would not keep them."""
    assert sent_to_anthropic(a_request(system="Be short."))["system"] == "Be short."


def test_openai_learns_which_questions_begin_alike() -> None:
    """By their instructions, whatever the text is."""
    one, another = sent_to_openai(a_request()), sent_to_openai(a_request(user="Another text."))
    other = sent_to_openai(a_request(system="Another task."))

    assert one["prompt_cache_key"] == another["prompt_cache_key"] != other["prompt_cache_key"]


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:8000/v1", "https://x.openai.azure.com/v1"])
def test_other_servers_are_not_sent_what_they_may_not_know(base_url: str) -> None:
    """Some refuse every field that they do not know."""
    assert "prompt_cache_key" not in sent_to_openai(a_request(), base_url=base_url)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"max_output_tokens": 100}, 400),
        ({"max_output_tokens": 100, "max_output_tokens_on_retry": 150}, 150),
        ({"max_output_tokens": 100, "max_output_tokens_on_retry": 50}, 100),
        ({"max_output_tokens": 1_000}, 512),
    ],
)
def test_a_request_names_no_more_than_the_ceiling(given: dict[str, int], expected: int) -> None:
    """Four times the usual limit, or as the settings say."""
    request = replace(a_request(), max_output_tokens=512)

    assert sent_to_openai(request, **given)["max_completion_tokens"] == expected
    assert sent_to_anthropic(request, **given)["max_tokens"] == expected


def test_anthropic_is_never_asked_for_what_has_to_be_streamed() -> None:
    """However high the ceiling is set."""
    request = replace(a_request(), max_output_tokens=100_000)

    sent = sent_to_anthropic(request, max_output_tokens=20_000, max_output_tokens_on_retry=100_000)

    assert sent["max_tokens"] == MAX_UNSTREAMED_TOKENS
