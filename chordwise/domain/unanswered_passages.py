"""Unanswered passages: sentences, lines or paragraphs that seem to be records without a row.

In prose, form cannot prove that rows are missing. Passages are alike if they hold the same kinds of
values, such as a date and an amount, if they share words, or if they begin with different names.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from operator import itemgetter
from typing import NamedTuple

from chordwise.domain import chunking, json_values, number_formats, words
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisTask
from chordwise.domain.extractive.values import ValueKind, values
from chordwise.domain.json_values import JsonObject, JsonValue, text_of
from chordwise.domain.quantities import quantities
from chordwise.domain.records import Span, whole_lines
from chordwise.domain.typed_values import dates_in, typed

Values = Mapping[str, set[Hashable]]
"""Values by kind; empty for a passage that is not alike."""


class Form(NamedTuple):
    """What passages have in common, how many others may be among them, and their least number."""

    values: Callable[[str], Values]
    others: int
    least: int


_LENIENT, _STRICT = (1, 6), (0, 8)
"""The other passages allowed at a time, and the least number: of two kinds, and of other forms."""
_MIN_SHARE, _MAX_VALUES_OF_KIND = 0.7, 2
_LONGEST_HEADING, _LONGEST_PASSAGE, _MOST = 60, 2_000, 2_000
_MIN_SHARED_WORDS = 2
_WORDS_OF_BEGINNING = 14
_MAX_SHORT_WORD = 3
_MARKS = " \t\n-–*•#\"'“(["
_PARAGRAPH = re.compile(r"[^\n]++(?:\n[^\n]++)*+")
_WORD = r"[A-ZÀ-ÖØ-Þ][\w'’&-]++"
_NAMES = re.compile(
    rf"(?<![\w'’&-]){_WORD}(?: (?:(?:of|the|de|van|von|&) ){{0,2}}{_WORD}){{1,6}}"
    r"|(?:(?<=[a-z,] )|(?<=Dr\. |Mr\. |Ms\. )|(?<=Mrs\. )|(?<=Prof\. ))"
    rf"{_WORD}(?<=[a-z])(?!\.? [A-Z])"
)
_WRITTEN = (ValueKind.DATE, ValueKind.EMAIL, ValueKind.PHONE, ValueKind.IDENTIFIER)
_NOUN = re.compile(r"[^\W\d_A-Z]{3,}")
_NAME, _MONEY, _COUNT = "name", "money", "number of "
_DISTINCTIVE = frozenset((_MONEY, "%", ValueKind.EMAIL, ValueKind.PHONE))
"""The kinds that suffice alone; others, such as dates, have to occur together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseList:
    """A list with rows for only a few of many consecutive passages that are alike."""

    path: str
    rows: int
    passages: int

    def __str__(self) -> str:
        missing = number_formats.counted(self.passages - self.rows, "row")
        return (
            f"{self.passages:,} consecutive passages are alike, and hardly any of them has a row of"
            f" {self.path}: {missing} seem to be missing."
        )


def sparse_lists(
    text: str, output: JsonObject, task: AnalysisTask, known: Collection[str]
) -> Iterator[SparseList]:
    """Yield the lists of an output, except those `known` to lack rows, that seem to lack some."""
    analysis, options = analysis_for(task.analysis_type), task.options
    counted, places = analysis.row_counts([output], options), analysis.row_places(output, options)
    left_out = {path for path, count in counted.items() if count.is_selection}.union(known)
    spans = {
        path: sorted((min(row)[0], max(end for _, end in row)) for row in rows)
        for path, rows in places.items()
    }
    starts = sorted(start for listed in spans.values() for start, _ in listed)
    sentences = itertools.pairwise([0, *chunking.sentence_ends(text)])
    paragraphs = (match.span() for match in _PARAGRAPH.finditer(text))
    divisions = [_Passages(text, parts) for parts in (sentences, whole_lines(text), paragraphs)]
    for path in filter((counted.keys() - left_out).__contains__, spans):
        read = list(_values_read(path, output))
        counts = filter(None, (division.alike(spans[path], starts, read) for division in divisions))
        if best := max(counts, key=itemgetter(1), default=None):
            yield SparseList(path=path, rows=best[0], passages=best[1])


def _values_read(path: str, output: JsonObject) -> Iterator[JsonValue]:
    listed = path.partition("/*")[0]
    for place, value in json_values.scalars(output.get("data")):
        if json_values.is_within(f"/data{place}", listed):
            yield value


