"""Cutting a document's text into chunks between records and sentences, within a budget."""

from __future__ import annotations

import itertools
import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import sentencex

from chordwise.domain import tokens

_WINDOW_CHARACTERS = 10_000
_LINE = re.compile(r"[^\n]*+(?:\n|$)")
# An item of a list, a line of a table with tabs or bars, or a name with its value.
_ROW = re.compile(
    r"\s*+(?:[-*•–]\s|\(?\w{1,3}[.)]\s)|[^\t\n]*+\t|[^|\n]*+\|[^|\n]*+\||[^:\n]{1,40}+:\s+\S"
)
_DELIMITERS = ",;"
_FEWEST_DELIMITERS = 2
_WORD = re.compile(r"\s*\S+\s*|\s+")
_PARAGRAPH = re.compile(r"(?:(?![ \t]*+\n)[^\n]++\n?)*+(?:(?:[ \t]*+\n)++|\Z)")
_UP_TO_SEMICOLON = re.compile(r"[^;]*+(?:;\s*+|\Z)")
_UP_TO_COMMA = re.compile(r"(?:[^,]|,(?!\s))*+(?:,\s++|\Z)")
_KEY = re.compile(r"([^:\n]{1,40}+):(?=\s)")
_FIRST_WORD = re.compile(r"\s*+\S++")
_BROKEN_SHARE = 0.6
_ITEM_MARKS = ("- ", "* ", "• ", "– ")
_LINES_BY_SENTENCE = 5
_FEWEST_LINES = 2
_PARAGRAPHS_IN_CHUNK = 4
_QUOTED = re.compile(r'"[^"\n]*+"|\\\|')
_HEADER_RULE = re.compile(r"^[ \t]*+\|?[ \t]*+:?-+:?[ \t]*+(?:\|[-: \t|]*+)?$")
_WITHOUT_MARK = {mark: re.compile(rf"^[^{re.escape(mark)}\n]*+\n", re.MULTILINE) for mark in "|\t"}
_MAX_HEADER_CHARACTERS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A part of a text: characters `start_char` to `end_char`, the end exclusive."""

    position: int
    start_char: int
    end_char: int


def sentence_ends(text: str) -> list[int]:
    """Return where sentences end, ascending, the last one at the end of the text.

    White space after a sentence belongs to it, so the ends cut the text without gaps. The text is
    read window by window: in a paragraph with unclosed quotation marks the time to find the ends
    would grow with the square of its length.
    """
    ends: list[int] = []
    start = 0
    while start < len(text):
        stop = _window_end(text, start)
        ends += [start + end for end in _ends_in(text[start:stop])]
        start = stop
    return ends


def _sentence_and_row_ends(text: str) -> list[int]:
    """Return where sentences end outside of rows, and where rows do."""
    rows = list(_rows(text))
    starts = [start for start, _ in rows]

    def is_in_row(end: int) -> bool:
        place = bisect_left(starts, end) - 1
        return place >= 0 and end < rows[place][1]

    outside = (end for end in sentence_ends(text) if not is_in_row(end))
    return sorted({*outside, *(end for _, end in rows)})


Splitter: TypeAlias = Callable[[str], Iterable[int]]
"""Returns where a text may be cut: places that ascend to its end."""


def _by(pattern: re.Pattern[str]) -> Splitter:
    def ends(text: str) -> Iterable[int]:
        return (match.end() for match in pattern.finditer(text) if match.group())

    return ends


def _records(text: str) -> Sequence[int]:
    """Return where the records of a paragraph end: its sentences, lines, or groups of lines.

    A name with its value goes with those below it until the first name that is repeated comes
    again. An indented line goes with the one above it, and so do items of a list. An answer about
    half of a record would be wrong, or missing.
    """
    lines = [match.span() for match in _LINE.finditer(text) if match.group()]
    if len(lines) < _FEWEST_LINES or _is_prose(text, lines):
        return _sentence_and_row_ends(text)
    keys = [_key(text, *line) for line in lines]
    times = Counter(key for key in keys if key)
    first = next((key for key in keys if key and times[key] > 1), None)
    if first is not None:
        starts = [start for (start, _), key in zip(lines, keys, strict=True) if key == first]
    else:
        is_record = 2 * len(times) >= len(lines)
        starts = [] if is_record else _starts_of_rows(text, lines)
    return [*(start for start in starts if start), len(text)]


def _starts_of_rows(text: str, lines: Sequence[tuple[int, int]]) -> list[int]:
    """Return where lines begin that go on with no other: not indented, nor broken by the width."""
    indents = [_indent(text, *line) for line in lines]
    least = min(indents)
    goes_on = [False, *_are_broken(text, lines)]
    return [
        start
        for (start, _), indent, is_rest in zip(lines, indents, goes_on, strict=True)
        if indent == least and not (is_rest and text[start].islower())
    ]


def _key(text: str, start: int, end: int) -> str:
    match = _KEY.match(text[start:end].lstrip())
    return match.group(1).strip().casefold() if match else ""


def _indent(text: str, start: int, end: int) -> int:
    """Return how far a line is indented, in half blanks: the mark of a list's item is one."""
    line = text[start:end]
    own = line.lstrip()
    return 2 * (len(line) - len(own)) + own.startswith(_ITEM_MARKS) if own else 0


