"""Splitting a text into chunks between records and sentences, within a budget of tokens."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias

import sentencex

from chordwise.domain import tokens
from chordwise.domain.outline import LINE, Division, Outline, Span, is_prose, outline_of

_WINDOW_CHARACTERS = 10_000
_OUTLINED_CHARACTERS = 1_000_000
_WORD = re.compile(r"\s*\S+\s*|\s+")
_UP_TO_SEMICOLON = re.compile(r"[^;]*+(?:;\s*+|\Z)")
_UP_TO_COMMA = re.compile(r"(?:[^,]|,(?!\s))*+(?:,\s++|\Z)")
_PARAGRAPHS_IN_CHUNK = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TextChunk:
    """A part of a text: characters `start_char` to `end_char`, the end exclusive."""

    position: int
    start_char: int
    end_char: int


def sentence_ends(text: str) -> list[int]:
    """Return the ends of the sentences with the white space after them, up to the end of the text.

    The text is read in windows: in a paragraph with unclosed quotation marks the time to find the
    ends would grow with the square of its length.
    """
    ends: list[int] = []
    start = 0
    while start < len(text):
        stop = _window_end(text, start, _WINDOW_CHARACTERS)
        bounds = sentencex.get_sentence_boundaries("en", text[start:stop])
        inside = {min(start + int(bound["end_index"]), stop) for bound in bounds}
        ends += sorted((inside | {stop}) - {start})
        start = stop
    return ends


Splitter: TypeAlias = Callable[[int, int], Division]
"""A function that divides the part of a text from a start to an end."""


def _by(pattern: re.Pattern[str]) -> Callable[[str, int, int], Division]:
    def split(text: str, start: int, end: int) -> Division:
        matches = pattern.finditer(text, start, end)
        return Division([match.end() for match in matches if match.group()])

    return split


def _sentences(text: str, start: int, end: int) -> Division:
    return Division([start + place for place in sentence_ends(text[start:end])])


def _lines(text: str, start: int, end: int) -> Division:
    lines = [match.span() for match in LINE.finditer(text, start, end) if match.group()]
    if is_prose(text, lines):
        return _sentences(text, start, end)
    return Division([place for _, place in lines])


_LEVELS = 6
"""How often a part of a text is divided further into its records, paragraphs or lines."""
_FINER = (_lines, _sentences, _by(_UP_TO_SEMICOLON), _by(_UP_TO_COMMA), _by(_WORD))


def _splitters(text: str, outline: Outline) -> Sequence[Splitter]:
    return [*[outline.divide] * _LEVELS, *(partial(splitter, text) for splitter in _FINER)]


def _window_end(text: str, start: int, size: int) -> int:
    """Return the end of a window: after a paragraph, a line, a full stop or a word, if possible."""
    end = start + size
    if end >= len(text):
        return len(text)
    for mark in ("\n\n", "\n", ". ", "; ", " "):
        place = text.rfind(mark, start + size // 2, end)
        if place > 0:
            return place + len(mark)
    return end


class RowSize(NamedTuple):
    """The tokens of a row in an answer beside its quote, and the limit of the answer."""

    tokens: float
    limit: int


class TextBudget(NamedTuple):
    """The maximum tokens of a chunk; with `rows`, its answer may have a row for each record."""

    max_tokens: int
    rows: RowSize | None = None


_TOKENS_BY_ROW, _TOKENS_OF_SENTENCE = 100, 30
"""Prose is assumed to have one row, which a sentence states, in so many tokens."""
Weigh: TypeAlias = Callable[[int, int], float]
"""A function that returns the tokens of a part of a text, more if it is dense with rows."""


def _weigher(text: str, outline: Outline, budget: TextBudget) -> Weigh:
    def weigh(start: int, end: int) -> float:
        weight = tokens.weigh(text[start:end])
        if budget.rows is None:
            return weight
        rows = max(outline.count(start, end), weight / _TOKENS_BY_ROW)
        answer = min(weight, rows * _TOKENS_OF_SENTENCE) + rows * budget.rows.tokens
        return max(weight, answer * budget.max_tokens / budget.rows.limit)

    return weigh


def split(text: str, max_tokens: int, rows: RowSize | None = None) -> list[TextChunk]:
    """Split a text into chunks within a budget (`TextBudget`, estimated), whose sum is the text.

    A text that does not fit one chunk is split into parts of similar size. No chunk consists of
    white space only: it belongs to the previous or next chunk, and is not counted at its ends.

    Raises:
        ValueError: `max_tokens` is not positive.
    """
    if max_tokens < 1:
        raise ValueError("max_tokens must be positive")
    if fits(text, max_tokens, rows):
        return [TextChunk(position=0, start_char=0, end_char=len(text))] if text else []
    pieces = _pieces_of_windows(text, TextBudget(max_tokens, rows))
    left = tokens.weigh(text) if rows is None else math.inf
    ends = _with_words(text, _pack(text, pieces, left, max_tokens))
    return [
        TextChunk(position=position, start_char=start, end_char=end)
        for position, (start, end) in enumerate(itertools.pairwise([0, *ends]))
    ]


def fits(text: str, max_tokens: int, rows: RowSize | None = None) -> bool:
    """Return whether `split` leaves a text whole; a long text is not read."""
    if tokens.min_weight(len(text)) > max_tokens or tokens.weigh(text) > max_tokens:
        return False
    budget = TextBudget(max_tokens, rows)
    return rows is None or _weigher(text, outline_of(text), budget)(0, len(text)) <= max_tokens


def halfway(text: str) -> int | None:
    """Return where to split a text in two: near its middle, after a paragraph or a record.

    Otherwise after a line, a sentence, a clause or a word, with at least a quarter on each side;
    `None` if a part would be white space only.
    """
    last = len(text.rstrip())
    first = len(text) - len(text.lstrip())
    middle, quarter = (first + last) // 2, (last - first) // 4
    parts = [len(text)]
    for splitter in _splitters(text, outline_of(text)):
        parts = [
            end
            for start, stop in itertools.pairwise([0, *parts])
            for end in splitter(start, stop).ends
        ]
        inside = [place for place in parts if first + quarter < place < last - quarter]
        if inside:
            return min(inside, key=lambda place: abs(place - middle))
    return middle if first < middle < last else None


def _with_words(text: str, ends: Sequence[int]) -> list[int]:
    kept: list[int] = []
    start = 0
    for end in ends:
        if not text[start:end].isspace():
            kept.append(end)
        elif kept:
            kept[-1] = end
        start = end
    return kept or [len(text)]


def _pieces_of_windows(text: str, budget: TextBudget) -> Iterator[tuple[int, float]]:
    """Yield the ends of the pieces of a text, which is outlined in windows to bound the memory."""
    start = 0
    while start < len(text):
        stop = _window_end(text, start, _OUTLINED_CHARACTERS)
        window = text[start:stop]
        outline, length = outline_of(window), len(window)
        splitters, weigh = _splitters(window, outline), _weigher(window, outline, budget)
        if stop < len(text):
            ends = splitters[0](0, length).ends
            length = next((end for end in reversed(ends) if 2 * end > length > end), length)
        for end, weight in _pieces((0, length), budget.max_tokens, splitters, weigh):
            yield start + end, weight
        start += length


def _pieces(
    part: Span, max_tokens: int, splitters: Sequence[Splitter], weigh: Weigh
) -> Iterator[tuple[int, float]]:
    """Yield the ends and weights of the largest pieces that fit; a small paragraph stays whole."""
    splitter, *finer = splitters
    ends, are_paragraphs = splitter(*part)
    limit = max_tokens / _PARAGRAPHS_IN_CHUNK if are_paragraphs else max_tokens
    if len(ends) <= 1:
        finer = [other for other in finer if other is not splitter]
    start = part[0]
    for end in ends:
        weight = weigh(start, end)
        if weight <= limit:
            yield end, weight
        elif finer:
            yield from _pieces((start, end), max_tokens, finer, weigh)
        else:
            width = max(1, max_tokens // 4)
            for piece in range(start, end, width):
                piece_end = min(piece + width, end)
                yield piece_end, weigh(piece, piece_end)
        start = end


def _pack(
    text: str, pieces: Iterator[tuple[int, float]], left: float, max_tokens: int
) -> list[int]:
    """Join pieces to chunks; the target is a share of `left`, so that the last one is not short."""
    target = _share(left, max_tokens)
    ends: list[int] = []
    filled = 0.0
    last_end = 0
    for end, weight in pieces:
        if filled and (filled + weight > max_tokens or filled + weight / 2 > target):
            ends.append(last_end)
            left -= filled
            target = _share(left, max_tokens)
            filled = 0.0
        filled += weight
        last_end = end
    return [*ends, len(text)]


def _share(left: float, max_tokens: int) -> float:
    return left / max(1, math.ceil(left / max_tokens)) if left < math.inf else max_tokens