class _Passages:
    def __init__(self, text: str, spans: Iterable[Span]) -> None:
        filled = (span for span in spans if text[slice(*span)].strip(_MARKS))
        self._spans = [(end - len(text[start:end].lstrip(_MARKS)), end) for start, end in filled]
        self._text = text

    def alike(
        self, rows: Sequence[Span], starts: Sequence[int], read: Sequence[JsonValue]
    ) -> tuple[int, int] | None:
        """Return the numbers of rows and of consecutive passages of one form with few rows."""
        last = -1
        for start, end in rows if len(rows) * _LENIENT[1] <= len(self._spans) else ():
            number = bisect_right(self._spans, (start, len(self._text))) - 1
            if number <= last or self._spans[number][1] < end:
                continue
            begins = self._spans[number][0] == start
            for form in _forms(self._passage(number), read, begins=begins):
                block = self._block(number, form)
                last = block[-1]
                borders = self._spans[block[0]][0], self._spans[last][1]
                taken = bisect_left(starts, borders[1]) - bisect_left(starts, borders[0])
                passages = self._different(block, form)
                if passages >= taken * form.least:
                    return taken, passages
        return None

    def _passage(self, number: int) -> str:
        start, end = self._spans[number]
        return self._text[start : min(end, start + _LONGEST_PASSAGE)].replace("\n", " ")

    def _block(self, number: int, form: Form) -> list[int]:
        first, last = max(0, number - _MOST), min(len(self._spans), number + _MOST)
        above = self._run(range(number - 1, first - 1, -1), form)
        return [*reversed([*above]), number, *self._run(range(number + 1, last), form)]

    def _run(self, numbers: Iterable[int], form: Form) -> Iterator[int]:
        """Yield the alike passages up to too many others in a row; headings do not count."""
        others = 0
        for number in numbers:
            passage = self._passage(number)
            if form.values(passage):
                others = 0
                yield number
            elif len(passage) > _LONGEST_HEADING:
                others += 1
                if others > form.others:
                    return

    def _different(self, block: Sequence[int], form: Form) -> int:
        """Return the number of passages with new values; 0 if the block has too much other text."""
        others = set(range(block[0], block[-1])).difference(block)
        long = sum(len(self._passage(other)) > _LONGEST_HEADING for other in others)
        known: defaultdict[str, set[Hashable]] = defaultdict(set)
        counts: Counter[str] = Counter()
        different = 0
        for by_kind in (form.values(self._passage(number)) for number in block):
            different += all(by_kind[kind] - known[kind] for kind in by_kind)
            for kind in by_kind:
                known[kind] |= by_kind[kind]
                counts[kind] += len(by_kind[kind])
        is_crowded = max(counts.values(), default=0) > _MAX_VALUES_OF_KIND * len(block)
        return 0 if is_crowded or len(block) < _MIN_SHARE * (len(block) + long) else different


def _forms(passage: str, read: Sequence[JsonValue], *, begins: bool) -> Iterator[Form]:
    """Yield the forms that others may share; a row that begins its passage shares words, too.

    The kinds are those of the values of the row; if it has none, any two of its passage.
    """
    by_kind = _values_in(passage)
    kinds = {kind for kind in by_kind if any(_has(by_kind[kind], kind, value) for value in read)}
    if len(kinds) > 1 or kinds & _DISTINCTIVE:
        yield Form(partial(_of_kinds, kinds), *(_LENIENT if len(kinds) > 1 else _STRICT))
    known = [kind for kind in by_kind if not kind.startswith(_COUNT)]
    for pair in itertools.combinations(known, 2) if not kinds else ():
        yield Form(partial(_of_kinds, {*pair}), *_LENIENT)
    if begins:
        yield Form(partial(_of_words, _words(passage)), *_STRICT)
        if _leading_name(passage):
            yield Form(_of_name, *_STRICT)


def _of_kinds(kinds: set[str], passage: str) -> Values:
    by_kind = _values_in(passage)
    return {kind: by_kind[kind] for kind in kinds} if kinds <= by_kind.keys() else {}


def _of_words(shared: set[str], passage: str) -> Values:
    return {"": {passage}} if len(shared & _words(passage)) >= _MIN_SHARED_WORDS else {}


def _of_name(passage: str) -> Values:
    return {_NAME: {name}} if (name := _leading_name(passage)) else {}


@lru_cache(maxsize=4_096)
def _values_in(text: str) -> Values:
    """Return the values in a text by kind; a number is the set of its readings."""
    by_kind: defaultdict[str, set[Hashable]] = defaultdict(set)
    for readings in quantities(text):
        first = readings[0]
        counted = f"{_COUNT}{first.unit}" if _NOUN.fullmatch(first.unit or "") else ""
        kind = _MONEY if first.currency else first.measure[1] or counted
        by_kind[kind].add(frozenset(reading.number for reading in readings))
    for kind in _WRITTEN:
        by_kind[kind] |= {
            value.text
            for value in values(kind, text)
            if kind != ValueKind.IDENTIFIER or any(map(str.isalpha, value.text))
        }
    by_kind[ValueKind.DATE] = {*dates_in(text)} or by_kind[ValueKind.DATE]
    by_kind[_NAME] |= {*_NAMES.findall(text)}
    return {kind: written for kind, written in by_kind.items() if kind and written}


def _has(written: set[Hashable], kind: str, value: JsonValue) -> bool:
    """Return whether a value of a row is of a kind, as one of the values of its passage."""
    text = (text_of(value) or "")[:_LONGEST_PASSAGE]
    kinds = {value_kind for value_kind in _values_in(text) if not value_kind.startswith(_COUNT)}
    if kinds or kind == _NAME:
        is_name = kind == _NAME and text[:1].isupper() and not kinds
        return kind in kinds or (is_name and any(text in str(name) for name in written))
    return any(isinstance(entry, frozenset) and typed(value).number in entry for entry in written)


def _words(text: str) -> set[str]:
    listed = text.split(maxsplit=_WORDS_OF_BEGINNING)[:_WORDS_OF_BEGINNING]
    long = (word for word in listed if word.isupper() or len(word) > _MAX_SHORT_WORD)
    terms = words.terms(" ".join(word for word in long if not word.istitle()))
    return {term for term in terms if len(term) >= _MAX_SHORT_WORD and term.isalpha()}


def _leading_name(text: str) -> str:
    name = " ".join(text.split(maxsplit=2)[:2]).rstrip(",.;")
    letters = name.replace("-", "").replace("'", "").replace(" ", "", 1)
    return name if name.istitle() and letters.isalpha() and " " in name else ""
