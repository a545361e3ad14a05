"""Tests of dividing texts into chunks and of estimating their tokens."""

from __future__ import annotations

import itertools
import re
import tracemalloc
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.domain import chunking, outline, tokens
from chordwise.domain.chunking import TextChunk, split

# Any character that intake accepts: all but NUL and surrogates.
CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")
PROSE = st.sampled_from(
    ["Dr. Ü said so. ", "第一句。", "\n\n", "“Unclosed ", "no end ", "👍🏽 ", "1.5 "]
)
TEXTS = st.one_of(
    st.text(CHARACTERS, max_size=400),
    st.lists(PROSE, max_size=60).map("".join),
    st.builds(
        lambda text, times: text * times, st.text(CHARACTERS, max_size=5), st.integers(1, 90)
    ),
)
ROUNDING = 1e-6


def parts_of(text: str, chunks: Sequence[TextChunk]) -> list[str]:
    return [text[chunk.start_char : chunk.end_char] for chunk in chunks]


def pieces(text: str, max_tokens: int) -> list[str]:
    return parts_of(text, split(text, max_tokens))


@given(TEXTS, st.integers(1, 80))
def test_chunks_cover_a_text_within_the_budget(text: str, max_tokens: int) -> None:
    """They are numbered and adjacent, so that no character is lost or repeated.

    Only a single character above the budget exceeds it; surrounding white space does not count.
    There is no chunk of white space alone, and a text that fits is not divided.
    """
    chunks = split(text, max_tokens)
    parts = parts_of(text, chunks)

    assert [chunk.position for chunk in chunks] == list(range(len(chunks)))
    assert all(one.end_char == next_.start_char for one, next_ in itertools.pairwise(chunks))
    assert "".join(parts) == text
    for piece in map(str.strip, parts):
        assert piece or not text.strip()
        assert tokens.weigh(piece) <= max_tokens + ROUNDING or len(piece) == 1
    fits = chunking.fits(text, max_tokens)
    assert fits == (tokens.weigh(text) <= max_tokens)
    assert not fits or parts == ([text] if text else [])


@pytest.mark.parametrize("blank", [" ", "\n", "\t", "\u3000"])
def test_a_long_gap_belongs_to_the_preceding_chunk(blank: str) -> None:
    text = f"{blank * 400}One. {blank * 4_000}Two."

    parts = pieces(text, 50)

    assert [piece.strip() for piece in parts] == ["One.", "Two."]
    assert "".join(parts) == text


def test_chunks_end_at_sentences_and_are_of_similar_size() -> None:
    text = "The council met in the old hall again. " * 11

    parts = pieces(text, tokens.estimate(text) - 5)

    assert len(parts) == 2
    assert all(piece.endswith(". ") for piece in parts)
    assert min(map(len, parts)) > 0.4 * len(text)


def test_a_budget_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        split("text", 0)


@given(st.text(CHARACTERS, max_size=60))
def test_sentence_ends_are_in_order_up_to_the_end_of_the_text(text: str) -> None:
    ends = chunking.sentence_ends(text)

    assert ends == sorted(set(ends))
    assert all(0 < end <= len(text) for end in ends)
    assert (ends[-1] if ends else 0) == len(text)


def test_sentences_are_not_cut_at_the_windows_of_a_long_text() -> None:
    sentence = "The council of the town voted about the harbour. "
    text = sentence * 700

    ends = chunking.sentence_ends(text)

    assert all(text[end - 1] == " " and text[end - 2] == "." for end in ends[:-1])
    assert len(ends) > 600


@given(st.text(CHARACTERS), st.text(CHARACTERS))
def test_the_weight_of_a_text_is_the_sum_of_its_parts(one: str, other: str) -> None:
    """Chunks can therefore be measured piece by piece."""
    assert tokens.weigh(one + other) == pytest.approx(tokens.weigh(one) + tokens.weigh(other))


@given(st.text())
def test_only_the_empty_text_has_no_tokens(text: str) -> None:
    assert (tokens.estimate(text) > 0) is bool(text)