def _is_prose(text: str, lines: Sequence[tuple[int, int]]) -> bool:
    """Tell whether lines are broken by their width, in the middle of sentences."""
    broken = _are_broken(text, lines)
    if sum(broken) < _BROKEN_SHARE * len(broken):
        return False
    ends = {end for _, end in lines}
    inside = sum(end not in ends for end in sentence_ends(text))
    return inside * _LINES_BY_SENTENCE >= len(lines)


def _are_broken(text: str, lines: Sequence[tuple[int, int]]) -> list[bool]:
    """Tell of each line but the last whether the next word would have been too much for it."""
    width = max(end - start for start, end in lines)
    words = [_FIRST_WORD.match(text, *line) for line in lines[1:]]
    return [
        word is not None and end - start + len(word.group()) > width
        for (start, end), word in zip(lines, words, strict=False)
    ]


_paragraphs, _lines, _words = _by(_PARAGRAPH), _by(_LINE), _by(_WORD)
_SPLITTERS: tuple[Splitter, ...] = (
    _paragraphs,
    _records,
    _lines,
    sentence_ends,
    _by(_UP_TO_SEMICOLON),
    _by(_UP_TO_COMMA),
    _words,
)


def _rows(text: str) -> Iterator[tuple[int, int]]:
    """Yield where rows begin and end, the end of the line included."""
    lines = [match.span() for match in _LINE.finditer(text) if match.end() > match.start()]
    counts = [tuple(text.count(mark, *line) for mark in _DELIMITERS) for line in lines]
    for place, (start, end) in enumerate(lines):
        beside = counts[max(0, place - 1) : place] + counts[place + 1 : place + 2]
        is_record = max(counts[place]) >= _FEWEST_DELIMITERS and counts[place] in beside
        if is_record or _ROW.match(text, start, end):
            yield start, end


def table_header(text: str, place: int) -> tuple[int, int] | None:
    """Return where the table begins that goes on at `place`: its first line, with the rule below.

    Tables are lines with bars or tabs, and records of CSV, without a blank line between them. It is
    `None` where no table goes on, and where its first line is too long to be repeated.
    """
    if not place or text[place - 1] != "\n":
        return None
    line, before = _line_at(text, place), _line_at(text, text.rfind("\n", 0, place - 1) + 1)
    mark = _mark_of(line)
    if not mark or not _count(before, mark):
        return None
    start = text.rfind("\n\n", 0, place) + 1
    if mark in _WITHOUT_MARK:
        start = max([start, *(m.end() for m in _WITHOUT_MARK[mark].finditer(text, start, place))])
    elif _count(before, mark) != _count(line, mark):
        return None
    first = _first_line(text, start, place, mark)
    return first if first and first[1] - first[0] <= _MAX_HEADER_CHARACTERS else None


def _first_line(text: str, start: int, end: int, mark: str) -> tuple[int, int] | None:
    """Return the first line with as many marks as the one at `end`, and the rule that follows."""
    wanted = _count(_line_at(text, end), mark)
    for match in _LINE.finditer(text, start, end):
        first, last = match.start(), match.start() + len(match.group().rstrip())
        following = match.end()
        if mark == "|" and _HEADER_RULE.match(_line_at(text, following)):
            return first, following + len(_line_at(text, following).rstrip())
        if _count(match.group(), mark) == wanted:
            return first, last
    return None


def _line_at(text: str, start: int) -> str:
    end = text.find("\n", start)
    return text[start : end if end >= 0 else len(text)]


def _mark_of(line: str) -> str:
    """Return what parts the cells of a row; empty where the line is none."""
    if "|" in line or "\t" in line:
        return "|" if "|" in line else "\t"
    mark = max(_DELIMITERS, key=lambda each: _count(line, each))
    is_pair = mark in line and f"{mark} " not in line
    return mark if is_pair or _count(line, mark) >= _FEWEST_DELIMITERS else ""


