"""Finding quotes in their source, and where a quote may begin and end."""

from __future__ import annotations

import re
import time
import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chordwise.domain import grounding, json_values
from chordwise.domain.grounding import Source, Span
from chordwise.domain.json_values import JsonObject, JsonValue

CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")


ALPHABET = st.sampled_from(
    [*"aAbé .,\n\"'()[]*+?\\|^$-", "\u0130", "Σ", "ς", "ß", "“", "—", "字", "ﬁ"]
)


TEXTS = st.text(ALPHABET | CHARACTERS, min_size=1, max_size=80)


@st.composite
def texts_with_a_part(draw: st.DrawFn) -> tuple[str, str]:
    """Draw a text and a part of it that is no white space alone."""
    text = draw(TEXTS)
    start = draw(st.integers(0, len(text) - 1))
    part = text[start : draw(st.integers(start + 1, len(text)))]
    assume(part.strip())
    return text, part


def evidence(quote: str, source: Source) -> JsonObject:
    """Return a finding with this quote after grounding."""
    answer = grounding.ground({"finding": {"finding": "f", "quote": quote}}, source)
    return json_values.as_object(answer["finding"])


def canonical(text: str) -> str:
    """Return what two texts share that differ in typography, mark-up, white space or case only."""
    folded = unicodedata.normalize("NFKD", grounding._decompose(grounding._fold(text)))
    return "".join(char for char in folded if not char.isspace() and char not in "*_`\\#>-")


@given(texts_with_a_part(), st.integers(0, 10_000))
def test_a_part_of_a_text_is_found_word_for_word(pair: tuple[str, str], offset: int) -> None:
    """What stands in the text is found, unless it would cut a number or an accent."""
    text, part = pair
    assume(not re.search(r"\d|[\u0300-\u036f]", text))

    span = Source(text, offset=offset).locate(part)

    assert span is not None
    assert text[span.start_char - offset : span.end_char - offset] == part


@given(TEXTS, TEXTS)
def test_what_is_found_is_the_quote_up_to_typography(text: str, quote: str) -> None:
    """Whatever is located says the same; the frame around a quote does not count."""
    span = Source(text).locate(quote)

    if span is not None:
        found = text[span.start_char : span.end_char]
        assert canonical(found) == canonical(quote) or canonical(found) in canonical(quote)
        assert canonical(found).strip(grounding._FRAME) == canonical(quote).strip(grounding._FRAME)


@given(TEXTS, TEXTS)
def test_grounding_never_invents(text: str, quote: str) -> None:
    """A quote that is not in the text, whatever is tolerated, is not grounded."""
    assume(canonical(quote).strip(grounding._FRAME) not in canonical(text))

    grounded = evidence(quote, Source(text))

    assert grounded["grounded"] is False
    assert grounded["start_char"] is None
    assert grounded["quote"] == quote


@given(texts_with_a_part(), st.integers(0, 5_000))
def test_substr_of_a_grounded_span_is_the_stored_quote(pair: tuple[str, str], offset: int) -> None:
    """`substr(text, start_char + 1, end_char - start_char) = quote`, as SQL counts from 1."""
    text, part = pair
    document = "x" * offset + text

    grounded = evidence(part.upper(), Source(text, offset=offset))

    if grounded["grounded"]:
        start, end = grounded["start_char"], grounded["end_char"]
        assert isinstance(start, int)
        assert isinstance(end, int)
        first = start + 1
        assert document[first - 1 : first - 1 + end - start] == grounded["quote"]


@pytest.mark.parametrize(
    ("quote", "text", "wording"),
    [
        ("cost (all) $5.00 [net]*", "It cost (all) $5.00 [net]*.", "cost (all) $5.00 [net]*"),
        ("a.c", "abc a.c", "a.c"),
        ("it's “done” now", 'It\'s "done" now', 'It\'s "done" now'),
        ("five - six", "five — six", "five — six"),
        ("two words", "two\n   words", "two\n   words"),
        ("two words", "two\u00a0words", "two\u00a0words"),
        ('"Quoted sentence."', "A quoted sentence. More.", "quoted sentence"),
        ("… the end", "This is the end", "the end"),
        ("会議は五月に", "昨日、会議は五月に開かれた。", "会議は五月に"),
        ("caf\u00e9", "Le cafe\u0301 ouvre", "cafe\u0301"),
        ("cafe\u0301", "Le caf\u00e9 ouvre", "caf\u00e9"),
        ("office finance", "The o\ufb03ce \ufb01nance", "o\ufb03ce \ufb01nance"),
        ("information", "The infor\u00admation", "infor\u00admation"),
        ("wait...", "So wait… no", "wait"),
        ("istanbul", "In İSTANBUL", "İSTANBUL"),
        ("türkiye", "İ İ İ TÜRKİYE", "TÜRKİYE"),
        ("ΨΦΣ ΦΨ", "ψφς φψ", "ψφς φψ"),
        ("ψφς", "İ ΨΦΣΨ ΨΦΣ", "ΨΦΣ"),
        ("\uff21\uff22 12", "ab 12", "ab 12"),
    ],
)
def test_what_models_change_without_meaning_to(quote: str, text: str, wording: str) -> None:
    """The quote is found, and what is stored is the source's own wording."""
    grounded = evidence(quote, Source(text, offset=7))

    assert grounded == {
        "finding": "f",
        "quote": wording,
        "start_char": 7 + text.rindex(wording),
        "end_char": 7 + text.rindex(wording) + len(wording),
        "grounded": True,
        "grounding": "exact" if quote in text else "normalized",
    }


