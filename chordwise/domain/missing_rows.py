"""Rows of lists: how many each part of a document has, and which an answer lacks of them.

Rows are lost where answers are joined or repaired, or where a model leaves records of the text out
(see `unread_records`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from pydantic import TypeAdapter

from chordwise.domain import grounding, json_values
from chordwise.domain.analyses.analysis import RowCount
from chordwise.domain.analyses.catalog import analysis_for
from chordwise.domain.grounding import Source
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.places import Places
from chordwise.domain.records import Span
from chordwise.domain.tasks import AnalysisTask
from chordwise.domain.unread_records import DENSE, Lines, UnreadRecords

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
    'the records, say "x-selection": true of it in your JSON Schema (--schema).'
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
        """Return whether rows are missing that the schema leaves room for."""
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
        empty += run if min(before, rows) >= DENSE else 0
        before, run = rows, 0
    return empty


def _number(counted: Mapping[str, RowCount], path: str) -> int:
    return counted[path].number if path in counted else 0


_MAX_UNREAD = 2
_MAX_UNREAD_SHARE = 0.02
"""So many records without a row, not side by side, are taken for headers, totals and the like."""


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
    lines: Lines | None = None
    found: list[MissingRows] = []
    for path, rows in located.items():
        count = counted.get(path)
        if count is None or count.is_selection:
            continue
        lines = lines or Lines(source=source, answered=answered)
        others = _rows_elsewhere(path, located, counted)
        missing = _missing(path, count, len(rows), lines.without_row(rows, others), place)
        found += [missing] if missing else []
    return tuple(found)


def _missing(
    path: str,
    count: RowCount,
    located: int,
    records: Sequence[UnreadRecords],
    place: Callable[[int, int], str],
) -> MissingRows | None:
    """Return what a list lacks, of which so many rows are located; `None` where that is nothing."""
    number = sum(each.number for each in records) - (count.number - located)
    few = max(_MAX_UNREAD, _MAX_UNREAD_SHARE * (count.number + number))
    is_dense = min(number, max((each.longest for each in records), default=0)) >= DENSE
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
    """Return whether a list is another one, or in a row of it, or the other way round."""
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


_STORED = TypeAdapter(tuple[MissingRows, ...])


def from_json(stored: JsonValue) -> tuple[MissingRows, ...]:
    """Read what the columns `missing_rows` hold, as its `json_values.plain`; null is none."""
    return _STORED.validate_python(stored or ())


def _listed(missing: Sequence[MissingRows]) -> str:
    named = [str(each) for each in missing[:_MAX_NAMED]]
    if rest := len(missing) - len(named):
        named.append(f"rows of {rest:,} more list{'' if rest == 1 else 's'}")
    return " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)
