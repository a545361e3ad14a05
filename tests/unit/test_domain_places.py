"""Tests of locating a span of a text on pages, slides, sheets and sections."""

from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from chordwise.domain import places
from chordwise.domain.json_values import JsonObject
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
    found = Places([ONE, TWO]).locate(6, 12)

    assert found == Location(
        page=1, place="p. 1", boxes=[[1, 5.0, 10.0, 9.1, 20.0], [1, 10.0, 30.0, 14.1, 40.0]]
    )


def test_a_span_over_a_page_break_has_boxes_on_both_pages() -> None:
    found = Places([TWO, ONE]).locate(90, 111)

    assert (found.page, found.place) == (1, "p. 1")
    assert found.boxes == [[1, 90.0, 200.0, 94.1, 210.0], [2, 0.0, 12.0, 9.1, 22.0]]


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

    found = Places([places.moved(sheet, offset)])

    for row, (start, end) in enumerate(spans, start=1):
        begins, ends = offset(start), offset(end)
        assert normalized.text[begins:ends] == "word"
        assert found.locate(begins, ends).place == f"A{row}"


def test_quotes_of_an_output_are_located() -> None:
    quote: JsonObject = {"quote": "word", "start_char": 0, "end_char": 4, "grounded": True}
    missing: JsonObject = {"quote": "word", "start_char": None, "end_char": None, "grounded": False}
    output: JsonObject = {"data": [dict(quote)], "evidence": [{"path": "/x", **quote}, missing]}

    found = located(output, Places([ONE]))

    where = {"page": 1, "place": "p. 1", "boxes": [[1, 0.0, 10.0, 4.1, 20.0]]}
    assert found == {"data": [quote], "evidence": [{"path": "/x", **quote, **where}, missing]}
    assert located(output, Places()) == output
