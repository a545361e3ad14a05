"""Tests of words, sentences, key phrases and ranking in the built-in model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.domain import words
from chordwise.domain.extractive import ranking
from chordwise.domain.extractive.sentences import MAX_QUOTE_CHARACTERS, sentences


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("terminated", "termination", True),
        ("parties", "party", True),
        ("running", "runs", True),
        ("assignment", "assigned", True),
        ("governed", "governing", True),
        ("managed", "manage", True),
        ("classes", "class", True),
        ("company's", "companies", True),
        ("bus", "but", False),
        ("thing", "the", False),
        ("use", "us", False),
    ],
)
def test_only_forms_of_a_word_have_one_stem(one: str, other: str, *, meet: bool) -> None:
    assert (words.stem(one) == words.stem(other)) is meet


def test_terms_exclude_function_words() -> None:
    assert words.terms("The committees of this House have agreed") == ["committe", "hous", "agr"]
    assert words.terms("华沙大学 AI") == ["华沙", "沙大", "大学", "ai"]
    assert words.words("वारसॉ की सैक्सन") == ["वारसॉ", "की", "सैक्सन"]


@given(st.text(max_size=2_000))
def test_sentences_are_parts_of_the_text_in_order(text: str) -> None:
    found = sentences(text)

    starts = [one.start_char for one in found]
    assert starts == sorted(set(starts))
    for one in found:
        assert text[one.start_char : one.start_char + len(one.text)] == one.text
        assert one.text == one.text.strip()
        assert 0 < len(one.text) <= MAX_QUOTE_CHARACTERS


@given(st.text(max_size=2_000))
def test_sentences_cover_everything_but_white_space(text: str) -> None:
    assert "".join("".join(one.text.split()) for one in sentences(text)) == "".join(text.split())


def test_the_windows_of_a_long_text_lose_nothing() -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 1_000

    found = sentences(text)

    assert {one.text for one in found} == {"The quick brown fox jumps over the lazy dog."}
    assert len(found) == 1_000


def test_lines_of_a_wrapped_text_are_joined() -> None:
    text = (
        "When a text is wrapped by hand at some width then a sentence\n"
        "runs over several lines of the file and a line end within it\n"
        "says nothing about where the sentence comes to its very end.\n"
        "A heading\n"
        "Another sentence begins here and it again goes on over lines\n"
        "until it ends.\n"
    )

    found = [one.text for one in sentences(text)]

    assert len(found) == 3
    assert found[0].startswith("When")
    assert found[0].endswith("very end.")


def test_lines_of_a_list_are_sentences() -> None:
    assert [one.text for one in sentences("Name: Ann\nAge: 7\nCity: Rome")] == [
        "Name: Ann",
        "Age: 7",
        "City: Rome",
    ]


def test_a_sentence_that_is_too_long_is_cut_at_a_clause() -> None:
    text = "word " * 70 + "end; " + "more " * 40

    assert [one.text[-4:] for one in sentences(text)] == ["end;", "more"]


def test_the_most_central_sentence_has_the_highest_rank() -> None:
    found = sentences(
        "Cats chase mice at night. Dogs chase cats around houses. "
        "Cats and dogs chase mice around houses at night. Quantum theory puzzles physicists."
    )
    weights = ranking.inverse_document_frequencies([one.terms for one in found])
    vectors = [ranking.vector(one.terms, weights) for one in found]

    scores = ranking.sentence_scores(found, vectors, {})

    assert max(scores) == scores[2]
    assert scores[3] < scores[2]


def test_a_topic_changes_the_ranking() -> None:
    found = sentences("Apples grow on tall trees here. Fishes swim in deep rivers there.")
    weights = ranking.inverse_document_frequencies([one.terms for one in found])
    vectors = [ranking.vector(one.terms, weights) for one in found]
    topic = ranking.vector(words.terms("fishes"), weights)

    one, other = ranking.sentence_scores(found, vectors, topic)

    assert other > one


def test_selected_sentences_differ() -> None:
    vectors = [{"a": 1.0}, {"a": 1.0}, {"b": 1.0}]

    assert ranking.pick([1.0, 0.95, 0.6], vectors, 2) == [0, 2]
