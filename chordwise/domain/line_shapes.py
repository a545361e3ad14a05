"""The shape of a line: what the lines of a list have in common."""

from __future__ import annotations

import itertools
import re

LONGEST_LINE = 300
_LONGEST_ITEM, _LONGEST_ENTRY, _LONGEST_NAME = 200, 100, 50
_MAX_WORDS_OF_NAME = 5
_FEWEST_AMOUNTS = 2
LINE_OF_NAMES, _LINE_OF_WORDS, _NAMED = "words", "words ", "name "
BARE = f"{_LINE_OF_WORDS}| "
NUMBER = re.compile(r"\d[\d.,]*+")
_WORDS = re.compile(r"[^\W\d_][\w'’-]*+(?: ++[^\W\d_][\w'’-]*+)*+")
_ITEM = re.compile(r"(?:([-*•–+]|#{1,6}+)|\(?\w{1,3}([.)]))\s|\"[^\"\n]*+\",?$")
_KEY = re.compile(r"<[\w:.-]++|[^:\uff1a\n]{1,40}+(?:\uff1a|:(?=[*_]{0,3}+\s))")
_REPEATED = re.compile(r"([^\w\s])\1++")
DELIMITER = re.compile(r"[,;](?!\d{3}(?!\d))")
_QUOTED = re.compile(r'"[^"]*+"')
_CELL = re.compile(r"[|\t,;]")
_GAP = re.compile(r"(?<=[^\s.?!:]) {2,}+(?=\S)|(?<![. ]) ?(?:\. ?){4,}+(?=\S)")
_AMOUNT = re.compile(r"[-+($€£¥−]{0,3}+\d[\d.,]*+[)%€£¥]{0,3}+")
_SEPARATOR = re.compile(r"[a0 .\[\]]*+([^\w\s.?!'’]++)\s*+(?=[a0(\"*_])")
_MARKS = " \t*_\"'“„«(:\uff1a"
_COLONS = (":", "\uff1a")
_ENDS_OF_SENTENCES = (".", "!", "?", "。", "\uff01", "\uff1f")


def shape_of(line: str) -> str:
    """Return the shape that lines of the same list share; empty if a line has none.

    It is the number of cells of a row, the mark of an item, the name before a value, the number of
    amounts at the end of a line, or the sequence of words and numbers.
    """
    content = line.rstrip("\r\n")
    has_number = NUMBER.search(content) is not None
    for mark, least in (("|", 2), ("\t", 1)):
        if (count := content.count(mark)) >= least:
            return f"{mark} {count} {has_number}"
    content = content.strip()
    if (item := _ITEM.match(content)) and len(content) <= _LONGEST_ITEM:
        mark = item[1] or item[2] or item[0][0]
        return f"{_LINE_OF_WORDS}{mark} {len(line) - len(line.lstrip())} {has_number}"
    if key := _KEY.match(content):
        name = _WORDS.sub("a", key[0]) if NUMBER.search(key[0]) else key[0]
        return f"{_NAMED}{NUMBER.sub('0', name).casefold()}"
    bare = _QUOTED.sub("", content)
    if DELIMITER.search(bare) and not any(f"{mark} " in bare for mark in ",;"):
        return f", {bare.count(',')} {bare.count(';')} {has_number}"
    cells, longest = _GAP.split(content), _LONGEST_ENTRY if has_number else _LONGEST_NAME
    if len(cells) > 1 and max(map(len, cells)) <= longest:
        return f"columns {len(cells) - 1} {has_number}"
    words = reversed(content.split())
    amounts = sum(1 for _ in itertools.takewhile(_AMOUNT.fullmatch, words))
    if amounts >= _FEWEST_AMOUNTS:
        return f"amounts {amounts}"
    return _shape_of_words(content, has_number=has_number)


def _shape_of_words(line: str, *, has_number: bool) -> str:
    """Return the sequence of words and numbers; without numbers, whether the line is a name."""
    if has_number:
        return f"{_LINE_OF_WORDS}{_division(line)}"
    is_short = len(line.split()) <= _MAX_WORDS_OF_NAME and len(line) <= _LONGEST_NAME
    is_name = is_short and not line[:1].islower() and (line[-1:].isalnum() or line[-1:] == ")")
    return LINE_OF_NAMES if is_name else ""


