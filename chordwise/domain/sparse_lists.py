"""Sparse lists: lists with a row for only one of many consecutive passages of the same form.

Passages are sentences or lines. They have the same form if they share words, apart from names and
numbers, or begin with different names, as in “Ada Ash joined the board in 2001.”
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence

from chordwise.domain import chunking, records, words
from chordwise.domain.records import Span

_MIN_PASSAGES = 8
_MIN_SHARED_WORDS = 2
_WORDS_OF_BEGINNING = 14
_MAX_SHORT_WORD = 3
_MARKS = " \t\n-–*•#\"'“(["


def passages(text: str, rows: Sequence[Span], every: Sequence[int]) -> int:
    """Return the number of consecutive passages of one form of which hardly any has a row, or 0.

    `every` are the places of the rows of all lists. One of `rows` has to begin a passage.
    """
    ends = itertools.pairwise([0, *chunking.sentence_ends(text)])
    for division in (ends, records.whole_lines(text)):
        filled = (span for span in division if text[slice(*span)].strip(_MARKS))
        parts = [(end - len(text[start:end].lstrip(_MARKS)), end) for start, end in filled]
        if len(rows) * _MIN_PASSAGES > len(parts):
            continue
        for first, last in _blocks(text, parts, rows):
            number = last - first + 1
            taken = bisect_left(every, parts[last][1]) - bisect_left(every, parts[first][0])
            if number >= taken * _MIN_PASSAGES:
                return number
    return 0


def _blocks(text: str, parts: Sequence[Span], rows: Sequence[Span]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last passage of the same form around each row that begins one."""
    last = -1
    for start, end in rows:
        number = bisect_right(parts, (start, len(text))) - 1
        if number <= last or parts[number][0] != start or parts[number][1] < end:
            continue
        for is_alike in _comparisons(text[slice(*parts[number])]):
            above, below = (
                sum(1 for _ in itertools.takewhile(is_alike, (text[slice(*parts[n])] for n in run)))
                for run in (range(number - 1, -1, -1), range(number + 1, len(parts)))
            )
            last = number + below
            yield number - above, last


def _comparisons(passage: str) -> Iterable[Callable[[str], bool]]:
    passage_words, names = _words(passage), {_name(passage)}

    def shares_words(other: str) -> bool:
        return len(passage_words & _words(other)) >= _MIN_SHARED_WORDS

    def has_new_name(other: str) -> bool:
        name = _name(other)
        is_new = bool(name) and name not in names
        names.add(name)
        return is_new

    return (shares_words, has_new_name) if "" not in names else (shares_words,)


def _words(text: str) -> set[str]:
    listed = text.split(maxsplit=_WORDS_OF_BEGINNING)[:_WORDS_OF_BEGINNING]
    long = (word for word in listed if word.isupper() or len(word) > _MAX_SHORT_WORD)
    terms = words.terms(" ".join(word for word in long if not word.istitle()))
    return {term for term in terms if len(term) >= _MAX_SHORT_WORD and term.isalpha()}


def _name(text: str) -> str:
    name = " ".join(text.split(maxsplit=2)[:2]).rstrip(",.;")
    letters = name.replace("-", "").replace("'", "").replace(" ", "", 1)
    return name if name.istitle() and letters.isalpha() and " " in name else ""
