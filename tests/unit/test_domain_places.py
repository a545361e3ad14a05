"""Tests of the places of quotes: mentions, boxes on pages, and marks in a text."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.domain import grounding, json_values, places
from chordwise.domain.grounding import Source
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.marked_text import (
    MarkedSpan,
    Segment,
    segments,
    sought_in,
    window_of,
    words_at,
)
from chordwise.domain.places import Layout, Location, Place, PlaceKind, Places, located
from chordwise.domain.text_normalization import normalize


def a_page(number: int, start: int, words: list[tuple[int, int, bool]]) -> Place:
    """Return a page of 100 characters with words at offsets and heights, some beginning a line."""
    layout = Layout()
    for at, height, begins_line in words:
        box = float(at), float(height), at + 4.04, height + 9.96
        layout.add_word((at, at + 4), box, begins_line=begins_line)
    return Place(
        kind=PlaceKind.PAGE,
        label=f"p. {number}",
        number=number,
        start_char=start,
        end_char=start + 100,
        layout=layout.packed(),
    )


ONE = a_page(1, 0, [(0, 10, True), (5, 10, False), (10, 30, True), (90, 200, True)])
TWO = a_page(2, 102, [(0, 12, True), (5, 12, False)])


def test_a_span_has_a_box_for_each_line_that_it_touches() -> None:
    location = Places([ONE, TWO]).locate(6, 12)

    assert location == Location(
        page=1, place="p. 1", boxes=[[1, 5.0, 10.0, 9.1, 20.0], [1, 10.0, 30.0, 14.1, 40.0]]
    )


def test_the_innermost_place_is_used() -> None:
    inside = places.nest_in_message("message 2, attachment x.pdf", [ONE], 120)

    assert Places(inside).locate(0, 4).place == "message 2, attachment x.pdf, p. 1"
    assert Places(inside).locate(110, 115).place == "message 2, attachment x.pdf"
    assert Places([ONE, TWO]).locate(100, 101) == Location()
    assert Places().locate(0, 1) == Location()


def test_rows_of_a_sheet_are_a_range_of_cells() -> None:
    layout = Layout()
    for row in range(40):
        layout.add((10 * row, 10 * row + 9), (0, row, 27, row))
    table = {"kind": PlaceKind.SHEET, "start_char": 5, "end_char": 405}
    sheet = Place(label="Ports!", layout=layout.packed(), **table)  # type: ignore[arg-type]

    assert Places([sheet]).locate(66, 70).place == "Ports!A7:AB7"
    assert Places([sheet]).locate(66, 90).place == "Ports!A7:AB9"
    assert Places([Place(label="Ports!", **table)]).locate(66, 70).place == "Ports"  # type: ignore[arg-type]


@given(st.binary(max_size=200))
def test_a_layout_of_arbitrary_bytes_is_handled(content: bytes) -> None:
    """The parser's output may result from a hostile file."""
    for layout in (content, zlib.compress(content)):
        place = Place(kind=PlaceKind.PAGE, label="", start_char=0, end_char=50, layout=layout)
        Places([place]).locate(0, 50)


@given(st.binary(max_size=100), st.integers(0, 100))
def test_places_from_arbitrary_bytes_are_within_the_text(content: bytes, length: int) -> None:
    assert places.decode(content, length) == []
    assert places.decode(places.encode([ONE, TWO]) + content, 1_000) == [ONE, TWO]
    assert places.decode(places.encode([ONE, TWO]), 150) == [ONE]


@given(st.lists(st.text("a\r\n\0\ufeff\u200b", max_size=5), max_size=20))
def test_places_are_shifted_with_their_words(gaps: list[str]) -> None:
    layout, text, spans = Layout(), "\0\r\n", []
    for row, gap in enumerate(gaps):
        spans.append((len(text + gap), len(text + gap) + 4))
        layout.add((spans[-1][0] - 3, spans[-1][1] - 3), (0, row, 0, row))
        text += f"{gap}word"
    sheet = Place(
        kind=PlaceKind.SHEET, label="", start_char=3, end_char=len(text), layout=layout.packed()
    )
    normalized = normalize(text)
    offset = normalized.offsets()
    assert offset is not None

    shifted = Places([places.moved(sheet, offset)])

    for row, (start, end) in enumerate(spans, start=1):
        begins, ends = offset(start), offset(end)
        assert normalized.text[begins:ends] == "word"
        assert shifted.locate(begins, ends).place == f"A{row}"


def test_quotes_of_an_output_are_located() -> None:
    quote: JsonObject = {"quote": "word", "start_char": 0, "end_char": 4, "grounded": True}
    missing: JsonObject = {"quote": "word", "start_char": None, "end_char": None, "grounded": False}
    output: JsonObject = {"data": [dict(quote)], "evidence": [{"path": "/x", **quote}, missing]}

    result = located(output, Places([ONE]))

    where = {"page": 1, "place": "p. 1", "boxes": [[1, 0.0, 10.0, 4.1, 20.0]]}
    assert result == {"data": [quote], "evidence": [{"path": "/x", **quote, **where}, missing]}
    assert located(output, Places()) == output


