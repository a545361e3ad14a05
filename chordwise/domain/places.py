"""Places in a document: pages with the boxes of their words, slides, sheets, sections, mail.

Offsets count characters of the stored text of the document. Boxes are in points from the top left
corner of the page as it is displayed, that is after its rotation and within its crop box.
"""

from __future__ import annotations

import json
import math
import re
import sys
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import reduce
from itertools import accumulate, pairwise
from operator import add, sub
from typing import TypeAlias, TypeVar

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject, JsonValue

MAX_PLACES = 10_000
"""The maximum number of places of a document; the first ones are kept."""
MAX_LABEL = 200
MESSAGE = "message"
"""The label of a message that is a separate file."""
_PER_POINT = 10
_NAMED_SECTION = re.compile(r"section\b", re.IGNORECASE)
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_COLUMNS = 7
_LAYOUT_ROW_BYTES = array("i").itemsize * _COLUMNS

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right and bottom."""
_WholeBox: TypeAlias = tuple[int, int, int, int]
Edge = TypeVar("Edge", int, float)


class PlaceKind(StrEnum):
    """The kind of a place; the values in `documents.places`."""

    PAGE = "page"
    SLIDE = "slide"
    SHEET = "sheet"
    SECTION = "section"
    MAIL = "mail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A named part of the text of a document; `number` counts pages and slides from 1.

    `layout` is the result of `Layout.packed`: the boxes of words, or the cells of rows.
    """

    kind: PlaceKind
    label: str
    start_char: int
    end_char: int
    number: int | None = None
    width: float | None = None
    height: float | None = None
    layout: bytes = b""


class Layout:
    """The positions of the words of a page, or of the rows of a sheet: a box for each span.

    Spans are relative to the place. Boxes are tenths of a point, or columns and rows from 0.
    """

    def __init__(self, columns: Sequence[array[int]] = ()) -> None:
        self._columns = columns or [array("i") for _ in range(_COLUMNS)]

    def add(self, span: tuple[int, int], box: _WholeBox, *, begins_line: bool = False) -> None:
        """Add a box."""
        for column, value in zip(self._columns, (*span, *box, begins_line), strict=True):
            column.append(value)

    def add_word(self, span: tuple[int, int], box: Box, *, begins_line: bool) -> None:
        """Add the box of a word in points, rounded so that it contains the word."""
        left, top, right, bottom = (edge * _PER_POINT for edge in box)
        outward = math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)
        self.add(span, outward, begins_line=begins_line)

    def packed(self) -> bytes:
        """Return the compressed boxes; empty if there are none."""
        if not self._columns[0]:
            return b""
        starts, ends, left, top, right, bottom, lines = self._columns
        sizes = ((ends, starts), (right, left), (bottom, top))
        # The differences of successive values compress better.
        steps = (map(sub, column, [0, *column]) for column in (starts, left, top))
        columns = [*steps, *(map(sub, *pair) for pair in sizes), lines]
        return zlib.compress(
            b"".join(_little_endian(array("i", column)).tobytes() for column in columns)
        )

    @classmethod
    def unpacked(cls, place: Place) -> Layout:
        """Return the layout of a place; empty if its data was not produced by `packed`."""
        limit = _LAYOUT_ROW_BYTES * max(1, place.end_char - place.start_char)
        try:
            content = zlib.decompressobj().decompress(place.layout, limit) if place.layout else b""
        except zlib.error:
            content = b""
        size = len(content) // _LAYOUT_ROW_BYTES * array("i").itemsize
        pieces = (content[n * size : (n + 1) * size] for n in range(_COLUMNS))
        steps = [_little_endian(array("i", piece)) for piece in pieces]
        first = [list(accumulate(column)) for column in steps[:3]]
        last = [list(map(add, *pair)) for pair in zip(first, steps[3:6], strict=True)]
        (starts, left, top), (ends, right, bottom) = first, last
        try:
            columns = [array("i", column) for column in (starts, ends, left, top, right, bottom)]
        except OverflowError:
            return cls()
        return cls([*columns, steps[6]])

    def moved(self, offset: Callable[[int], int]) -> Layout:
        """Return the same boxes with moved spans."""
        moved = [array("i", map(offset, column)) for column in self._columns[:2]]
        return Layout([*moved, *self._columns[2:]])

    def lines(self, start: int, end: int) -> list[_WholeBox]:
        """Return the box of each line that a span touches."""
        starts, ends, *edges, begins = self._columns
        boxes: list[_WholeBox] = []
        for number in range(bisect_right(ends, start), len(starts)):
            if starts[number] >= end:
                break
            left, top, right, bottom = (edge[number] for edge in edges)
            box = left, top, right, bottom
            if begins[number] or not boxes:
                boxes.append(box)
            else:
                boxes[-1] = union(boxes[-1], box)
        return boxes


def union(one: tuple[Edge, ...], two: tuple[Edge, ...]) -> tuple[Edge, Edge, Edge, Edge]:
    """Return the smallest box that contains both boxes."""
    return min(one[0], two[0]), min(one[1], two[1]), max(one[2], two[2]), max(one[3], two[3])


def _little_endian(values: array[int]) -> array[int]:
    if sys.byteorder == "big":
        values.byteswap()
    return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """The page or slide of a span, its place, and for each line: page, left, top, right, bottom."""

    page: int | None = None
    place: str | None = None
    boxes: list[JsonValue] | None = None


