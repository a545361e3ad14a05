"""The outline of a text: paragraphs, headings, tables, list items, named values and records.

A text is divided into records for chunks, and into entries that are compared with rows. A record is
identified by its first line: a line whose beginning recurs, occurs before any other recurring
beginning, and is not indented further. A beginning is a tag, a mark, a number with its point, a
name before a colon, the pattern of a code or date, or otherwise a word. Words can recur by chance,
so they count only if they recur at regular distances.
"""

from __future__ import annotations

import csv
import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from enum import IntEnum
from functools import cached_property, lru_cache
from itertools import accumulate, islice, pairwise, takewhile
from operator import itemgetter
from statistics import median
from typing import NamedTuple

from chordwise.domain import words

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
_COLUMN_GAP = re.compile(r"(?<=[^\s.!?:]) {2,}+(?=\S)")
_QUOTED = re.compile(r'"[^"]*+"|\\\|')
_BORDER = re.compile(r"(?<!\\)\|")
_TABLE_RULE = re.compile(r"(?=[^\n]*?[-=]{2})[-=+|: \t]++$", re.MULTILINE)
_ITEM_WITH_TAB = re.compile(r"^\s*(?:[^\w\s|]|\(?\w{1,3}[.)])\t")
_MARKS_OF_COLUMNS = ("|", "\t")
_OPENING = ("{", "[", "(", "<")
DELIMITER = re.compile(r"[,;](?!\d{3}(?!\d))")
_GAP = "  "
_FEWEST_SPACED_COMMAS = 2
_FEWEST_COLUMNS = 3
_LONGEST_CELL, _LONGEST_NAME = 100, 50
_MAX_HEADER_CHARACTERS, _LINES_OF_HEADER = 1_000, 6
_KEPT_TEXTS, _KEPT_CHARACTERS = 4, 200_000
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
    def is_weak(self) -> bool:  # a recurrence may be chance, as for lines that begin with a word
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


NAMES = "names"
"""The form of entries that consist of a few words without numbers or separators."""


class EntryKind(IntEnum):
    """What marks an entry: columns, a mark or number, a name before a value, or only its words."""

    ROW = 1
    ITEM = 2
    NAMED = 3
    WORDS = 4


class Form(NamedTuple):
    """What the entries of a list have in common: kind and columns, mark, name or pattern."""

    kind: EntryKind
    name: str


class OutlineEntry(NamedTuple):
    """A line of a text that is not prose, or an element or object on a long line.

    `line` and `paragraph` are the numbers of its line and its paragraph, from 0. `label` is the
    name before a value, in lower case; `form` contains it, unless it occurs once before a number.
    """

    start: int
    end: int
    line: int
    paragraph: int
    form: Form
    label: str = ""


