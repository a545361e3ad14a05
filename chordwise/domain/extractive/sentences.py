"""Splits a text into sentences short enough to quote, with their offsets."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from chordwise.domain import chunking, words
from chordwise.domain.extractive.answer_context import checkpoint

MAX_QUOTE_CHARACTERS = 400
# A short rest; otherwise a piece up to the end of a clause, to a blank, or of maximum length.
# Includes the commas and semicolons of Chinese, Japanese and Arabic.
_PIECE = re.compile(
    r".{1,400}\Z|.{150,398}(?:[;:,](?=\s)|[\u3001\uff0c\uff1b\u060c])\s?|.{150,399}\s|.{400}",
    re.DOTALL,
)
# Blanks before the end of a line are matched from the first one, or not at all.
_LINE_END = re.compile(r"(?:(?<![^\S\n])[^\S\n]++)?\n\s*")
# Includes the full stops and question marks of Chinese, Japanese, Hindi and Arabic.
_SENTENCE_END = re.compile(r"[.!?…:;\u3002\uff01\uff1f\u0964\u061f]['\")\]”’]*$")
_BEGINS_ANEW = re.compile(r"\s*+(?:[A-Z0-9]|[^\w\s\"'(“])")
_WIDEST_WRAPPED_LINE = 100
_SHORT_LINE = 0.6
_MIN_WRAPPED_LINES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """A trimmed piece of a text that can be quoted; `terms` are its terms for comparison."""

    text: str
    start_char: int
    terms: tuple[str, ...]


def sentences(text: str) -> list[Sentence]:
    """Return the sentences in order; longer pieces are split at lines, clauses or words."""
    width = _wrap_width(text)
    candidates = [
        _sentence(text, *piece.span())
        for start, end in itertools.pairwise([0, *chunking.sentence_ends(text)])
        for line in _lines(text, start, end, width)
        for piece in _PIECE.finditer(text, *line)
    ]
    return [sentence for sentence in candidates if sentence.text]


def _sentence(text: str, start: int, end: int) -> Sentence:
    checkpoint()
    piece = text[start:end]
    trimmed = piece.strip()
    lead = len(piece) - len(piece.lstrip())
    return Sentence(text=trimmed, start_char=start + lead, terms=tuple(words.terms(trimmed)))


def _wrap_width(text: str) -> int:
    """Return the line width of a hard-wrapped text; 0 if its lines are paragraphs."""
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) < _MIN_WRAPPED_LINES:
        return 0
    width = sorted(len(line) for line in lines)[len(lines) * 9 // 10]
    open_ended = sum(not _SENTENCE_END.search(line.rstrip()) for line in lines)
    begun = sum(_BEGINS_ANEW.match(line) is not None for line in lines)
    goes_on = open_ended * 2 > len(lines) and begun * 3 < len(lines) * 2
    is_wrapped = width <= _WIDEST_WRAPPED_LINE and goes_on
    return width if is_wrapped else 0


def _lines(text: str, start: int, end: int, width: int) -> Iterator[tuple[int, int]]:
    line_start = start
    for match in _LINE_END.finditer(text, start, end):
        length = match.start() - (text.rfind("\n", 0, match.start()) + 1)
        is_paragraph = match.group().count("\n") > 1
        if is_paragraph or length < width * _SHORT_LINE or not width:
            yield line_start, match.end()
            line_start = match.end()
    yield line_start, end