def _count(line: str, mark: str) -> int:
    return _QUOTED.sub("", line).count(mark)


def _ends_in(window: str) -> list[int]:
    found = {
        int(boundary["end_index"]) for boundary in sentencex.get_sentence_boundaries("en", window)
    }
    return sorted(end for end in found | {len(window)} if 0 < end <= len(window))


def _window_end(text: str, start: int) -> int:
    """Return where a window ends: after a paragraph, a line, a full stop or a word, if any."""
    end = start + _WINDOW_CHARACTERS
    if end >= len(text):
        return len(text)
    for mark in ("\n\n", "\n", ". ", "; ", " "):
        place = text.rfind(mark, start + _WINDOW_CHARACTERS // 2, end)
        if place > 0:
            return place + len(mark)
    return end


def split(text: str, max_tokens: int) -> list[Chunk]:
    """Cut a text into chunks of at most `max_tokens` (estimated) each.

    Joined in order, the chunks give the text back. A text that fits stays whole; the others are
    cut into parts of similar size, so that no short remainder is asked about on its own. A chunk of
    white space only is none: its characters belong to the one before, or after it, and do not count
    against its tokens where they stand at its ends.

    Raises:
        ValueError: `max_tokens` is not positive.
    """
    if max_tokens < 1:
        raise ValueError("max_tokens must be positive")
    if fits(text, max_tokens):
        return [Chunk(position=0, start_char=0, end_char=len(text))] if text else []
    pieces = _pieces(text, max_tokens)
    ends = _with_words(text, _pack(text, pieces, tokens.weigh(text), max_tokens))
    return [
        Chunk(position=position, start_char=start, end_char=end)
        for position, (start, end) in enumerate(itertools.pairwise([0, *ends]))
    ]


def fits(text: str, max_tokens: int) -> bool:
    """Tell whether `split` leaves a text whole; of a long one nothing is read."""
    return tokens.least(len(text)) <= max_tokens and tokens.weigh(text) <= max_tokens


def halfway(text: str) -> int | None:
    """Return where to cut a text in two: near its middle, after a paragraph, or a record.

    Where there is none, it is after a line, a sentence, a clause or a word. Either part has a
    quarter of the text at least; `None` where one would be white space only.
    """
    last = len(text.rstrip())
    first = len(text) - len(text.lstrip())
    middle, quarter = (first + last) // 2, (last - first) // 4
    parts = [len(text)]
    for splitter in _SPLITTERS:
        parts = [
            start + end
            for start, stop in itertools.pairwise([0, *parts])
            for end in splitter(text[start:stop])
        ]
        inside = [place for place in parts if first + quarter < place < last - quarter]
        if inside:
            return min(inside, key=lambda place: abs(place - middle))
    return middle if first < middle < last else None


def _with_words(text: str, ends: Sequence[int]) -> list[int]:
    """Leave out the ends that would part white space from the words before, or after it."""
    kept: list[int] = []
    start = 0
    for end in ends:
        if not text[start:end].isspace():
            kept.append(end)
        elif kept:
            kept[-1] = end
        start = end
    return kept or [len(text)]


def _pieces(
    text: str, max_tokens: int, splitters: Sequence[Splitter] = _SPLITTERS
) -> Iterator[tuple[int, float]]:
    """Yield the ends of pieces with their weights, in order: the largest that fit.

    A paragraph stays whole only where it is small, so that chunks become of similar size.
    """
    splitter, *finer = splitters
    limit = max_tokens / _PARAGRAPHS_IN_CHUNK if splitter is _paragraphs else max_tokens
    start = 0
    for end in splitter(text):
        piece = text[start:end]
        weight = tokens.weigh(piece)
        if weight <= limit:
            yield end, weight
        elif finer:
            for inner, inner_weight in _pieces(piece, max_tokens, finer):
                yield start + inner, inner_weight
        else:
            yield from _cut_word(text, start, end, max_tokens)
        start = end


def _cut_word(text: str, start: int, end: int, max_tokens: int) -> Iterator[tuple[int, float]]:
    width = max(1, max_tokens // 4)
    for piece in range(start, end, width):
        piece_end = min(piece + width, end)
        yield piece_end, tokens.weigh(text[piece:piece_end])


def _pack(
    text: str, pieces: Iterator[tuple[int, float]], left: float, max_tokens: int
) -> list[int]:
    """Join pieces into chunks that never exceed the budget; return their ends.

    Each chunk aims at an equal share of the weight that is `left`: a fixed aim that is missed by a
    little again and again would leave a short remainder.
    """
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
    return left / max(1, math.ceil(left / max_tokens))