def _division(line: str) -> str:
    return _REPEATED.sub(r"\1", NUMBER.sub("0", _WORDS.sub("a", line)))


def is_table(shape: str) -> bool:
    """Return whether lines of a shape are rows of a table."""
    return shape.startswith(("|", "\t", ",", "columns"))


def is_named(shape: str) -> bool:
    """Return whether lines of a shape are names before values."""
    return shape.startswith(_NAMED)


def may_be_outside_list(shape: str) -> bool:
    """Return whether lines of a shape may also stand alone, before and after a list."""
    return shape == LINE_OF_NAMES or shape.startswith(f"{_LINE_OF_WORDS}#")


def is_named_or_name(shape: str) -> bool:
    """Return whether lines of a shape are names, or names before values."""
    return shape.startswith((LINE_OF_NAMES, _NAMED))


def is_entry(line: str) -> bool:
    """Return whether a line is short and not a sentence."""
    content = line.rstrip()
    return len(content) <= _LONGEST_ENTRY and not content.endswith(_ENDS_OF_SENTENCES)


def is_heading(line: str) -> bool:
    """Return whether a line is a heading, or introduces a list with a colon at its end."""
    return line.startswith("#") or line.endswith(_COLONS)


def _fields(line: str) -> tuple[str, str]:
    content = line.strip()
    item = _ITEM.match(content)
    mark = item[1] or item[2] or item[0][0] if item else ""
    return mark, content[item.end() :] if item else content


def _named_value(line: str) -> tuple[str, str]:
    rest = _fields(line)[1]
    key = _KEY.match(rest)
    value = rest[key.end() :].strip(_MARKS) if key and key[0][0] != "<" else ""
    return (key[0].strip(_MARKS), value) if key and value else ("", "")


def label_of(line: str) -> str:
    """Return the name before the value of a line, in lower case; empty without one."""
    return _named_value(line)[0].casefold()


def begins(line: str, start: int, end: int) -> bool:
    """Return whether a part of a line is its first field, or the value after its name.

    In a line that is a sentence, a name before a colon, such as that of a speaker, does not count.
    """
    rest = _fields(f"{line[:start]} |")[1]
    key, after = _KEY.match(rest), line[end:].lstrip(" *_")
    is_name = after[:1] in _COLONS and not is_entry(line)
    is_within = after[:2].lstrip(".,")[:1].isalnum() or is_name
    return not (is_within or any(map(str.isalpha, rest[key.end() if key else 0 :])))


def is_short_item(line: str) -> bool:
    """Return whether a line is a list item that consists of a short name."""
    content = line.strip()
    return bool(_ITEM.match(content)) and len(content.split()) <= 1 + _MAX_WORDS_OF_NAME


def separator_of(line: str) -> str:
    """Return what separates the first two fields of a line; empty if it has one field."""
    division = _SEPARATOR.match(_division(_fields(line)[1]))
    return division[1] if division else ""


def divided_shape_of(line: str, *, are_labels: bool) -> str:
    """Return the shape of a line that is divided into fields: its mark and its first separator.

    With `are_labels`, the name before a value belongs to the shape unless the value has a number.
    """
    mark, rest = _fields(line)
    if len(line) > LONGEST_LINE or rest.startswith("<") or is_table(shape_of(line)):
        return ""
    indent = f"{mark} {len(line) - len(line.lstrip())}"
    label, value = _named_value(line)
    if label:
        key = _division(value) if NUMBER.search(value) else label.casefold()
        return f"{_NAMED}{indent} {key if are_labels else ''}"
    if mark:
        return f"{_LINE_OF_WORDS}{indent} {separator_of(line)}"
    is_bare = 0 < len(rest) <= _LONGEST_ENTRY and not rest[0].islower() and rest[-1] not in _COLONS
    return f"{BARE}{separator_of(line)}" if is_bare else ""


def number_cells(line: str) -> tuple[bool, ...]:
    """Return for each cell of a line whether it contains a number."""
    cells = (part for cell in _CELL.split(line.strip()) for part in _GAP.split(cell))
    return tuple(NUMBER.search(cell) is not None for cell in cells)


def filled_cells(line: str) -> int:
    """Return the number of non-empty cells of a row; a row with a total has fewer than others."""
    return sum(1 for cell in _CELL.split(line) if cell.strip())