class Outline:
    """The lines of a text, which are read once to divide the text and to find its entries."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def _lines(self) -> list[TextLine]:
        return list(_lines(self.text))

    @cached_property
    def _starts(self) -> list[int]:
        return [line.start for line in self._lines]

    @cached_property
    def entries(self) -> list[OutlineEntry]:
        """The entries of the text, in order."""
        entries = list(_entries(self.text))
        numbers = Counter(entry.label for entry in entries)
        return [
            entry._replace(form=self._form_of_value(entry)) if numbers[entry.label] == 1 else entry
            for entry in entries
        ]

    def _form_of_value(self, entry: OutlineEntry) -> Form:
        """Return the form of an entry by its number, if it has a name that occurs only once."""
        value = without_label(self.text[entry.start : entry.end].strip())
        has_number = entry.label and NUMBER.search(value)
        return Form(EntryKind.WORDS, f": {division(value)}") if has_number else entry.form

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


def outline_of(text: str) -> Outline:
    """Return the outline of a text; those of the last few texts of usual size are kept."""
    return _kept_outline(text) if len(text) <= _KEPT_CHARACTERS else Outline(text)


_kept_outline = lru_cache(maxsize=_KEPT_TEXTS)(Outline)


# Which lines begin records


def _record_starts(lines: Sequence[TextLine]) -> list[int]:
    numbers = defaultdict(list)
    for number, line in enumerate(lines):
        for shape in line.shapes:
            numbers[shape].append(number)
    apart = list(accumulate((line.is_apart for line in lines), initial=0))
    chains = ((shape, _chain(lines, listed, shape)) for shape, listed in numbers.items())
    ranked = (
        (shape.indent, chain[0], shape.kind, chain)
        for shape, chain in chains
        if chain and not _are_within(lines, chain, apart)
    )
    return [lines[number].start for number in min(ranked, default=((),))[-1]]


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
    fields = QUOTED_FIELD.finditer(text) if '"' in text else iter(())
    field = next(fields, None)
    start = end = 0
    while end < len(text):
        end = text.find("\n", end) + 1 or len(text)
        while field and field.end() <= end:
            field = next(fields, None)
        if not (field and field.start() < end):
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


# Entries

_KEY = re.compile(r"([^:\uff1a,;|\t\n]{1,40}+)(?:\uff1a|:(?=[*_]{0,3}+\s))")
_QUOTED_ITEM = re.compile(r'"[^"\n]*+",?')
_ELEMENT = re.compile(r"(?<=[]}>\[]),? *+(?=[{<])")
NUMBER = re.compile(r"\d[\d.,]*+")
"""A number in an entry, with the signs in it."""
_PHRASE = re.compile(r"[^\W\d_][\w'’-]*+(?: ++[^\W\d_][\w'’-]*+)*+")
_REPEATED_MARK = re.compile(r"([^\w\s])\1++")
_SEPARATOR = re.compile(r"[a0 .\[\]]*+([^\w\s.?!'’]++)\s*+(?=[a0(\"*_])")
_DASH = re.compile(r"[–—=→:]")
_AMOUNT = re.compile(r"[-+($€£¥−]{0,3}+\d[\d.,]*+[)%€£¥]{0,3}+")
_LEADERS = re.compile(r"(?<![. ]) ?(?:\. ?){4,}+(?=\S)")
_LABEL_MARKS = " \t*_\"'“„«("
_MAX_WORDS_OF_NAME, _FEWEST_AMOUNTS = 5, 2


def _entries(text: str) -> Iterator[OutlineEntry]:
    number = last = 0
    for at, paragraph in enumerate(_paragraphs(text)):
        is_joined = is_prose(text, paragraph)
        for start, end in paragraph:
            number += text.count("\n", last, start)
            last = start
            for part_start, part_end in _parts(text, start, end):
                form, label = _form(text[part_start:part_end])
                if form and not (is_joined and form.kind is EntryKind.WORDS):
                    yield OutlineEntry(part_start, part_end, number, at, form, label)


def _parts(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield a line, or the elements and objects on a long one."""
    is_long = end - start > _LONG_LINE_CHARACTERS and text[start:end].lstrip()[0] in "<{["
    cuts = (cut.end() for cut in _ELEMENT.finditer(text, start, end) if is_long)
    yield from pairwise([start, *cuts, end])


def _form(line: str) -> tuple[Form | None, str]:
    """Return the form of an entry, and the name before its value; no form for prose."""
    content = line.strip()
    if content.startswith(("}", "]", ")", "</")) or not any(map(str.isalnum, content)):
        return None, ""
    if separator_of_columns(content)[0] in _MARKS_OF_COLUMNS:
        return Form(EntryKind.ROW, _columns_of(content)), ""
    if mark := item_mark(content):
        pattern = _pattern(mark) if mark[-1] in ".)、\uff09" else mark
        return Form(EntryKind.ITEM, f"{_indent(line)} {pattern}"), ""
    if key := _KEY.match(content):
        label = key[1].strip(_LABEL_MARKS).casefold()
        if _DIGITS.search(label):
            return Form(EntryKind.WORDS, ":"), ""
        return Form(EntryKind.NAMED, label), label
    if columns := _columns_of(content):
        return Form(EntryKind.ROW, columns), ""
    words = _words_of(content)
    return (Form(EntryKind.WORDS, words) if words else None), ""


def _columns_of(content: str) -> str:
    """Return what separates the columns of a row and how often; empty if it is no row."""
    has_number = NUMBER.search(content) is not None
    mark, count = separator_of_columns(content)
    if mark:
        return f"{mark} {count} {has_number}"
    words = reversed(content.split())
    amounts = sum(1 for _ in takewhile(_AMOUNT.fullmatch, words))
    return f"amounts {amounts}" if amounts >= _FEWEST_AMOUNTS else ""


def item_mark(content: str) -> str:
    """Return the mark, number or tag with which an entry begins; empty without one.

    The mark of an object in JSON includes the name of its first member.
    """
    lead = None if _plain_word(content) else _LEAD.match(content)
    if lead is None or _QUOTED_ITEM.fullmatch(content):
        return lead[0][:1] if lead else ""
    mark = lead["mark"] or ""
    if mark[:1] in ("{", "["):
        return f"{mark}{lead['key'] or ''}"
    is_apart = bool(mark) and content[lead.end("mark") :][:1].isspace()
    return lead["tag"] or lead["number"] or (mark if is_apart else "")