def test_a_text_is_halved_at_the_sentence_end_nearest_to_its_middle() -> None:
    """Both halves are whole sentences, and white space belongs to the first."""
    text = "The council met. It was late.  Nobody had eaten. They went home."

    cut = chunking.halfway(text)

    assert cut is not None
    assert (text[:cut], text[cut:]) == (
        "The council met. It was late.  ",
        "Nobody had eaten. They went home.",
    )


@given(TEXTS)
def test_neither_half_of_a_text_is_blank(text: str) -> None:
    """Without a boundary of sentences or words, a word is cut; a single character is not halved."""
    cut = chunking.halfway(text)

    if cut is None:
        assert len(text.strip()) <= 1
    else:
        assert text[:cut].strip()
        assert text[cut:].strip()


ROWS = {
    "csv": "".join(f"{n},Miller & Sons Inc. of Ohio,{n * 3}.50 EUR\n" for n in range(300)),
    "table": "".join(f"| {n} | Miller Inc. Ohio | {n}.5 |\n" for n in range(300)),
    "tabs": "".join(f"{n}\tMiller Inc. Ohio\t{n}.5\n" for n in range(300)),
    "items": "".join(f"- Part {n} of Miller Inc. It costs {n} EUR.\n" for n in range(300)),
    "numbers": "".join(f"{n}. Part of Miller Inc. It costs {n} EUR.\n" for n in range(300)),
    "values": "".join(f"Item {n}: Miller Inc. It costs {n} EUR.\n" for n in range(300)),
}
RECORDS = {
    "blocks": "".join(f"Name: Part {n}\nPrice: {n} EUR\n\n" for n in range(300)),
    "names": "".join(f"Name: Part {n}\nUnit: piece\nPrice: {n} EUR\n" for n in range(300)),
    "indented": "".join(f"Part {n}\n  for {n} EUR\n  in stock\n" for n in range(300)),
    "items": "".join(f"- Part {n}\n  for {n} EUR\n" for n in range(300)),
    "nested": "".join(f"Part {n}\n- for {n} EUR\n- in stock\n" for n in range(300)),
    "lines": "".join(f"Part {n} of Miller for {n} EUR\n" for n in range(300)),
    "semicolons": "".join(f"Part {n} for {n},50 EUR, in stock; " for n in range(300)),
    "commas": "".join(f"Part {n} for {n},50 EUR, " for n in range(300)),
}


@pytest.mark.parametrize(
    ("text", "beginning"),
    [
        *((text, text[: text.index("0")]) for text in RECORDS.values()),
        *((text, None) for text in ROWS.values()),
    ],
    ids=[*RECORDS, *(f"rows of {kind}" for kind in ROWS)],
)
@pytest.mark.parametrize("max_tokens", [60, 150, 400])
def test_records_are_not_cut(text: str, beginning: str | None, max_tokens: int) -> None:
    chunks = split(text, max_tokens)
    cut = chunking.halfway(text)

    assert len(chunks) > 3
    assert cut is not None
    for start in (*(chunk.start_char for chunk in chunks[1:]), cut):
        assert text.startswith(beginning, start) if beginning else text[start - 1] == "\n"


def test_prose_is_cut_after_sentences_regardless_of_line_breaks() -> None:
    text = "The council voted again and\nadjourned at noon. Nobody\nobjected to that.\n" * 40

    ends = {chunk.end_char for chunk in split(text, 60)}

    assert all(text[:end].rstrip().endswith(".") for end in ends)


