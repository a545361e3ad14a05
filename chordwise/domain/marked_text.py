"""Division of a text into segments by its marks, so that overlapping passages can be displayed."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedSpan:
    """Characters `start_char` up to `end_char` of a text, with a mark."""

    start_char: int
    end_char: int
    mark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A piece of a text with the same marks on all of its characters."""

    start_char: int
    text: str
    marks: tuple[str, ...]


def segments(
    text: str, window: tuple[int, int], spans: Iterable[MarkedSpan], cuts: Collection[int] = ()
) -> list[Segment]:
    """Return the non-empty segments of a text, split at the ends of spans and at `cuts`, in order.

    The time is linear in the characters and in the marks of the segments.
    """
    start, end = max(0, window[0]), min(window[1], len(text))
    if start >= end:
        return []
    inside = [span for span in spans if max(start, span.start_char) < min(end, span.end_char)]
    begins, ends = defaultdict[int, set[int]](set), defaultdict[int, set[int]](set)
    for number, span in enumerate(inside):
        begins[max(start, span.start_char)].add(number)
        ends[span.end_char].add(number)
    within = {at for at in (*begins, *ends, *cuts) if start < at < end}
    active: set[int] = set()
    pieces: list[Segment] = []
    for first, last in pairwise(sorted({start, *within, end})):
        active = (active | begins[first]) - ends[first]
        marks = tuple(dict.fromkeys(inside[number].mark for number in sorted(active)))
        pieces.append(Segment(start_char=first, text=text[first:last], marks=marks))
    return pieces


_SOUGHT = re.compile(r'(?P<left_out>-?)(?:"(?P<phrase>[^"]*)"|(?P<word>[^\s"]+))')
_WORD = re.compile(r"\w+")


def sought_in(words: str) -> frozenset[str]:
    """Return the single words, in lower case, of `words` in the syntax of a search engine."""
    terms: set[str] = set()
    for match in _SOUGHT.finditer(words):
        if not match["left_out"] and (match["word"] or "").lower() != "or":
            terms.update(_WORD.findall((match["phrase"] or match["word"] or "").casefold()))
    return frozenset(terms)


def words_at(text: str, sought: Collection[str]) -> Iterator[tuple[int, int]]:
    """Yield the spans of the whole words of a text that a search looks for, in order."""
    if sought:
        yield from (match.span() for match in _WORD.finditer(text) if match[0].casefold() in sought)


_SEARCHED_FOR_A_LINE_END = 2_000


def window_of(text: str, number: int, size: int) -> tuple[int, int]:
    """Return the span of a part of a long text, counted from 0, ending with a line if possible."""
    return _edge(text, number * size), _edge(text, (number + 1) * size)


def _edge(text: str, position: int) -> int:
    if position <= 0 or position >= len(text):
        return max(0, min(position, len(text)))
    line_end = text.find("\n", position, position + _SEARCHED_FOR_A_LINE_END)
    return position if line_end < 0 else line_end + 1