def _words_of(content: str) -> str:
    """Return the separator, the words and numbers in order, or `NAMES`; sentences need a number."""
    is_entry, has_number = is_short(content), NUMBER.search(content) is not None
    separator = field_separator(content) if len(content) <= _LONGEST_CELL else ""
    if separator and (is_entry or _DASH.fullmatch(separator)):
        return separator
    if has_number and len(content) <= _LONGEST_CELL:
        return division(content)
    is_name = len(content.split()) <= _MAX_WORDS_OF_NAME and len(content) <= _LONGEST_NAME
    return NAMES if is_entry and is_name else ""


def division(content: str) -> str:
    """Return the sequence of words (a), numbers (0) and marks in a text."""
    return _REPEATED_MARK.sub(r"\1", NUMBER.sub("0", _PHRASE.sub("a", content)))


def field_separator(content: str) -> str:
    """Return what separates the first two fields of an entry; empty if it has one field."""
    separator = _SEPARATOR.match(division(content))
    return separator[1] if separator else ""


def is_short(content: str) -> bool:
    """Return whether an entry is short, and neither a sentence nor a heading with a colon."""
    return len(content) <= _LONGEST_CELL and not content.endswith(_ENDS_OF_SENTENCES)


def without_mark(line: str) -> str:
    """Return an entry without its mark or number."""
    content = line.strip()
    mark = item_mark(content)
    return content if mark[:1] in ("{", "[", "<") else content[len(mark) :].strip(_LABEL_MARKS)


def label_of(content: str) -> str:
    """Return the name before the value of an entry, in lower case, without numbers; or `""`."""
    key = _KEY.match(content)
    return _DIGITS.sub("", key[1]).strip(_LABEL_MARKS).casefold() if key else ""


def without_label(content: str) -> str:
    """Return an entry without the name before its value."""
    key = _KEY.match(content)
    return content[key.end() :].strip(_LABEL_MARKS) if key else content


# Tables


class TableSpan(NamedTuple):
    """A table: the span of its header with the rules around it, and its rows."""

    header: Span
    start: int
    end: int


def separator_of_columns(line: str) -> tuple[str, int]:
    """Return what separates the columns of a row, and how often; an empty text for no row."""
    if line.lstrip().startswith(_OPENING):
        return "", 0
    bare = _QUOTED.sub('"', line) if '"' in line or "\\" in line else line
    bare = _ITEM_WITH_TAB.sub("", bare)
    for mark in _MARKS_OF_COLUMNS:
        if mark in bare:
            return mark, bare.count(mark)
    for mark in (";", ","):
        inside = bare.rstrip().rstrip(mark)
        if mark in inside and f"{mark} " not in bare and DELIMITER.search(inside):
            return mark, bare.count(mark)
    if _GAP not in line and ".." not in line and ". ." not in line:
        return "", 0
    cells = [cell for gap in _COLUMN_GAP.split(line.strip()) for cell in _LEADERS.split(gap)]
    longest = _LONGEST_CELL if NUMBER.search(line) else _LONGEST_NAME
    is_row = len(cells) > 1 and max(map(len, cells)) <= longest
    return (_GAP, len(cells) - 1) if is_row else ("", 0)


def cells(row: str) -> list[str]:
    """Return the cells of a row whose columns a mark separates, stripped; none for other lines."""
    mark, content = separator_of_columns(row)[0], row.strip()
    if mark == "|":
        parts = _BORDER.split(content.removeprefix("|").removesuffix("|"))
    elif mark and mark != _GAP:
        parts = _delimited(row, mark)
    else:
        parts = []
    return [part.strip() for part in parts]


def _delimited(row: str, mark: str) -> list[str]:
    """Return the fields of a line of CSV, however long they are; none if it is not valid."""
    csv.field_size_limit(max(csv.field_size_limit(), len(row)))  # of the process
    try:
        return next(csv.reader([row.strip("\r\n")], delimiter=mark), [])
    except csv.Error:
        return []


class RecordTable(NamedTuple):
    """A table with a record in each row: the names of its columns, its rows and their spans."""

    names: Sequence[str]
    rows: Sequence[tuple[Sequence[str], Span]]


def record_tables(text: str, most_rows: int | None = None) -> Iterator[RecordTable]:
    """Yield the tables of a text in which each column has a name without a number.

    One with two columns has several rows, with numbers of one form in a column; others may have a
    name and its value in each row. Only the first rows are read if `most_rows` is given.
    """
    for table in tables(text):
        first_line = text[slice(*table.header)].partition("\n")[0]
        names = [] if NUMBER.search(first_line) else cells(first_line)
        if not names or not all(names):
            continue
        body = text[table.start : table.end]
        rows = []
        for start, end in islice(whole_lines(body), most_rows):
            if len(row := cells(body[start:end])) == len(names):
                rows.append((row, (table.start + start, table.start + end)))
        if len(names) >= _FEWEST_COLUMNS or _has_numbers_of_one_form(names, rows):
            yield RecordTable(names, rows)