@pytest.mark.parametrize(
    ("before", "header"),
    [
        ("About it.\n\n| name | price |\n|------|:-----:|\n", "| name | price |\n|------|:-----:|"),
        ("name | price\n--- | ---\n", "name | price\n--- | ---"),
        ("| one | 1 |\n| - | - |\n| two | 2 |\n\n| name | price |\n", "| name | price |"),
        ("A title\nname\tprice\n", "name\tprice"),
        ('name,price\n"Bolt, M3",1\n', "name,price"),
        ("name;price;unit\nNut;2;EUR\n", "name;price;unit"),
        ('name,price\n"Bolt\n\nof iron",1\n', "name,price"),
        ("+---+---+\n| a | b |\n+===+===+\n", "+---+---+\n| a | b |\n+===+===+"),
        ("| a | b |\n+---+---+\n", "| a | b |\n+---+---+"),
    ],
)
def test_a_continued_table_has_the_header_of_its_beginning(before: str, header: str) -> None:
    rows = {"|": "| Nut | 2 |\n", "\t": "Nut\t2\n", ";": "Nut;2;EUR\n", ",": "Nut,2\n"}
    row = next(line for mark, line in rows.items() if mark in header)
    text = f"{before}{row * 3}"

    span = outline.table_header(text, len(before) + len(row))

    assert span is not None
    assert text[slice(*span)] == header


def test_a_table_of_columns_has_its_header_below_wrapped_cells() -> None:
    text = "Order 5\nname      qty   price\n" + "Bolt, M3    1    3.50\n  of iron, blue\n" * 3

    span = outline.table_header(text, text.rindex("Bolt"))

    assert span is not None
    assert text[slice(*span)] == "name      qty   price"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "| a | b |\n"),
        ("He came.  She went.\n", "Then  they left.\n"),
        ('{"a": 1, "b": 2, "c": 3}\n', '{"a": 4, "b": 5, "c": 6}\n'),
        ("| a | b |\n\n", "| c | d |\n"),
        ("One, two and three.\n", "Four, five.\n"),
        ("name: Ann\n", "name: Ben\n"),
        ("| a | b", " | c |\n"),
        (f"{'long ' * 300}\ta\n", "x\ty\n"),
    ],
)
def test_there_is_no_header_where_no_table_continues(before: str, after: str) -> None:
    assert outline.table_header(before + after, len(before)) is None


@given(TEXTS, st.integers(0, 400))
def test_a_header_ends_before_the_place_where_its_table_continues(text: str, place: int) -> None:
    span = outline.table_header(text, min(place, len(text)))

    assert span is None or 0 <= span[0] < span[1] <= place


class CountedPattern:
    """A pattern that counts the searches that start at the beginning of a text."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern
        self.searches = 0

    def finditer(self, text: str, start: int = 0) -> Iterator[re.Match[str]]:
        self.searches += not start
        return self._pattern.finditer(text, start)


def test_the_chunks_of_a_long_table_share_one_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search for each chunk would take time quadratic in the length."""
    fields = CountedPattern(outline.QUOTED_FIELD)
    monkeypatch.setattr(outline, "QUOTED_FIELD", fields)
    text = "id,words\n" + "".join(f'{number},"Item\n{number}"\n' for number in range(30_000))
    ends = [match.end() for match in re.finditer(r'"\n', text)]

    headers = {outline.table_header(text, end) for end in ends[100::3_000]}

    assert headers == {(0, len("id,words"))}
    assert fields.searches == 1


@pytest.mark.parametrize(
    "unit",
    [
        *("\n", ',"a\nb",'),
        *(
            pytest.param(unit, marks=pytest.mark.nightly)
            for unit in ("# a\n", "a\n\n", "|\n\n", '{"a":1}\n', "- a\n")
        ),
    ],
)
def test_memory_does_not_grow_with_boundaries(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunking, "_OUTLINED_CHARACTERS", 5_000)
    peaks: list[int] = []
    for length in (10_000, 50_000):
        text = f"x{unit * (length // len(unit))}y"
        tracemalloc.start()
        chunks = split(text, 500)
        outline.table_header(text, chunks[-1].start_char)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert peaks[1] - peaks[0] < 40_000 * 12


def test_a_window_does_not_end_within_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(f'{number},"Item\n\n{number}",{number / 7}\n' for number in range(5_000))
    whole = split(text, 300)
    monkeypatch.setattr(chunking, "_OUTLINED_CHARACTERS", 10_000)

    chunks = split(text, 300)

    assert chunks == whole