@pytest.mark.parametrize(
    ("quote", "text"),
    [
        ("", "text"),
        (" \n", "a \n b"),
        ("...", "no dots"),
        ("first ... last", "first and last"),
        ("10 2", "10²"),
        ("102", "10²"),
        ("f", "o\ufb03ce"),
        ("anything", ""),
    ],
)
def test_what_is_not_in_the_text(quote: str, text: str) -> None:
    """Blank quotes, elisions, and digits made of superscripts are no quotes."""
    assert Source(text).locate(quote) is None


def test_a_known_quote_keeps_its_span() -> None:
    """A synthesis repeats a chunk's quote: its span is the chunk's, not the first look-alike."""
    source = Source(
        "so it is. And so it is.", known={"so it is": [Span(start_char=14, end_char=22)]}
    )

    span = source.locate("so it is")

    assert span == Span(start_char=14, end_char=22)
    assert source.wording(span) == "so it is"


def test_known_spans_are_those_of_grounded_quotes() -> None:
    """Each place counts once, and what was not found is not known."""
    answers: tuple[JsonObject, ...] = (
        {"a": [{"quote": "x", "start_char": 1, "end_char": 2}, {"quote": "y", "start_char": None}]},
        {"a": [{"quote": "x", "start_char": 8, "end_char": 9}]},
    )

    assert grounding.known_spans(answers) == {
        "x": [Span(start_char=1, end_char=2), Span(start_char=8, end_char=9)]
    }


def test_equal_quotes_stand_one_after_the_other() -> None:
    """Equal rows of a list have places of their own, in a synthesis, too."""
    text = "Coffee 3.\nTea 4.\nCoffee 3.\nCoffee 3.\n"
    said = ("Coffee 3.", "Tea 4.", "Coffee 3.", "Coffee 3.", "Coffee 3.")
    rows: list[JsonValue] = [{"quote": quote} for quote in said]

    answer = grounding.ground({"rows": rows}, Source(text))
    spans = grounding.known_spans((answer,))
    again = grounding.ground({"rows": rows[2:]}, Source(text, known=spans))

    assert [item["start_char"] for item in grounding.quotes(answer)] == [0, 10, 17, 27, 0]
    assert [item["start_char"] for item in grounding.quotes(again)] == [0, 17, 27]


def test_a_users_data_is_left_as_it_is() -> None:
    """A member `quote` of a user's own schema is a value like any other."""
    data: JsonObject = {"quote": "To be", "author": "W. S.", "start_char": 3, "grounded": "yes"}
    answer: JsonObject = {"data": data, "evidence": [{"path": "/quote", "quote": "To be"}]}

    grounded = grounding.ground(answer, Source("To be or not"))

    assert grounded["data"] == data
    assert json_values.objects(grounded["evidence"])[0]["grounded"] is True
    assert grounding.without_spans(grounded) == answer
    assert [found["path"] for found in grounding.quotes(grounded)] == ["/quote"]


def test_the_share_of_grounded_quotes() -> None:
    """Half found is a half; an answer without quotes has nothing wrong; null is no quote."""
    answer: JsonObject = {
        "fields": [
            {"quote": "here", "confidence": 1},
            {"quote": "nowhere", "confidence": 1},
            {"quote": None, "confidence": 1},
        ]
    }

    assert grounding.grounded_share(grounding.ground(answer, Source("it is here"))) == 0.5
    assert grounding.grounded_share({"label": "x"}) == 1.0


def test_a_quote_that_is_no_string_is_not_grounded() -> None:
    """A model may send anything; what is no text stands nowhere."""
    grounded = grounding.ground({"found": [{"quote": 5}]}, Source("5"))

    assert json_values.objects(grounded["found"])[0]["grounded"] is False


@pytest.mark.parametrize("unit", ["a", " x", "ab. ", "\u4e2d", "a\u0301", "\u200b "])
@pytest.mark.parametrize("end", ["", "?"])
def test_a_quote_is_looked_for_in_linear_time(unit: str, end: str) -> None:
    """Not even a long quote that repeats itself takes its length times that of the text."""
    quote = unit * 2_500 + end
    started = time.process_time()

    found = Source(unit * 200_000).locate(quote)

    assert (found is None) == bool(end) or quote.isspace()
    assert time.process_time() - started < 5


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
