"""Splitting a text into chunks between records and sentences, within a budget of tokens."""

from __future__ import annotations

import itertools
import math
import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple, TypeAlias

import sentencex

from chordwise.domain import tokens
from chordwise.domain.records import LINE, QUOTED_FIELD, Division, Outline, Span, is_prose

_WINDOW_CHARACTERS = 10_000
_OUTLINED_CHARACTERS = 1_000_000
_DELIMITERS = ",;"
_FEWEST_DELIMITERS = 2
_WORD = re.compile(r"\s*\S+\s*|\s+")
_UP_TO_SEMICOLON = re.compile(r"[^;]*+(?:;\s*+|\Z)")
_UP_TO_COMMA = re.compile(r"(?:[^,]|,(?!\s))*+(?:,\s++|\Z)")
_PARAGRAPHS_IN_CHUNK = 4
_QUOTED = re.compile(r'"[^"]*+"|\\\|')
_GAP = "  "
_COLUMN_GAP = re.compile(r"(?<=[^\s.!?]) {2,}+(?=\S)")
_TABLE_RULE = re.compile(r"(?=[^\n]*?[-=]{2})[-=+|: \t]++$", re.MULTILINE)
_WITHOUT_MARK = {
    mark: re.compile(rf"^(?![ \t]*+[-+=]{{2}})[^{re.escape(mark)}\n]*+\n", re.MULTILINE)
    for mark in "|\t"
}
_BLANK_LINE = re.compile(r"(?<=\n)\n")
_MAX_LINES_ABOVE_TABLE = 50
_MAX_HEADER_CHARACTERS, _MAX_ROW_CHARACTERS = 1_000, 100_000
_LONG_CHARACTERS, _KEPT_RESULTS = 200_000, 4


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
        ends += [start + end for end in _ends_in(text[start:stop])]
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


def table_header(text: str, place: int) -> Span | None:
    """Return the span of the header of the table that continues at `place`, including its rules.

    `None` if no table continues, or if its first row is too long to be repeated.
    """
    if not place or text[place - 1] != "\n":
        return None
    rule = _TABLE_RULE.match(text, place)
    row = _record_at(text, rule.end() + 1 if rule else place)
    before = _record_before(text, place)
    mark = _mark_of(row)
    if not mark or (mark != _GAP and not _count(before, mark) and not _TABLE_RULE.match(before)):
        return None
    start = _last(_starts_behind(text, _BLANK_LINE), place)
    if mark in _WITHOUT_MARK:
        start = max(start, _last(_starts_behind(text, _WITHOUT_MARK[mark]), place))
    elif mark in _DELIMITERS and _count(before, mark) != _count(row, mark):
        return None
    header = _first_row(text, (start, place), mark, _count(row, mark))
    return header if header and header[1] - header[0] <= _MAX_HEADER_CHARACTERS else None


def _first_row(text: str, table: Span, mark: str, mark_count: int) -> Span | None:
    """Return the first line with `mark_count` marks, and the rules above and below it."""
    top: int | None = None
    place, end = table
    for _ in range(_MAX_LINES_ABOVE_TABLE):
        line = _record_at(text, place)
        after = place + len(line) + 1
        if after > end:
            return None
        is_rule = bool(_TABLE_RULE.match(line))
        has_rule = bool(_TABLE_RULE.match(text, after)) and after < end
        count = _count(line, mark)
        is_row = count == mark_count or (mark == _GAP and count > 0 and mark_count <= count + 1)
        if is_rule and top is not None:
            return top, place + len(line)
        if is_rule:
            top = place
        elif has_rule and mark not in _DELIMITERS:
            last = len(_record_at(text, after).rstrip())
            return place if top is None else top, after + last
        elif is_row and top is None:
            return place, place + len(line.rstrip())
        place = after
    return None


def _record_at(text: str, start: int) -> str:
    """Return the line that begins at a place, including the further lines of its quoted fields."""
    end = _line_end(text, start)
    for field in QUOTED_FIELD.finditer(text, start) if '"' in text[start:end] else ():
        if not field.start() < end <= start + _MAX_ROW_CHARACTERS:
            break
        end = _line_end(text, max(end, field.end()))
    return text[start:end]


