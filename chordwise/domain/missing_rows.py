"""Rows of lists: how many each part of a document has, and which an answer lacks of them.

Rows are lost where answers are joined or repaired, or where a model leaves records of the text out.
Records are lines of a similar shape, such as the rows of a table.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TypeAlias

from pydantic import TypeAdapter

from chordwise.domain import grounding, json_values
from chordwise.domain.analyses.analysis import RowCount
from chordwise.domain.analyses.catalog import analysis_for
from chordwise.domain.grounding import Source
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.places import Places
from chordwise.domain.tasks import AnalysisTask

CODE = "missing_rows"
_HINT = (
    "The answers of the parts, with all their rows, are in chunks.answer. chordwise retry RUN "
    "joins them again; a larger pipeline.chunk_tokens leaves fewer parts to join. If equal values "
    'are meant to count once, say "uniqueItems": true of the list in your schema.'
)
_HINT_OF_ONE_CHUNK = (
    "The model dropped them when it repaired an invalid answer. Submit the document again with "
    "--fresh, with another model (--model) or a smaller pipeline.chunk_tokens."
)
_HINT_OF_RECORDS = (
    "The model left records of the text out. Submit the document again with --fresh, with another "
    "model (--model) or a smaller pipeline.chunk_tokens. If the list is meant to hold only some of "
    'the records, say "x-selection": true of it in your schema.'
)
_MAX_NAMED = 5
_PREFIXES = {"/data/": "rows", "/fields/": "values"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingRows:
    """A list of which `kept` of `found` rows are in an answer.

    `path` is a JSON Pointer into the output, with `*` for the position of an enclosing row;
    `/fields/ITEM` stands for the distinct values of an item. `max_items` is the limit that the
    user's schema sets. `records` of the missing ones are records of the text that no answer has,
    and `where` names their places.
    """

    path: str
    kept: int
    found: int
    max_items: int | None = None
    records: int = 0
    where: tuple[str, ...] = ()

    @property
    def wanted(self) -> int:
        """Return how many rows the answer should have: all, or as many as the schema allows."""
        return self.found if self.max_items is None else min(self.found, self.max_items)

    @property
    def is_loss(self) -> bool:
        """Tell whether rows are missing that the schema leaves room for."""
        return self.kept < self.wanted

    def __str__(self) -> str:
        prefix = next((each for each in _PREFIXES if self.path.startswith(each)), "")
        noun = _PREFIXES.get(prefix, "rows")
        named = f"{self.kept:,} of {self.found:,} {noun} of `{self.path.removeprefix(prefix)}`"
        return f"{named} (without: {'; '.join(self.where)})" if self.where else named


def compare(
    found: Mapping[str, RowCount],
    kept: Mapping[str, RowCount],
    before: Iterable[MissingRows] = (),
) -> tuple[MissingRows, ...]:
    """Return the lists of which fewer rows are kept than were found.

    `before` are the rows that what was counted in `found` lacked itself.
    """
    lost: Counter[str] = Counter()
    limits = {path: count.max_items for path, count in found.items()}
    for each in before:
        lost[each.path] += each.found - each.kept
        limits.setdefault(each.path, each.max_items)
    compared = (
        MissingRows(
            path=path,
            kept=_number(kept, path),
            found=_number(found, path) + lost[path],
            max_items=limits[path],
        )
        for path in limits
    )
    return tuple(each for each in compared if each.kept < each.found)


def recounted(
    missing: Iterable[MissingRows], kept: Mapping[str, RowCount]
) -> tuple[MissingRows, ...]:
    """Return the lists that still lack rows once an answer was revised."""
    now = (replace(each, kept=_number(kept, each.path)) for each in missing)
    return tuple(each for each in now if each.kept < each.found)


def losses(missing: Iterable[MissingRows]) -> list[MissingRows]:
    """Return the lists that lack rows which the schema leaves room for."""
    return [each for each in missing if each.is_loss]


def share(missing: Iterable[MissingRows]) -> float:
    """Return the share of the rows that are kept, over the lists that lost some; else 1."""
    lost = losses(missing)
    if not lost:
        return 1.0
    return sum(each.kept for each in lost) / sum(each.wanted for each in lost)


def sentences(missing: Iterable[MissingRows]) -> list[str]:
    """Say how many rows the lists have: first those that lost some, then those at their limit."""
    every = list(missing)
    lost, limited = losses(every), [each for each in every if not each.is_loss]
    said = [f"{_listed(lost)} are in the result."] if lost else []
    if limited:
        counts = _listed(limited)
        said.append(f"{counts} are in the result, as many as maxItems of the schema allows.")
    return said


def counts(
    parts: Sequence[JsonObject | None],
    output: JsonObject,
    task: AnalysisTask,
    missing: Iterable[MissingRows] = (),
) -> list[JsonValue]:
    """Return what the column `row_counts` keeps: the lists of an output and how they came about.

    `parts` are the answers of all chunks in their order, `None` where there is none.
    """
    analysis, options = analysis_for(task.analysis_type), task.options
    by_chunk = [None if part is None else analysis.row_counts([part], options) for part in parts]
    found = analysis.row_counts([part for part in parts if part is not None], options)
    kept = analysis.row_counts([output], options)
    places = analysis.row_places(output, options)
    unread_by_path = {each.path: each.records for each in missing}
    counted: list[JsonValue] = []
    for path in {**found, **kept}:
        numbers = [None if each is None else _number(each, path) for each in by_chunk]
        read, rows = sum(number or 0 for number in numbers), places.get(path, [])
        spans = [span for row in rows for span in row]
        counted.append(
            {
                "path": path,
                "by_chunk": list(numbers),
                "repeated": read - _number(found, path),
                "kept": _number(kept, path),
                "located": len(rows),
                "unread": unread_by_path.get(path, 0),
                "start_char": min((start for start, _ in spans), default=None),
                "end_char": max((end for _, end in spans), default=None),
            }
        )
    return counted


_DENSE = 5
"""A chunk with so many rows of a list is taken to lie within it."""


def gaps(counted: list[JsonValue]) -> list[str]:
    """Say which lists, as `counts` returns them, have chunks without rows in their midst.

    Where records without a row are counted, those say it.
    """
    said = []
    for each in json_values.objects(counted):
        numbers = each["by_chunk"] if not each["unread"] else None
        empty = _empty_within(numbers) if isinstance(numbers, list) else 0
        if empty:
            chunks = "1 chunk brings" if empty == 1 else f"{empty} chunks bring"
            path = json_values.text(each["path"])
            said.append(f"{chunks} no rows of {path}, between others that bring many.")
    return said


def _empty_within(numbers: Sequence[JsonValue]) -> int:
    """Return how many chunks have no row, each run of them between two with many."""
    empty = run = 0
    before = 0.0
    for number in map(json_values.number, numbers):
        if number == 0:
            run += 1
            continue
        rows = number or 0.0
        empty += run if min(before, rows) >= _DENSE else 0
        before, run = rows, 0
    return empty


def _number(counted: Mapping[str, RowCount], path: str) -> int:
    return counted[path].number if path in counted else 0


Span: TypeAlias = tuple[int, int]

_FEWEST_ROWS, _FEWEST_CLEAR_ROWS = 2, 3
_FEWEST_ROWS_OF_LINES = 5
"""So many rows have to stand in lines of one shape before the other lines count as records."""
_LEAST_SHARE, _LEAST_CLEAR_SHARE = 0.5, 0.8
_LEAST_LINES_BY_ROW = 0.8
_MAX_UNREAD = 2
_MAX_UNREAD_SHARE = 0.02
"""So many records without a row, not side by side, are taken for headers, totals and the like."""
_LINES_BETWEEN = 4
_LONGEST_ITEM = 200
_LONGEST_LINE = 300
_LINE = re.compile(r"[^\n]*+(?:\n|$)")
_ITEM = re.compile(r"(?:([-*•–+])|\(?\w{1,3}([.)]))\s")
_KEY = re.compile(r"<[\w:.-]++|[^:\n]{1,40}+:(?=\s)")
_DELIMITER = re.compile(r"[,;](?!\d{3}(?!\d))")
_QUOTED = re.compile(r'"[^"\n]*+"')
_STOP = re.compile(r"[.!?] +|(?<=[]}>\[]),? *+(?=[{<])")
"""Where sentences end, and elements or objects that are not on lines of their own."""
_CELL = re.compile(r"[|\t,;]")
_GAP = re.compile(r"(?<=[^\s.?!:]) {2,}+(?=\S)")
_NUMBER = re.compile(r"\d[\d.,]*+")
_AMOUNT = re.compile(r"[-+($€£¥−]{0,3}+\d[\d.,]*+[)%€£¥]{0,3}+")
_YEARS = re.compile(r"(?:(?:19|20)\d\d[.,]?)++")
_WORDS_OF_LABEL = re.compile(r"[^\W\d_]++")
_MAX_WORDS_OF_SUM = 3
_SUM = re.compile(
    r"(?<![^\W\d_])(?:(?:sub|grand)?-?(?:total[es]?|totaux|totaal|totalt)|sum(?:me|a|ma)?|som"
    r"|(?:end|gesamt|zwischen|brutto|netto)?(?:summe|betrag)|gesamt|montant|importe|importo"
    r"|carried|brought|(?:ü|ue)bertrag|tax(?:es)?|vat|gst|mwst|ust|tva|iva|btw|moms|taxe|steuer"
    r"|shipping|postage|versand(?:kosten)?|porto|frais|discount|rabatt|remise|rounding|tip"
    r"|balance|cash|change|due|paid|итого|всего|разом|suma|razem|celkem|toplam)(?![^\W\d_])"
    r"|合计|合計|总计|總計|小计|小計|合計|税|합계|총계|소계|المجموع|الإجمالي",
    re.IGNORECASE,
)
"""What names the totals of a list, and what is added to them."""
_WORDS = re.compile(r"[^\W\d_][\w'’-]*+(?: ++[^\W\d_][\w'’-]*+)*+")


def unread(
    source: Source,
    output: JsonObject,
    task: AnalysisTask,
    answered: Sequence[Span] | None = None,
    place: Callable[[int, int], str] = lambda *_: "",
) -> tuple[MissingRows, ...]:
    """Return the lists of which a text has records without a row.

    They are looked for in the spans `answered`, which ascend and do not overlap, or everywhere.
    Where most rows of a list stand in lines of one shape, each in one of its own, the other lines
    of that shape near them are records, too. A list that the schema calls a selection, and one of
    distinct values, has no records. `place` names a span of the text.
    """
    analysis, options = analysis_for(task.analysis_type), task.options
    counted, located = analysis.row_counts([output], options), _places(source, output, task)
    lines: _Lines | None = None
    found: list[MissingRows] = []
    for path, rows in located.items():
        count = counted.get(path)
        if count is None or count.is_selection or len(rows) < _FEWEST_ROWS:
            continue
        lines = lines or _Lines(source=source, answered=answered)
        others = _rows_elsewhere(path, located, counted)
        missing = _missing(path, count, len(rows), lines.without_row(rows, others), place)
        found += [missing] if missing else []
    return tuple(found)


def _missing(
    path: str,
    count: RowCount,
    located: int,
    records: Sequence[_Records],
    place: Callable[[int, int], str],
) -> MissingRows | None:
    """Return what a list lacks, of which so many rows are located; `None` where that is nothing."""
    number = sum(each.number for each in records) - (count.number - located)
    few = max(_MAX_UNREAD, _MAX_UNREAD_SHARE * (count.number + number))
    is_dense = min(number, max((each.longest for each in records), default=0)) >= _DENSE
    is_clear = number > 0 and any(each.is_clear and each.runs for each in records)
    if not (is_clear or is_dense or number > few):
        return None
    left = sorted(span for each in records for run in each.runs for span in run)
    named = list(dict.fromkeys(filter(None, (place(*span) for span in left))))
    return MissingRows(
        path=path,
        kept=count.number,
        found=count.number + number,
        max_items=count.max_items,
        records=number,
        where=tuple(_few(named)),
    )


def _rows_elsewhere(
    path: str,
    located: Mapping[str, Sequence[Sequence[Span]]],
    counted: Mapping[str, RowCount],
) -> list[Sequence[Span]]:
    """Return where the rows of the other lists stand, selections left out."""
    return [
        spans
        for other, own in located.items()
        if not _are_nested(path, other) and not (other in counted and counted[other].is_selection)
        for spans in own
    ]


def _are_nested(path: str, other: str) -> bool:
    """Tell whether a list is another one, or in a row of it, or the other way round."""
    return f"{path}/".startswith(f"{other}/") or f"{other}/".startswith(f"{path}/")


def _places(
    source: Source, output: JsonObject, task: AnalysisTask
) -> Mapping[str, list[list[Span]]]:
    """Return where the rows of each list stand: by their quotes, else by their values."""
    analysis, options = analysis_for(task.analysis_type), task.options
    if values := analysis.values_without_place(output, options):
        found = grounding.ground({"evidence": [*values]}, source)
        quoted = json_values.objects(output.get("evidence"))
        output = {**output, "evidence": [*quoted, *json_values.objects(found["evidence"])]}
    return analysis.row_places(output, options)


def _few(names: Sequence[str]) -> list[str]:
    more = len(names) - _MAX_NAMED
    return [*names[:_MAX_NAMED], *([f"{more:,} more"] if more > 0 else [])]


def naming(places: Callable[[], Places], parts: Sequence[Span]) -> Callable[[int, int], str]:
    """Return what names a span of a document: by its page or other place, else by its part."""
    known, starts = cache(places), [start for start, _ in parts]

    def name(start: int, end: int) -> str:
        if place := known().locate(start, end).place:
            return place
        if len(parts) > 1:
            return f"part {bisect_right(starts, start)}"
        return f"characters {start:,}–{end:,}"

    return name


def hint(lost: Sequence[MissingRows], parts: int) -> str:
    """Say what can be done about rows that an answer joined of so many parts lacks."""
    if any(each.records for each in lost):
        return _HINT_OF_RECORDS
    return _HINT if parts > 1 else _HINT_OF_ONE_CHUNK


def together(one: Iterable[MissingRows], other: Iterable[MissingRows]) -> tuple[MissingRows, ...]:
    """Return what two counts of the same output found missing; of a list the larger number."""
    largest: dict[str, MissingRows] = {}
    for each in (*one, *other):
        known = largest.setdefault(each.path, each)
        if each.found > known.found:
            largest[each.path] = each
    return tuple(largest.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Records:
    """Records without a row: their lines by runs, of which each record has `lines_each`.

    It `is_clear` that they are records where the rows are many, and most records of the list.
    """

    runs: Sequence[Sequence[Span]] = ()
    lines_each: float = 1.0
    is_clear: bool = False

    @property
    def number(self) -> int:
        return round(sum(map(len, self.runs)) / self.lines_each)

    @property
    def longest(self) -> int:
        return round(max(map(len, self.runs), default=0) / self.lines_each)


@dataclass(frozen=True, kw_only=True)
class _Lines:
    """The lines of a text that say something, and the shapes of those that were answered."""

    source: Source
    answered: Sequence[Span] | None

    @cached_property
    def _spans(self) -> list[Span]:
        offset = self.source.offset
        found = _lines(self.source.text)
        return [(start + offset, end + offset) for start, end in found]

    @cached_property
    def _ends(self) -> list[int]:
        return [end for _, end in self._spans]

    @cached_property
    def _numbers(self) -> dict[str, list[int]]:
        """The numbers of the lines of each shape."""
        numbers: dict[str, list[int]] = {}
        borders = [border for span in self.answered or () for border in span]
        for number, (start, _) in enumerate(self._spans):
            is_answered = self.answered is None or bisect_right(borders, start) % 2 == 1
            if is_answered and (shape := _shape(self._line(number))):
                numbers.setdefault(shape, []).append(number)
        return numbers

    @cached_property
    def _shapes(self) -> dict[int, str]:
        return {number: shape for shape, own in self._numbers.items() for number in own}

    def without_row(
        self, rows: Sequence[Sequence[Span]], others: Sequence[Sequence[Span]] = ()
    ) -> list[_Records]:
        """Return the lines that look like those in which the rows stand, and have none.

        Those in which rows of other lists stand have one. Most rows have to stand in lines of one
        shape; further shapes count where that is clear.
        """
        left = [own for spans in rows if (own := self._touched(spans))]
        elsewhere = {each for spans in others for each in self._touched(spans)}
        found: list[_Records] = []
        while left:
            shapes = Counter(
                shape for own in left for shape in {self._shapes[each] for each in own}
            )
            shape, count = shapes.most_common(1)[0]
            taken = {each for own in left for each in own if self._shapes[each] == shape}
            is_enough = count >= max(_fewest_rows(shape), _LEAST_SHARE * len(rows) * (not found))
            if not is_enough or len(taken) < _LEAST_LINES_BY_ROW * count:
                break
            records = self._of_shape(shape, taken, count, elsewhere - taken)
            if not found or records.is_clear:
                found.append(records)
            left = [own for own in left if taken.isdisjoint(own)]
        return found

    def _of_shape(self, shape: str, taken: set[int], count: int, elsewhere: set[int]) -> _Records:
        """Return the records of a shape, of which the lines `taken` belong to so many rows."""
        cells = min(_filled_cells(self._line(each)) for each in taken)
        lines = [
            each
            for each in self._numbers[shape]
            if each not in elsewhere
            if each in taken or _filled_cells(self._line(each)) >= cells
        ]
        blocks = list(_blocks(lines, sorted(taken)))
        headers = {self._line(block[0]).strip() for block in blocks if _is_table(shape)}
        runs = [
            left
            for block in blocks
            for is_taken, run in itertools.groupby(block, taken.__contains__)
            if not is_taken and (left := [each for each in run if self._is_record(each, headers)])
        ]
        is_named = _is_table(shape) or shape.startswith(_NAMED)
        share = len(taken) / (len(taken) + sum(map(len, runs)))
        return _Records(
            runs=[[self._spans[each] for each in run] for run in runs],
            lines_each=max(1.0, len(taken) / count),
            is_clear=shape != _LINE_OF_NAMES
            and count >= max(_FEWEST_CLEAR_ROWS, _fewest_rows(shape))
            and share >= (_LEAST_SHARE if is_named else _LEAST_CLEAR_SHARE),
        )

    def _is_record(self, number: int, headers: Collection[str]) -> bool:
        """Tell a record from the header of a table, and from a total or what is added to it."""
        line = self._line(number).strip()
        is_header = line in headers and all(map(_YEARS.fullmatch, _NUMBER.findall(line)))
        label = _NUMBER.split(line, maxsplit=1)[0]
        is_sum = _SUM.search(label) and len(_WORDS_OF_LABEL.findall(label)) <= _MAX_WORDS_OF_SUM
        return not (is_header or is_sum)

    def _touched(self, spans: Sequence[Span]) -> set[int]:
        """Return the numbers of the lines with a shape in which spans stand."""
        found: set[int] = set()
        for start, end in spans:
            number = bisect_right(self._ends, start)
            while number < len(self._spans) and self._spans[number][0] < end:
                found |= {number} & self._shapes.keys()
                number += 1
        return found

    def _line(self, number: int) -> str:
        start, end = (place - self.source.offset for place in self._spans[number])
        return self.source.text[start:end]


def _lines(text: str) -> Iterator[Span]:
    """Yield the lines that have letters or digits, and of long ones the sentences or objects."""
    for line in _LINE.finditer(text):
        start, end = line.span()
        stops = _STOP.finditer(text, start, end) if end - start > _LONGEST_LINE else ()
        for own_start, own_end in itertools.pairwise([start, *(stop.end() for stop in stops), end]):
            if any(map(str.isalnum, text[own_start:own_end])):
                yield own_start, own_end


def _filled_cells(line: str) -> int:
    """Return how many cells of a row are not empty: a row with a total has fewer than others."""
    return sum(1 for cell in _CELL.split(line) if cell.strip())


def _is_table(shape: str) -> bool:
    return shape.startswith(("|", "\t", ",", "columns"))


def _fewest_rows(shape: str) -> int:
    is_line = shape.startswith((_LINE_OF_NAMES, _NAMED))
    return _FEWEST_ROWS_OF_LINES if is_line else _FEWEST_ROWS


def _blocks(numbers: Sequence[int], taken: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield the lines of one shape that stand near each other, where some of them are taken.

    A record may have more lines than one, so that those of the shape stand as far apart as they
    stand where they are taken, or a heading farther.
    """
    least = min((after - before for before, after in itertools.pairwise(taken)), default=1)
    borders = [
        place
        for place, (before, after) in enumerate(itertools.pairwise(numbers), start=1)
        if after - before > least + _LINES_BETWEEN
    ]
    for start, end in itertools.pairwise([0, *borders, len(numbers)]):
        first = bisect_left(taken, numbers[start])
        if first < len(taken) and taken[first] <= numbers[end - 1]:
            yield numbers[start:end]