class Places:
    """The places of a document, for locating spans of its text."""

    def __init__(self, places: Sequence[Place] = ()) -> None:
        self._places = sorted(places, key=lambda place: place.start_char)
        self._starts = [place.start_char for place in self._places]
        self._layouts: dict[int, Layout] = {}

    def __bool__(self) -> bool:
        return bool(self._places)

    def locate(self, start: int, end: int) -> Location:
        """Return the location of a span: the innermost place that contains its beginning."""
        before = range(bisect_right(self._starts, start) - 1, -1, -1)
        first = next((n for n in before if self._places[n].end_char > start), None)
        if first is None:
            return Location()
        place = self._places[first]
        if place.kind is PlaceKind.SHEET:
            return Location(place=self._cells(first, start, end))
        if place.kind is not PlaceKind.PAGE:
            return Location(page=place.number, place=place.label)
        following = bisect_left(self._starts, end)
        pages = (n for n in range(first, following) if self._places[n].kind is PlaceKind.PAGE)
        boxes: list[JsonValue] = [
            [self._places[number].number, *(edge / _PER_POINT for edge in box)]
            for number in pages
            for box in self._lines(number, start, end)
        ]
        return Location(page=place.number, place=place.label, boxes=boxes or None)

    def _cells(self, number: int, start: int, end: int) -> str | None:
        label = self._places[number].label
        rows = self._lines(number, start, end)
        if not rows:
            return label.removesuffix("!").removesuffix(", ") or None
        left, top, right, bottom = reduce(union, rows)
        first, last = f"{_column(left)}{top + 1}", f"{_column(right)}{bottom + 1}"
        return label + (first if first == last else f"{first}:{last}")

    def _lines(self, number: int, start: int, end: int) -> list[_WholeBox]:
        place = self._places[number]
        if number not in self._layouts:
            self._layouts[number] = Layout.unpacked(place)
        return self._layouts[number].lines(start - place.start_char, end - place.start_char)


def _column(number: int) -> str:
    """Return the letters of a column; columns count from 0."""
    letters, left = "", number + 1
    while left > 0:
        left, rest = divmod(left - 1, len(_ALPHABET))
        letters = _ALPHABET[rest] + letters
    return letters


def located(output: JsonObject, places: Places) -> JsonObject:
    """Return an output with `page`, `place` and `boxes` beside each quote that has a span."""

    def with_place(finding: JsonObject) -> JsonObject:
        span = json_values.span_of(finding)
        if span is None:
            return finding
        where = places.locate(*span)
        return finding | {"page": where.page, "place": where.place, "boxes": where.boxes}

    return json_values.with_findings(output, with_place) if places else output


def sections(headings: Iterable[tuple[int, str]], length: int) -> list[Place]:
    """Return the sections of a text of this length; headings are pairs of position and title."""
    titles = [(start, " ".join(title.split())) for start, title in headings]
    titles = [(start, title) for start, title in titles if title][:MAX_PLACES]
    ends = [*(start for start, _ in titles[1:]), length]
    return [
        Place(
            kind=PlaceKind.SECTION,
            label=(title if _NAMED_SECTION.match(title) else f"section {title}")[:MAX_LABEL],
            start_char=start,
            end_char=end,
        )
        for (start, title), end in zip(titles, ends, strict=False)
    ]


def moved(place: Place, offset: Callable[[int], int]) -> Place:
    """Return a place of a text whose characters have moved; `offset` maps old to new positions."""
    old, new = place.start_char, offset(place.start_char)
    layout = place.layout
    if layout:
        layout = Layout.unpacked(place).moved(lambda at: offset(old + at) - new).packed()
    return replace(place, start_char=new, end_char=offset(place.end_char), layout=layout)


def nest_in_message(label: str, places: Sequence[Place], length: int) -> list[Place]:
    """Return the places of a message or attachment, with `label` prepended to their labels."""
    whole = Place(kind=PlaceKind.MAIL, label=label, start_char=0, end_char=length)
    inner = [place for place in places if place.label != MESSAGE]
    return [whole, *(replace(place, label=f"{label}, {place.label}") for place in inner)]


def encode(places: Sequence[Place]) -> bytes:
    """Serialize places with their layouts: a line of JSON, followed by the layouts."""
    sizes: list[JsonValue] = [len(place.layout) for place in places]
    head = json.dumps({"places": to_json(places), "sizes": sizes}).encode()
    return b"\n".join((head, b"".join(place.layout for place in places)))


def decode(content: bytes, length: int) -> list[Place]:
    """Parse the output of `encode` for a text of this length; empty if it is invalid."""
    head, _, layouts = content.partition(b"\n")
    try:
        described = json.loads(head)
        ends = accumulate(map(int, described["sizes"]), initial=0)
        places = from_json(described["places"], [layouts[a:b] for a, b in pairwise(ends)])
    except (ValueError, TypeError, KeyError, RecursionError):
        return []
    return [span for span in places[:MAX_PLACES] if 0 <= span.start_char <= span.end_char <= length]


def to_json(places: Sequence[Place]) -> list[JsonValue]:
    """Convert places to the JSON of `documents.places`, without their layouts."""
    names = ("kind", "label", "number", "start_char", "end_char", "width", "height")
    return [{name: getattr(place, name) for name in names} for place in places]


def from_json(stored: JsonValue, layouts: Sequence[bytes] = ()) -> list[Place]:
    """Parse the output of `to_json`; `layouts` are in the order of the places."""
    listed = json_values.objects(stored)
    return [
        Place(
            kind=PlaceKind(json_values.text(entry.get("kind"))),
            label=json_values.text(entry.get("label")),
            start_char=json_values.integer(entry.get("start_char")) or 0,
            end_char=json_values.integer(entry.get("end_char")) or 0,
            number=json_values.integer(entry.get("number")),
            width=json_values.number(entry.get("width")),
            height=json_values.number(entry.get("height")),
            layout=layout,
        )
        for entry, layout in zip(listed, [*layouts, *[b""] * len(listed)], strict=False)
    ]
