"""The tokenizers of the extra `tokenizers`, as they are installed, count what is known of them."""

from __future__ import annotations

import sys

import pytest

from chordwise.llm.counting import counter_for
from chordwise.settings import ModelSettings

GPT = ModelSettings(provider="openai", model="gpt-5.4-mini")
CLAUDE = ModelSettings(provider="anthropic", model="claude-opus-4-8")


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
def test_texts_of_the_handbook_have_its_counts(text: str, count: int) -> None:
    """OpenAI's cookbook shows them for o200k_base; a special token in a text is text."""
    counter = counter_for(GPT)

    assert (counter.is_exact, counter.count(text)) == (True, count)


@pytest.mark.parametrize("run", ["a", " ", "\n", "中", "é", "1"])
def test_long_runs_are_counted_in_time(run: str) -> None:
    """Some tokenizers take quadratic time for them; the suite's own limit would end this."""
    assert 0 < counter_for(GPT).count(run * 500_000) <= 2 * 500_000


@pytest.mark.skipif(sys.version_info < (3, 12), reason="ctok needs Python 3.12")
@pytest.mark.parametrize(
    ("model", "count"),
    [("claude-3-5-haiku", 10), ("claude-opus-4-7", 15), ("claude-opus-4-8", 10)],
)
def test_claude_is_counted_as_its_tokenizer_documents(model: str, count: int) -> None:
    """Each generation has its own vocabulary and its own frame around a message."""
    counter = counter_for(CLAUDE.model_copy(update={"model": model}))

    assert counter.is_exact
    assert counter.count("hello, world") == count


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="ctok is there")
def test_claude_is_estimated_where_its_tokenizer_is_not_to_be_had() -> None:
    """By the vocabulary that is there."""
    counter = counter_for(CLAUDE)

    assert not counter.is_exact
    assert counter.name == "o200k_base (toktok) times 1.65"