Pattern: TypeAlias = re.Pattern[str]


def _cached(
    find: Callable[[str, Pattern], Sequence[int]],
) -> Callable[[str, Pattern], Sequence[int]]:
    """Cache the results for the last long texts; each chunk of a text needs the same one."""
    kept = lru_cache(maxsize=_KEPT_RESULTS)(find)
    return lambda text, pattern: (kept if len(text) > _LONG_CHARACTERS else find)(text, pattern)


@_cached
def _edges_of_fields(text: str, pattern: Pattern) -> Sequence[int]:
    """Return the starts and ends, in turns, of the quoted fields that span several lines."""
    edges = array("I")
    for field in pattern.finditer(text) if '"' in text else ():
        if "\n" in field[0]:
            edges.extend(field.span())
    return edges


@_cached
def _starts_behind(text: str, pattern: Pattern) -> Sequence[int]:
    edges = _edges_of_fields(text, QUOTED_FIELD)
    return array(
        "I",
        (match.end() for match in pattern.finditer(text) if not _is_between(edges, match.start())),
    )


def _is_between(edges: Sequence[int], place: int) -> bool:
    before = bisect_left(edges, place)
    return before % 2 == 1 and edges[before] != place


def _last(starts: Sequence[int], place: int) -> int:
    count = bisect_right(starts, place)
    return starts[count - 1] if count else 0


def _line_end(text: str, place: int) -> int:
    end = text.find("\n", place)
    return end if end >= 0 else len(text)


def _record_before(text: str, place: int) -> str:
    """Return the line that ends at a place; empty if it is too long for a row."""
    edges = _edges_of_fields(text, QUOTED_FIELD)
    start = text.rfind("\n", 0, place - 1) + 1
    while _is_between(edges, start) and place - start <= _MAX_ROW_CHARACTERS:
        start = text.rfind("\n", 0, edges[bisect_left(edges, start) - 1]) + 1
    return text[start:place] if place - start <= _MAX_ROW_CHARACTERS else ""


def _mark_of(line: str) -> str:
    if line.lstrip().startswith(("{", "[", "(", "<")):
        return ""
    if "|" in line or "\t" in line:
        return "|" if "|" in line else "\t"
    mark = max(_DELIMITERS, key=lambda delimiter: _count(line, delimiter))
    if mark in line and f"{mark} " not in line:
        return mark
    if _count(line, _GAP):
        return _GAP
    return mark if _count(line, mark) >= _FEWEST_DELIMITERS else ""


def _count(line: str, mark: str) -> int:
    if mark == _GAP:
        return len(_COLUMN_GAP.findall(line))
    return _QUOTED.sub("", line).count(mark)


def _ends_in(window: str) -> list[int]:
    ends = {
        int(boundary["end_index"]) for boundary in sentencex.get_sentence_boundaries("en", window)
    }
    return sorted(end for end in ends | {len(window)} if 0 < end <= len(window))


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
    return rows is None or _weigher(text, Outline(text), budget)(0, len(text)) <= max_tokens


def halfway(text: str) -> int | None:
    """Return where to split a text in two: near its middle, after a paragraph or a record.

    Otherwise after a line, a sentence, a clause or a word, with at least a quarter on each side;
    `None` if a part would be white space only.
    """
    last = len(text.rstrip())
    first = len(text) - len(text.lstrip())
    middle, quarter = (first + last) // 2, (last - first) // 4
    parts = [len(text)]
    for splitter in _splitters(text, Outline(text)):
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
        outline = Outline(window)
        splitters = _splitters(window, outline)
        weigh = _weigher(window, outline, budget)
        length = len(window)
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
    """Join pieces into chunks within the budget; return their ends.

    The target is a share of `left`, so that the last chunk is not short.
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
    return left / max(1, math.ceil(left / max_tokens)) if left < math.inf else max_tokens
