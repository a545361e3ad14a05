"""Tests of counting the tokens of requests, with and without a tokenizer."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from chordwise.domain import tokens
from chordwise.domain.json_values import JsonObject
from chordwise.llm import token_counts
from chordwise.llm.provider import PROVIDERS
from chordwise.llm.providers.anthropic import AnthropicModel
from chordwise.llm.providers.openai import OpenAIModel
from chordwise.llm.token_counts import TokenCounter, count_request
from chordwise.settings import ModelSettings
from tests.fakes.completion_requests import a_request

GPT = ModelSettings(provider="openai", model="gpt-5.4-mini")
CLAUDE = ModelSettings(provider="anthropic", model="claude-haiku-5-5")
HOUSE = ModelSettings(provider="openai", model="mistral-7b", base_url="http://127.0.0.1:1/v1")
BY_CHARACTER = TokenCounter(name="characters", is_exact=True, count=len)
READING = replace(BY_CHARACTER, reads_schema=True)
TOKTOK = """
def batch_count(texts, encoding):
    return [len(text.split()) if encoding == "o200k_base" else 7 for text in texts]
"""
CTOK = """
def token_count(text, version):
    return len(text) if version == "5.5" else 0
"""


def counter_for(settings: ModelSettings) -> TokenCounter:
    return PROVIDERS[settings.provider].token_counter(settings)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    for library in ("toktok", "ctok"):
        monkeypatch.delitem(sys.modules, library, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    importlib.invalidate_caches()
    token_counts.is_installed.cache_clear()
    yield tmp_path
    for library in ("toktok", "ctok"):
        sys.modules.pop(library, None)
    token_counts.is_installed.cache_clear()


def test_tokens_are_estimated_without_a_tokenizer(installed: Path) -> None:
    assert list(installed.iterdir()) == []

    counter = counter_for(GPT)

    assert (counter.name, counter.is_exact) == ("classes of characters", False)
    assert counter.count("Some words here.") == tokens.estimate("Some words here.")


@pytest.mark.parametrize(
    ("settings", "is_exact", "count"),
    [
        *(
            (GPT.model_copy(update={"model": model}), is_exact, 2)
            for model, is_exact in {
                "gpt-4o-mini": True,
                "gpt-4.1": True,
                "gpt-5.6-sol": True,
                "o4-mini": True,
                "gpt-6.1-terra": False,
                "gpt-50": False,
                "gpt-4": False,
            }.items()
        ),
        (HOUSE.model_copy(update={"model": "gpt-oss-20b"}), True, 7),
        (HOUSE.model_copy(update={"model": "Qwen3.5-9B-Instruct"}), True, 7),
        (HOUSE, False, 3),
    ],
)
def test_only_models_with_a_known_vocabulary_are_counted_exactly(
    installed: Path, settings: ModelSettings, count: int, *, is_exact: bool
) -> None:
    """Others are estimated with another vocabulary, or by characters for a self-hosted server.

    A lone surrogate is not an error.
    """
    (installed / "toktok.py").write_text(TOKTOK)

    counter = counter_for(settings)

    assert (counter.is_exact, counter.count("words \ud800")) == (is_exact, count)
    assert ("toktok" in counter.name) is (settings != HOUSE)


@pytest.mark.parametrize(
    ("name", "code", "is_exact", "text", "count"),
    [
        ("ctok.py", CTOK, True, "eighteen letters..", 18),
        ("toktok.py", TOKTOK, False, "word " * 100, 165),
    ],
)
def test_claude_is_estimated_by_its_generation(
    installed: Path, name: str, code: str, text: str, count: int, *, is_exact: bool
) -> None:
    (installed / name).write_text(code)

    counter = counter_for(CLAUDE)

    assert counter.is_exact is is_exact
    assert counter.count(text) == count


@pytest.mark.parametrize(
    ("model", "version"),
    [
        ("claude-haiku-5-5", "5.5"),
        ("claude-opus-4-7-20260501", "4.7"),
        ("claude-3-5-sonnet-20241022", "3.5"),
        ("claude-sonnet-5", "5.0"),
        ("claude-mythos", "4.8"),
    ],
)
def test_the_generation_of_a_claude_model_is_recognized(model: str, version: str) -> None:
    assert token_counts.claude_version(model) == version


def test_a_request_includes_its_texts_its_frame_and_its_schema() -> None:
    """OpenAI counts an enforced schema as part of the prompt."""
    request = a_request(system="abc", user="defgh")
    body = OpenAIModel(GPT, SecretStr("k")).body(request)

    with_schema = count_request(READING, body)
    without = count_request(READING, {**body, "response_format": {}})

    assert without == 3 + 5 + 2 * 3 + 3
    assert with_schema > without + 100


def test_a_schema_enforced_by_a_grammar_has_no_tokens() -> None:
    """Self-hosted servers enforce a schema without adding it to the prompt."""
    body = OpenAIModel(HOUSE, SecretStr("")).body(a_request(system="abc", user="defgh"))

    assert count_request(BY_CHARACTER, body) == 3 + 5 + 2 * 3 + 3


def test_a_request_to_claude_includes_the_system_prompt_in_either_form() -> None:
    body = AnthropicModel(CLAUDE, SecretStr("k")).body(a_request(system="abc", user="defgh"))
    blocks: JsonObject = {**body, "system": [{"type": "text", "text": "abc"}]}

    counts = [count_request(BY_CHARACTER, request_body) for request_body in (body, blocks)]

    assert counts[0] == counts[1] > 8


OPUS = ModelSettings(provider="anthropic", model="claude-opus-4-8")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("tiktoken is great!", 6),
        ("antidisestablishmentarianism", 6),
        ("2 + 2 = 4", 7),
        ("お誕生日おめでとう", 8),
        ("<|endoftext|>", 7),
        ("", 0),
    ],
)
def test_texts_of_openais_cookbook_have_its_counts(text: str, count: int) -> None:
    """The encoding is o200k_base; a special token in a text is text."""
    counter = counter_for(GPT)

    assert (counter.is_exact, counter.count(text)) == (True, count)


@pytest.mark.parametrize("run", ["a", " ", "\n", "中", "é", "1"])
def test_long_runs_are_counted_quickly(run: str) -> None:
    """Some tokenizers take quadratic time; the test's timeout is the limit."""
    assert 0 < counter_for(GPT).count(run * 500_000) <= 2 * 500_000


@pytest.mark.skipif(sys.version_info < (3, 12), reason="ctok needs Python 3.12")
@pytest.mark.parametrize(
    ("model", "count"), [("claude-3-5-haiku", 10), ("claude-opus-4-7", 15), ("claude-opus-4-8", 10)]
)
def test_claude_is_counted_as_documented_by_its_tokenizer(model: str, count: int) -> None:
    counter = counter_for(OPUS.model_copy(update={"model": model}))

    assert counter.is_exact
    assert counter.count("hello, world") == count


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="ctok is installed")
def test_claude_is_estimated_if_its_tokenizer_is_unavailable() -> None:
    counter = counter_for(OPUS)

    assert not counter.is_exact
    assert counter.name == "o200k_base (toktok) times 1.65"