_NUMBER_IN_CELL = re.compile(r"\d[\d.,'’ ]*|\b[A-Z]{3}\b|[$€£¥]|\b[A-Z][a-z]{2,8}(?=\.?,? \d)")
"""A number, a currency or a month."""
_NAMING_NUMBERS = frozenset(
    words.stem(word)
    for kind in ("date", "money", "number")
    for word in words.LEXICON["kinds"][kind]
)


def _has_numbers_of_one_form(
    names: Sequence[str], rows: Sequence[tuple[Sequence[str], Span]]
) -> bool:
    """Return whether a column has a name of numbers, and only such; a form has values of any kind.

    “Fee” names numbers, and “Acme Ltd” beside “Company” in the first row of a form does not.
    """
    columns = zip(names, zip(*(row for row, _ in rows), strict=True), strict=False)
    forms = (
        {_NUMBER_IN_CELL.sub("0", cell) for cell in column}
        for name, column in columns
        if not _NAMING_NUMBERS.isdisjoint(words.terms(name))
    )
    return len(rows) > 1 and any(len(form) == 1 and "0" in min(form) for form in forms)


def _spaced(line: str) -> tuple[str, int]:
    """Return the separator of columns, which may also be a comma before a blank."""
    columns, content, spaced = separator_of_columns(line), line.strip(), line.count(", ")
    is_row = _FEWEST_SPACED_COMMAS <= spaced == _QUOTED.sub("", line).count(",")
    is_row = is_row and not columns[0] and not content.startswith(_OPENING) and is_short(content)
    return (", ", spaced) if is_row else columns


@lru_cache(maxsize=_KEPT_TEXTS)
def tables(text: str) -> Sequence[TableSpan]:
    """Return the tables of a text that have a row below their header, in order."""
    return [table for lines in _table_lines(text) if (table := _table(text, lines))]


def _table_lines(text: str) -> Iterator[list[Span]]:
    """Yield the first lines and the last line of each table: adjacent rows of a form, and rules."""
    lines: list[Span] = []
    form = "", 0
    for start, end in whole_lines(text):
        line = text[start:end]
        is_rule = line[0] in "-=+|: \t" and _TABLE_RULE.match(line) is not None
        columns = ("", 0) if is_rule or line.isspace() else _spaced(line)
        continues = is_rule or (columns[0] and _continue(form, columns))
        continues = continues or (form[0] == _GAP and not line.isspace())
        if lines and not continues:
            yield lines
            lines, form = [], ("", 0)
        if is_rule or columns[0] or lines:
            lines[_LINES_OF_HEADER:] = [(start, end)]
            form = form if form[0] else columns
    if lines:
        yield lines


def _continue(form: tuple[str, int], columns: tuple[str, int]) -> bool:
    return not form[0] or (form[0] == columns[0] and (form[0] in "|\t" or form == columns))


def _table(text: str, lines: Sequence[Span]) -> TableSpan | None:
    are_rules = [_TABLE_RULE.match(text, *line) is not None for line in lines]
    if all(are_rules):
        return None
    first = are_rules.index(False)
    last = are_rules.index(True, first) if True in are_rules[first:-1] else first
    if last + 1 >= len(lines):
        return None
    start, end = lines[0][0], lines[last][1]
    header = start, end - len(text[start:end]) + len(text[start:end].rstrip())
    return TableSpan(header, lines[last + 1][0], lines[-1][1])


def table_header(text: str, place: int) -> Span | None:
    """Return the span of the header of the table that continues at `place`, including its rules.

    `None` if no table continues, or if its header is too long to be repeated.
    """
    line = text[text.rfind("\n", 0, place) + 1 : text.find("\n", place) % (len(text) + 1)]
    may_be_row = '"' in line or _TABLE_RULE.match(line) or (line.strip() and _spaced(line)[0])
    if not place or not may_be_row:
        return None
    listed = tables(text)
    number = bisect_right(listed, place, key=itemgetter(1)) - 1
    if number < 0 or place >= listed[number].end:
        return None
    header = listed[number].header
    return header if header[1] - header[0] <= _MAX_HEADER_CHARACTERS else None


# Headings

_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(\S.*)")


def headings(markdown: str) -> Iterator[tuple[int, int, str]]:
    """Yield the position, level and text of each heading, but not lines in fenced code."""
    start, fence = 0, ""
    for line in markdown.splitlines(keepends=True):
        mark = line.lstrip(" ")[:3]
        if mark in ("```", "~~~") and fence in ("", mark):
            fence = "" if fence else mark
        elif not fence and (heading := _HEADING.match(line)):
            title = heading[2].rstrip().rstrip("#").strip()  # number signs may close it
            yield start, len(heading[1]), title
        start += len(line)