NAMES = [f"Bolt M{number}" if number % 8 else "Coffee" for number in range(1, 61)]
ROWS = [(name, str(1 + number % 9), f"{1 + number % 7}.50") for number, name in enumerate(NAMES)]
LAYOUTS = {
    "csv": "{id},{0},{1},{2}\n",
    "markdown": "| {id} | {0} | {1} | {2} |\n",
    "names and values": "No.: {id}\nName: {0}\nQuantity: {1}\nPrice: {2} EUR\n\n",
    "a value on each line": "{id}\n{0}\n{1}\n{2}\n",
    "xml on one line": "<row no='{id}'><name>{0}</name><n>{1}</n><price>{2}</price></row>",
    "sentences": "No. {id} are {1} {0} at {2} EUR each. ",
}
RECORDS = {
    layout: [form.format(*row, id=number) for number, row in enumerate(ROWS)]
    for layout, form in LAYOUTS.items()
}


def spans_of(text: str, quotes: Sequence[tuple[str, str]]) -> list[tuple[int, int]]:
    entries: list[JsonValue] = [{"path": path, "quote": quote} for path, quote in quotes]
    output = grounding.ground({"data": {}, "evidence": entries}, Source(text))
    return [
        (
            int(json_values.number(entry["start_char"]) or 0),
            int(json_values.number(entry["end_char"]) or 0),
        )
        for entry in json_values.objects(output["evidence"])
    ]


@pytest.mark.parametrize("is_shuffled", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_values_of_a_row_are_located_in_its_record(layout: str, *, is_shuffled: bool) -> None:
    records = RECORDS[layout]
    text = f"Bolt M3 and 2 others at 1.50 are new.\n\n{''.join(records)}\nCoffee was 2.50 before.\n"
    numbers = range(len(ROWS))
    order = sorted(numbers, key=lambda number: number * 37 % len(ROWS)) if is_shuffled else numbers

    spans = spans_of(
        text,
        [
            (f"/rows/{place}/{name}", value)
            for place, number in enumerate(order)
            for name, value in zip(("name", "quantity", "price"), ROWS[number], strict=True)
        ],
    )

    starts = [text.index(records[0])]
    for record in records:
        starts.append(starts[-1] + len(record))
    rows = [spans[first : first + 3] for first in range(0, len(spans), 3)]
    for number, row in zip(order, rows, strict=True):
        if ROWS[number][0] not in ("Coffee", "Bolt M3"):
            assert all(starts[number] <= a < b <= starts[number + 1] for a, b in row), (number, row)
    if not is_shuffled:
        coffees = [row for number, row in enumerate(rows) if ROWS[number][0] == "Coffee"]
        assert len({row[0] for row in coffees}) == len(coffees)


PLACES = st.integers(-3, 40)
SPANS = st.lists(
    st.builds(
        lambda start, length, mark: MarkedSpan(
            start_char=start, end_char=start + length, mark=mark
        ),
        PLACES,
        st.integers(0, 20),
        st.sampled_from("abc"),
    ),
    max_size=6,
)


@given(st.text(max_size=35), st.tuples(PLACES, PLACES), SPANS, st.lists(PLACES, max_size=3))
def test_segments_are_the_text_with_the_marks_of_each_character(
    text: str, window: tuple[int, int], spans: list[MarkedSpan], cuts: list[int]
) -> None:
    parts = segments(text, window, spans, cuts)

    shown = range(max(0, window[0]), min(window[1], len(text)))
    assert "".join(part.text for part in parts) == "".join(text[at] for at in shown)
    assert all(part.text == text[part.start_char :][: len(part.text)] for part in parts)
    assert {part.start_char for part in parts} >= {cut for cut in cuts if cut in shown}
    marks = {
        part.start_char + at: set(part.marks) for part in parts for at in range(len(part.text))
    }
    for place in shown:
        above = {span.mark for span in spans if span.start_char <= place < span.end_char}
        assert marks[place] == above


def test_marks_are_in_the_order_of_their_spans() -> None:
    """The first mark is the target of a click."""
    outer, inner = (
        MarkedSpan(start_char=0, end_char=9, mark="outer"),
        MarkedSpan(start_char=4, end_char=6, mark="inner"),
    )

    parts = segments("The whole", (0, 9), [outer, inner], cuts=[2])

    assert parts == [
        Segment(start_char=0, text="Th", marks=("outer",)),
        Segment(start_char=2, text="e ", marks=("outer",)),
        Segment(start_char=4, text="wh", marks=("outer", "inner")),
        Segment(start_char=6, text="ole", marks=("outer",)),
    ]


@given(st.text(alphabet="ab\n", max_size=60), st.integers(1, 9))
def test_windows_cover_the_text(text: str, size: int) -> None:
    count = -(-len(text) // size)
    windows = [window_of(text, number, size) for number in range(count)]

    assert "".join(text[start:end] for start, end in windows) == text
    assert all(text[end - 1] == "\n" for _, end in windows if "\n" in text[end - 1 : end + 60])


@pytest.mark.parametrize(
    ("words", "matches"),
    [
        ("annual fee", ["Annual", "fee", "fee"]),
        ('"annual fee" or Fees', ["Annual", "fee", "fees", "fee"]),
        ("fees -annual", ["fees"]),
        ("or", []),
        ('"', []),
        ("fee's", ["fee", "fee"]),
        ("", []),
    ],
)
def test_the_words_of_a_search_are_found(words: str, matches: list[str]) -> None:
    text = "Annual fee: all fees of it, a fee."

    places = words_at(text, sought_in(words))

    assert [text[start:end] for start, end in places] == matches
