"""Where a quote may begin and end."""

from __future__ import annotations

import pytest

from chordwise.domain import grounding
from chordwise.domain.grounding import Source


def found(quote: str, text: str) -> str | None:
    """Return what stands before the place at which the quote is found, `None` where it is not."""
    span = Source(text).locate(quote)
    return None if span is None else text[: span.start_char]


@pytest.mark.parametrize(
    ("quote", "text"),
    [
        ("5 million", "They paid 15 million."),
        ("$5", "They paid $5.2 billion."),
        ("$5,000", "It costs $5,000,000."),
        ("000", "It costs 5,000."),
        ("1.5", "Version 1.50 is out."),
        ("12", "Es kostet 12,5 Euro."),
        ("7.000", "Es sind 7.000.000,00 Euro."),
        ("٣", "العدد ٣٤"),
    ],
)
def test_a_part_of_a_number_is_not_what_the_text_says(quote: str, text: str) -> None:
    """A quote that cuts a number in two is not found."""
    assert Source(text).locate(quote) is None


@pytest.mark.parametrize(
    ("quote", "text"),
    [
        ("2024", "Am 12.05.2024 begann es."),
        ("1857", "In 1856,1857,1858 it rained."),
        ("It cost 5", "It cost 5. 000 people came."),
        ("5,000,000", "It costs $5,000,000."),
        ("5月", "2024年5月のこと"),
        ("12", "Room 12b"),
    ],
)
def test_a_whole_number_is_found_beside_signs_and_letters(quote: str, text: str) -> None:
    """Dates, lists and units are made of whole numbers."""
    assert found(quote, text) == text[: text.index(quote)]


@pytest.mark.parametrize(
    ("quote", "text", "before"),
    [
        ("art", "A party about art.", "A party about "),
        ("Ann", "The Annual report by Ann", "The Annual report by "),
        ("5", "From 15 to 5 of them", "From 15 to "),
        ("ability", "Ability: capability", ""),
    ],
)
def test_whole_words_come_first(quote: str, text: str, before: str) -> None:
    """A name is found where it stands alone, not inside a longer word before."""
    assert found(quote, text) in (before, text[: text.rindex(quote)])
    assert grounding.best(text, [(len(before), len(before) + len(quote))])


def test_a_part_of_a_word_counts_where_no_whole_word_does() -> None:
    """Scripts without spaces would otherwise have no quotes."""
    assert found("開かれ", "会議は五月に開かれた。") == "会議は五月に"


def test_a_letter_without_its_accent_is_another_letter() -> None:
    """“cafe” does not stand in “café”, composed or not."""
    assert Source("a cafe\u0301 here").locate("cafe") is None
    assert Source("a caf\u00e9 here").locate("cafe") is None
