"""Detection of the records in a text: rows, items, blocks of values, elements, log entries.

A record is identified by its first line: a line whose beginning recurs, occurs before any other
recurring beginning, and is not indented further. A beginning is a tag, a mark, a number with its
point, a name before a colon, the pattern of a code or date, or otherwise a word. Words can recur by
chance, so they count only if they recur at regular distances.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from statistics import median
from typing import NamedTuple

Span = tuple[int, int]

LINE = re.compile(r"[^\n]*+(?:\n|$)")
_FIRST_WORD = re.compile(r"\s*+\S++")
# A quoted field of CSV: it begins after a delimiter, and ends before one.
QUOTED_FIELD = re.compile(r'"(?<![^,;\t|\n]")[^"]*+(?:""[^"]*+)*+"(?=[,;\t|\n]|\Z)')
_QUOTES = r"[\"'“„«‘*_`]"
_LEAD = re.compile(
    r"(?P<tag></?[\w:.-]++)"
    r"|(?P<number>[(\uff08]?(?:\d{1,4}+(?:\.\d{1,4}+)*+|[A-Za-z]|[ivxIVX]++|[一二三四五六七八九十百]++)"
    r"(?:[.)](?=\s|$)|[、\uff09]))"
    rf"|(?P<mark>\\\w++|(?!{_QUOTES}++\w)[^\w\s]++)?+[ \t]*+{_QUOTES}*+"
    r"(?:(?P<key>[^\W\d_][^:\uff1a=\n\t|,;<>{}\"*]{0,40}+)[\"*_`]{0,3}(?::(?=[\s\"'{\[]|$)|[=\uff1a])"
    r"|(?P<word>[^\W\d_]++(?=[\s.,;:!?)]|$))|(?P<token>\S*+))"
)
_NAME_END = re.compile(r"[:=\uff1a]")
_NAME_CHARACTERS = 46
"""A name with its quotation marks and its colon is shorter."""
_DIGITS = re.compile(r"\d++")
_LETTERS = re.compile(r"[^\W\d_]++")
_ROMAN = re.compile(r"[ivxIVX]++")
_QUANTITY = re.compile(r"\d++(?:[.,]\d{3})*+(?:[.,]\d++)?[%,;]?")
_REPEATED = re.compile(r"(.)\1{3,}")
_RULE = re.compile(r"\s*+([-=*_~#+])(?:[ \t]*+\1){2,}+\s*+")
_TAG = re.compile(r"<(/?)([\w:.-]++)[^<>]*+>")
_BRACKET = re.compile(r'"(?:[^"\\\n]|\\.)*+"?|[\[\]{}]')
_LONG_LINE_CHARACTERS = 200
_MAX_DEPTH = 100
# After a longer word, since the word before the point of an abbreviation is mostly short.
_SENTENCE_END = re.compile(
    r"[.!?。\uff01\uff1f](?:(?<=[^\W\d_]{4}[.!?])[\"')\]»”’]*+[ \t]++[^\W\d_]"
    r"|(?<=[。\uff01\uff1f])(?!\s*\n))"
)
_ENDS_OF_SENTENCES = (".", "!", "?", ":", ";", "。", "\uff01", "\uff1f")
_BROKEN_SHARE = 0.6
_LINES_BY_SENTENCE = 5
_MIN_PROSE_LINES = 2
_LEAST_RETURNS, _MIN_RETURNS_OF_WORDS = 2, 4
_UNIFORM_SHARE = 0.8
_ALIKE_SHARE = 0.9
_GAP_FACTOR = 8
_MAX_LINES_BETWEEN_NAMES = 50


# How reliably a recurring beginning marks a record, the most reliable first.
_MARK, _NAME, _WORDS_APART, _WORDS, _WORD, _INDENT = range(6)


class _Shape(NamedTuple):
    """The common features of the beginnings of lines."""

    indent: int
    kind: int
    name: str

    @property
    def is_weak(self) -> bool:
        """Return whether a recurrence may be chance, as for lines that begin with a word."""
        return self.kind >= _WORDS_APART


class TextLine(NamedTuple):
    """A non-blank line, or a part of a long one; `is_apart` if a blank line precedes it."""

    start: int
    is_apart: bool
    shapes: tuple[_Shape, ...]

    @property
    def following(self) -> tuple[_Shape | None, bool]:
        """Return the features that identify this line as the follower of another line."""
        shapes = [shape for shape in self.shapes if shape.kind != _WORDS_APART]
        return (shapes[0] if shapes else None), self.is_apart


class Division(NamedTuple):
    """The ends of the parts of a text, ascending, and whether the parts are paragraphs."""

    ends: Sequence[int]
    are_paragraphs: bool = False


class Outline:
    """The lines of a text, which are read once to divide the text and its parts."""

    def __init__(self, text: str) -> None:
        self._lines = list(_lines(text))
        self._starts = [line.start for line in self._lines]

    def count(self, start: int, end: int) -> int:
        """Return how many lines begin in a part; a paragraph of prose is one line."""
        return bisect_left(self._starts, end) - bisect_left(self._starts, start)

    def divide(self, start: int, end: int) -> Division:
        """Divide a part into its outermost records, otherwise into its paragraphs, or its lines."""
        lines = self._lines[bisect_left(self._starts, start) : bisect_left(self._starts, end)]
        if not lines:
            return Division([end])
        lines[0] = lines[0]._replace(is_apart=True)
        starts = _record_starts(lines)
        is_apart = not starts and any(line.is_apart for line in lines[1:])
        if not starts:
            starts = [line.start for line in lines if line.is_apart or not is_apart]
        first = lines[0].start
        return Division([*(start for start in starts if start > first), end], is_apart)


def divide(text: str) -> Division:
    """Divide a whole text as `Outline` does."""
    return Outline(text).divide(0, len(text))


# Which lines begin records


def _record_starts(lines: Sequence[TextLine]) -> list[int]:
    numbers = defaultdict(list)
    for number, line in enumerate(lines):
        for shape in line.shapes:
            numbers[shape].append(number)
    apart = list(accumulate((line.is_apart for line in lines), initial=0))
    chains = ((shape, _chain(lines, listed, shape)) for shape, listed in numbers.items())
    best = min(
        (
            (shape.indent, chain[0], shape.kind, chain)
            for shape, chain in chains
            if chain and not _are_within(lines, chain, apart)
        ),
        default=None,
    )
    return [lines[number].start for number in best[-1]] if best else []


def _chain(lines: Sequence[TextLine], numbers: Sequence[int], shape: _Shape) -> Sequence[int]:
    if len(numbers) < (_MIN_RETURNS_OF_WORDS if shape.is_weak else _LEAST_RETURNS):
        return ()
    if shape.kind == _NAME and _usual_gap(numbers) > _MAX_LINES_BETWEEN_NAMES:
        return ()
    if shape.is_weak:
        if len(numbers) > _UNIFORM_SHARE * (numbers[-1] - numbers[0] + 1):
            return ()
        follows = zip([-2, *numbers], numbers, strict=False)
        firsts = [at for last, at in follows if at != last + 1 or lines[at].is_apart]
        if shape.kind == _INDENT and len(firsts) < _ALIKE_SHARE * len(numbers):
            return ()
        numbers = _regular(firsts)
        if _are_mixed(lines, numbers):
            return ()
    return _alike(lines, numbers, shape)


def _usual_gap(numbers: Sequence[int]) -> float:
    return median(after - before for before, after in pairwise(numbers))


def _regular(numbers: Sequence[int]) -> Sequence[int]:
    if len(numbers) < _MIN_RETURNS_OF_WORDS:
        return ()
    usual = _usual_gap(numbers)
    runs = [[numbers[0]]]
    for before, after in pairwise(numbers):
        if after - before > _GAP_FACTOR * usual:
            runs.append([])
        runs[-1].append(after)
    run = max(runs, key=len)
    near = sum(usual <= 2 * (after - before) <= 4 * usual for before, after in pairwise(run))
    is_regular = near >= _ALIKE_SHARE * (len(run) - 1)
    return run if is_regular and len(run) >= _MIN_RETURNS_OF_WORDS else ()


def _alike(lines: Sequence[TextLine], numbers: Sequence[int], shape: _Shape) -> Sequence[int]:
    """Drop the leading lines whose following line differs from that of almost all others.

    They belong to the text before the list. If the following line of the last one differs as well,
    a word before a blank line ends a record instead of beginning one.
    """
    if len(numbers) < _MIN_RETURNS_OF_WORDS:
        return numbers
    following = [lines[at + 1].following if at + 1 < len(lines) else None for at in numbers]
    usual, count = Counter(following).most_common(1)[0]
    if count < _ALIKE_SHARE * len(numbers):
        return numbers
    if shape.is_weak and usual and usual[1] and following[-1] != usual:
        return ()
    return numbers[following.index(usual) :]


def _are_mixed(lines: Sequence[TextLine], numbers: Sequence[int]) -> bool:
    share = (len(numbers) - 1) * (1 - _UNIFORM_SHARE)
    adjacent = sum(after == before + 1 for before, after in pairwise(numbers))
    apart = sum(lines[at].is_apart for at in numbers)
    return adjacent > share or min(apart, len(numbers) - apart) > share


def _are_within(lines: Sequence[TextLine], numbers: Sequence[int], apart: Sequence[int]) -> bool:
    """`apart` holds for each line the number of paragraphs that begin before it."""
    if lines[numbers[0]].is_apart:
        return False
    between = sum(
        apart[end] > apart[at + 1] and not lines[at].is_apart for at, end in pairwise(numbers)
    )
    return between > _UNIFORM_SHARE * (len(numbers) - 1)


# Lines


def _lines(text: str) -> Iterator[TextLine]:
    for paragraph in _paragraphs(text):
        is_joined = is_prose(text, paragraph)
        for number, (start, end) in enumerate(paragraph):
            if number and is_joined and not _is_marked(text[start:end].strip()):
                continue
            is_underline = number == 1 and end - start >= start - paragraph[0][0]
            if not (is_underline and _RULE.fullmatch(text, start, end)):
                yield TextLine(start, not number, _shapes(text[start:end], is_apart=not number))
            if end - start > _LONG_LINE_CHARACTERS:
                yield from _nested(text, start, end)


def whole_lines(text: str) -> Iterator[Span]:
    """Yield the lines of a text; the lines of a quoted field are one line."""
    fields = (field.span() for field in QUOTED_FIELD.finditer(text) if "\n" in field[0])
    field = next(fields, None)
    start = end = 0
    for line in text.split("\n"):
        end = min(end + len(line) + 1, len(text))
        while field and field[1] <= end:
            field = next(fields, None)
        if not (field and field[0] < end):
            yield start, end
            start = end


def _paragraphs(text: str) -> Iterator[list[Span]]:
    """Yield the lines of each paragraph; the lines of a quoted field belong to its first line."""
    paragraph: list[Span] = []
    for start, end in whole_lines(text):
        line = text[start:end]
        if line and not line.isspace():
            paragraph.append((start, end))
        elif paragraph:
            yield paragraph
            paragraph = []
    if paragraph:
        yield paragraph


def is_prose(text: str, lines: Sequence[Span]) -> bool:
    """Return whether lines are wrapped at a fixed width, in the middle of sentences."""
    if len(lines) < _MIN_PROSE_LINES:
        return False
    parts = [text[start:end] for start, end in lines]
    width = max(map(len, parts))
    words = [_FIRST_WORD.match(part) for part in parts[1:]]
    broken = [
        len(part) + len(word[0]) > width for part, word in zip(parts, words, strict=False) if word
    ]
    if sum(broken) < _BROKEN_SHARE * len(words):
        return False
    ended = [part.rstrip().endswith(_ENDS_OF_SENTENCES) for part in parts[:-1]]
    if 2 * sum(ended) > len(words):
        return False
    inside = _SENTENCE_END.findall(text, lines[0][0], lines[-1][1])
    return len(inside) * _LINES_BY_SENTENCE >= len(lines)


def _nested(text: str, start: int, end: int) -> Iterator[TextLine]:
    first = text[start:end].lstrip()[:1]
    pattern = {"<": _TAG, "{": _BRACKET, "[": _BRACKET}.get(first)
    indent = _indent(text[start:end])
    open_: list[str] = []
    for match in pattern.finditer(text, start, end) if pattern else ():
        name, is_closing = (match[2], match[1]) if first == "<" else (match[0], match[0] in "]}")
        if is_closing:
            name = {"]": "[", "}": "{"}.get(name, name)
            while name in open_ and open_.pop() != name:
                pass
        elif name[0] != '"' and len(open_) < _MAX_DEPTH:
            if open_:
                beginning = text[match.start() : match.start() + _LONG_LINE_CHARACTERS]
                shapes = _shapes(beginning, indent + len(open_))
                yield TextLine(match.start(), is_apart=False, shapes=shapes)
            if not match[0].endswith("/>"):
                open_.append(name)


def _indent(line: str) -> int:
    blank = line[: len(line) - len(line.lstrip())]
    return blank.count(" ") + blank.count("\t") if blank else 0


def _is_marked(line: str) -> bool:
    if _plain_word(line):
        return False
    lead = _LEAD.match(line)
    is_mark = bool(lead and lead["mark"] and line[lead.end("mark") :][:1].isspace())
    return is_mark or bool(lead and (lead["tag"] or lead["number"] or lead["key"]))


def _plain_word(line: str) -> str:
    """Return the word with which a line begins, or an empty text if `_LEAD` may find more."""
    begin = line[:_NAME_CHARACTERS]
    word, _, _ = begin.partition(" ")
    is_plain = word.isalpha() and len(word) < _NAME_CHARACTERS and not _NAME_END.search(begin)
    return word if is_plain else ""


def _shapes(line: str, further_in: int = 0, *, is_apart: bool = False) -> tuple[_Shape, ...]:
    """Return the shapes of a line, the most specific first; none for a closing line."""
    indent, line = _indent(line) + further_in, line.strip()
    if word := _plain_word(line):
        ending = line[-1] if line.endswith(_ENDS_OF_SENTENCES) else ""
        return _shapes_of_word(indent, word, ending, is_apart=is_apart)
    lead = None if line.startswith(("}", "]", ")", "</")) else _LEAD.match(line)
    if lead is None:
        return ()
    word = lead["word"] or lead["token"] or ""
    if lead["tag"] or lead["number"]:
        first = _shape(indent, _MARK, _pattern(lead[0]))
    elif mark := lead["mark"]:
        if _RULE.fullmatch(line):
            return (_shape(-1, _MARK, ""),)
        sign = _REPEATED.sub(r"\1\1\1", mark) + ("" if word[:1].isalnum() else word[:1])
        kind = _NAME if lead["key"] else _MARK
        first = _shape(indent, kind, sign + _name(lead["key"] or ""))
    elif lead["key"]:
        first = _shape(indent, _NAME, _name(lead["key"]))
    elif word.isalpha() or _QUANTITY.fullmatch(word) or not _DIGITS.search(word):
        ending = line[-1] if line.endswith(_ENDS_OF_SENTENCES) else ""
        return _shapes_of_word(indent, word, ending, is_apart=is_apart)
    else:
        first = _shape(indent, _MARK, _LETTERS.sub("a", _DIGITS.sub("0", word)))
    return first, _shape(indent, _INDENT, "")


@lru_cache(maxsize=4_000)
def _shapes_of_word(indent: int, word: str, ending: str, *, is_apart: bool) -> tuple[_Shape, ...]:
    begins = "0" if word[:1].isdigit() else "a" if word[:1].islower() else "A"
    return (
        _shape(indent, _WORDS_APART, f"{begins}{ending}{is_apart}"),
        _shape(indent, _WORDS, "0" if begins == "0" else "a"),
        _Shape(indent, _WORD, word.casefold()),
        _shape(indent, _INDENT, ""),
    )


_shape = lru_cache(maxsize=1_000)(_Shape)


def _name(key: str) -> str:
    return _DIGITS.sub("0", key.strip().casefold())


def _pattern(name: str) -> str:
    """Return a tag unchanged, or the pattern of a number independent of its value."""
    if name[0] == "<":
        return name
    letters = _ROMAN.sub("i", name)
    return _DIGITS.sub("0", letters if letters != name else _LETTERS.sub("x", name))