_LINE_OF_WORDS, _LINE_OF_NAMES, _NAMED = "words ", "words", "name "
_MAX_WORDS_OF_NAME, _LONGEST_NAME = 5, 50


def _shape(line: str) -> str:
    """Return what lines that are records of one list have in common; empty where that is nothing.

    It is the number of cells in a row of a table, the mark of an item of a list, the name in front
    of a value, how many amounts end a line, or how words and numbers follow each other.
    """
    own = line.rstrip("\r\n")
    has_number = _NUMBER.search(own) is not None
    for mark, least in (("|", 2), ("\t", 1)):
        if (count := own.count(mark)) >= least:
            return f"{mark} {count} {has_number}"
    own = own.strip()
    if (item := _ITEM.match(own)) and len(own) <= _LONGEST_ITEM:
        return f"{_LINE_OF_WORDS}{item[1] or item[2]} {len(line) - len(line.lstrip())} {has_number}"
    if key := _KEY.match(own):
        return f"{_NAMED}{_NUMBER.sub('0', key[0]).casefold()}"
    bare = _QUOTED.sub("", own)
    if _DELIMITER.search(bare) and not any(f"{mark} " in bare for mark in ",;"):
        return f", {bare.count(',')} {bare.count(';')} {has_number}"
    if gaps := len(_GAP.findall(own)):
        return f"columns {gaps} {has_number}"
    words = reversed(own.split())
    amounts = sum(1 for _ in itertools.takewhile(_AMOUNT.fullmatch, words))
    if amounts >= _FEWEST_ROWS:
        return f"amounts {amounts}"
    return _shape_of_words(own, has_number=has_number)


def _shape_of_words(line: str, *, has_number: bool) -> str:
    """Return how words and numbers follow each other; without numbers, whether it is a name."""
    if has_number:
        return _LINE_OF_WORDS + _NUMBER.sub("0", _WORDS.sub("a", line))
    is_short = len(line.split()) <= _MAX_WORDS_OF_NAME and len(line) <= _LONGEST_NAME
    is_name = is_short and not line[:1].islower() and line[-1:].isalnum()
    return _LINE_OF_NAMES if is_name else ""


_STORED = TypeAdapter(tuple[MissingRows, ...])


def from_json(stored: JsonValue) -> tuple[MissingRows, ...]:
    """Read what the columns `missing_rows` hold, as its `json_values.plain`; null is none."""
    return _STORED.validate_python(stored or ())


def _listed(missing: Sequence[MissingRows]) -> str:
    named = [str(each) for each in missing[:_MAX_NAMED]]
    if rest := len(missing) - len(named):
        named.append(f"rows of {rest:,} more list{'' if rest == 1 else 's'}")
    return " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)
