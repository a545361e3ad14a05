"""Missing rows: lists of which an answer has fewer rows than the chunks or the text.

Rows are lost when answers are joined or repaired, or when a model leaves out records of the text
(see `unread_records`).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from pydantic import TypeAdapter

from chordwise.domain import grounding, json_values, number_formats, schema_data
from chordwise.domain.analyses.extraction import COUNTS
from chordwise.domain.analysis import RowCount, analysis_for
from chordwise.domain.analysis_tasks import AnalysisTask
from chordwise.domain.grounding import Source
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.outline import Span, label_of, tables, whole_lines, without_mark
from chordwise.domain.places import Places
from chordwise.domain.schema_nodes import SchemaNode
from chordwise.domain.unanswered_records import DENSE, TextEntries, UnreadRecords

_HINT = (
    "The answers of the parts, with all their rows, are in chunks.answer. chordwise continue RUN "
    "joins them again; a larger pipeline.chunk_tokens leaves fewer parts to join."
)
_ALIKE = (
    ' If equal values are meant to count once, set "uniqueItems": true for the list in your schema.'
)
RENEW = (
    "To ask again: chordwise refresh RUN --failed, with another model (--model NAME) or a smaller "
    "pipeline.chunk_tokens."
)
_HINT_OF_ONE_CHUNK = f"The model dropped them when it repaired an invalid answer. {RENEW}"
_HINT_OF_RECORDS = f"The model left records of the text out. {RENEW}"
_SELECTION = (
    ' If the list is meant to hold only some of the records, set "x-selection": true for it in '
    "your JSON Schema (--schema)."
)
_MAX_NAMED = 5
_WORD = re.compile(r"\w++")
_CELL_BORDER = re.compile(r"[|\t,;]|  ")
_FEWEST_NAMES = 2
_LONGEST_QUOTE = 300
_PREFIXES = {"/data/": "rows", "/fields/": "values"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingRows:
    """A list of which an answer has only `kept` of `found` rows.

    `path` is a JSON Pointer into the output, with `*` for the position of an enclosing row;
    `/fields/ITEM` stands for the values of an item. `records` counts the missing rows that are
    records of the text without any answer, and `where` names their places.
    """

    path: str
    kept: int
    found: int
    max_items: int | None = None
    records: int = 0
    where: tuple[str, ...] = ()

    @property
    def expected(self) -> int:
        """Return the number of rows that the answer should have, limited by the schema."""
        return self.found if self.max_items is None else min(self.found, self.max_items)

    @property
    def is_loss(self) -> bool:
        """Return whether rows are missing that the schema would allow."""
        return self.kept < self.expected

    def __str__(self) -> str:
        prefix = next((prefix for prefix in _PREFIXES if self.path.startswith(prefix)), "")
        noun = _PREFIXES.get(prefix, "rows")
        text = f"{self.kept:,} of {self.found:,} {noun} of `{self.path.removeprefix(prefix)}`"
        return f"{text} (without: {'; '.join(self.where)})" if self.where else text


def compare(
    rows: Mapping[str, RowCount], kept: Mapping[str, RowCount], before: Iterable[MissingRows] = ()
) -> tuple[MissingRows, ...]:
    """Return the lists of which fewer rows are kept than found; `before` were already missing."""
    lost, records = Counter[str](), Counter[str]()
    limits = {path: count.max_items for path, count in rows.items()}
    for row_list in before:
        lost[row_list.path] += row_list.found - row_list.kept
        records[row_list.path] += row_list.records
        limits.setdefault(row_list.path, row_list.max_items)
    compared: list[MissingRows] = []
    for path, max_items in limits.items():
        number, expected = _number(kept, path), _number(rows, path) + lost[path]
        missing = MissingRows(path=path, kept=number, found=expected, max_items=max_items)
        compared += [replace(missing, records=records[path])] if number < expected else []
    return tuple(compared)


def stated(answer: JsonObject, output: JsonObject, task: AnalysisTask) -> tuple[MissingRows, ...]:
    """Return the lists with fewer rows than the model states in its `answer`, by `x-count`."""
    rows = analysis_for(task.analysis_type).row_counts([output], task.options)
    root, row_lists = SchemaNode.root_of(task.options.schema or {}), []
    for path in root.counted_lists():
        number = json_values.integer(json_values.at(answer.get(COUNTS), path)) or 0
        kept, max_items = _number(rows, f"/data{path}"), root.at(path).max_items
        missing = MissingRows(path=f"/data{path}", kept=kept, found=number, max_items=max_items)
        row_lists += [replace(missing, records=number - kept)] if number > kept else []
    return tuple(row_lists)


def recounted(
    missing: Iterable[MissingRows], kept: Mapping[str, RowCount]
) -> tuple[MissingRows, ...]:
    """Return the lists that still lack rows after a revision of the answer."""
    now = (replace(row_list, kept=_number(kept, row_list.path)) for row_list in missing)
    return tuple(row_list for row_list in now if row_list.kept < row_list.found)


def losses(missing: Iterable[MissingRows]) -> list[MissingRows]:
    """Return the lists that lack rows which the schema would allow."""
    return [row_list for row_list in missing if row_list.is_loss]


def share(missing: Iterable[MissingRows]) -> float:
    """Return the share of kept rows in the lists with losses; 1 without losses."""
    lost = losses(missing)
    expected = sum(row_list.expected for row_list in lost)
    return sum(row_list.kept for row_list in lost) / expected if lost else 1.0


def sentences(missing: Iterable[MissingRows]) -> list[str]:
    """Return sentences with row counts: lists with losses first, then those at their limit."""
    every = list(missing)
    lost, limited = losses(every), [row_list for row_list in every if not row_list.is_loss]
    said = [f"{_listed(lost)} are in the result."] if lost else []
    if limited:
        limits = "as many as maxItems of the schema allows"
        said.append(f"{_listed(limited)} are in the result, {limits}.")
    return said


def counts(
    parts: Sequence[JsonObject | None],
    output: JsonObject,
    task: AnalysisTask,
    missing: Iterable[MissingRows] = (),
) -> list[JsonValue]:
    """Return the column `row_counts` of an output; `parts` are the answers of chunks, or `None`."""
    analysis, options = analysis_for(task.analysis_type), task.options
    by_chunk = [None if part is None else analysis.row_counts([part], options) for part in parts]
    row_counts = analysis.row_counts([part for part in parts if part is not None], options)
    kept = analysis.row_counts([output], options)
    places = analysis.row_places(output, options)
    unread_by_path = {row_list.path: row_list.records for row_list in missing}
    counted: list[JsonValue] = []
    for path in {**row_counts, **kept}:
        numbers = [None if chunk is None else _number(chunk, path) for chunk in by_chunk]
        read, rows = sum(number or 0 for number in numbers), places.get(path, [])
        spans = [span for row in rows for span in row]
        counted.append(
            {
                "path": path,
                "by_chunk": list(numbers),
                "repeated": read - _number(row_counts, path),
                "kept": _number(kept, path),
                "located": len(rows),
                "unread": unread_by_path.get(path, 0),
                "start_char": min((start for start, _ in spans), default=None),
                "end_char": max((end for _, end in spans), default=None),
            }
        )
    return counted


def gaps(counted: list[JsonValue]) -> list[str]:
    """Return sentences about lists with chunks without rows between chunks with many rows.

    Takes the result of `counts`. Lists with counted unread records are reported separately.
    """
    said = []
    for entry in json_values.objects(counted):
        numbers = entry["by_chunk"] if not entry["unread"] else None
        empty = _empty_within(numbers) if isinstance(numbers, list) else 0
        if empty:
            chunks = "1 chunk has" if empty == 1 else f"{empty} chunks have"
            path = json_values.text(entry["path"])
            said.append(f"{chunks} no rows of {path}, between chunks with many rows.")
    return said


def _empty_within(numbers: Sequence[JsonValue]) -> int:
    """Return the number of chunks without rows, in runs that lie between two chunks with many."""
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


_ITEMS = "/fields/"
_MAX_UNREAD = 2
_MAX_UNREAD_SHARE = 0.02
"""Up to this number or share, scattered records without a row are taken for headers or totals."""


def unread(
    source: Source,
    output: JsonObject,
    task: AnalysisTask,
    answered: Sequence[Span] | None = None,
    place: Callable[[int, int], str] = lambda *_: "",
) -> tuple[MissingRows, ...]:
    """Return the lists for which a text, or the spans `answered` of it, has records without a row.

    If most rows of a list are in lines of one shape, the other lines of that shape near them are
    records, too. Selections and lists of distinct values have no records. `place` names a span.
    """
    analysis, options = analysis_for(task.analysis_type), task.options
    counted = analysis.row_counts([output], options)
    placed = _placed(source, output, task)
    located = analysis.row_places(placed, options)
    if options.schema is not None:
        repeated = schema_data.repetitions(placed, options.schema)
        counted, located = _without_copies(source, counted, located, repeated)
    texts = (json_values.text(value) for _, value in json_values.walk(output.get("data")))
    entries = TextEntries(source, answered, {text.casefold() for text in texts if text})
    row_lists: list[MissingRows | None] = []
    for path, rows in located.items():
        count = counted.get(path)
        if count is None or count.is_selection:
            continue
        others = _rows_elsewhere(path, located, counted)
        records = entries.without_row(rows, others)
        if path.startswith(_ITEMS):
            records = _with_new_values(path, records, rows, source, output)
        row_lists.append(_missing(path, count, len(rows), records, place))
    for path, first in _unread_tables(source, counted, located, task):
        rest = entries.without_row([[first]], _rows_elsewhere(path, located, counted))
        count = counted.get(path, RowCount(number=0))
        missing = _missing(path, count, 0, [*rest, UnreadRecords(runs=[[first]])], place)
        row_lists.append(missing if missing and missing.records > DENSE else None)
    return tuple(filter(None, row_lists))


def _with_new_values(
    path: str,
    records: Sequence[UnreadRecords],
    rows: Sequence[Sequence[Span]],
    source: Source,
    output: JsonObject,
) -> list[UnreadRecords]:
    """Return the records without those that repeat a value of the item, or have another label.

    “Date: 3 May” is no missing party below “Buyer: Acme Corp”.
    """
    read = (
        (json_values.pointer("/fields", json_values.text(field.get("item"))), field.get("value"))
        for field in json_values.objects(output.get("fields"))
    )
    values = {_plain(json_values.text(value)) for item, value in read if item == path} - {"  "}
    labels = {label_of(without_mark(_line(source, row))) for row in rows}

    def is_new(span: Span) -> bool:
        line = source.text[span[0] - source.offset : span[1] - source.offset]
        is_repeated = any(value in _plain(line) for value in values)
        return not is_repeated and label_of(without_mark(line)) in labels

    return [
        replace(group, runs=[new for run in group.runs if (new := list(filter(is_new, run)))])
        for group in records
    ]


def _plain(text: str) -> str:
    return f" {' '.join(_WORD.findall(text.casefold()))} "


def _unread_tables(
    source: Source,
    counted: Mapping[str, RowCount],
    located: Mapping[str, Sequence[Sequence[Span]]],
    task: AnalysisTask,
) -> Iterator[tuple[str, Span]]:
    """Yield each empty or absent list with the first row of a table that names its members."""
    root = SchemaNode.root_of(task.options.schema or {})
    for name in root.properties:
        node, path = root.member(name), json_values.pointer("/data", name)
        is_empty = path not in counted or not counted[path].number
        if not is_empty or not node.is_list or node.is_unique or node.is_selection:
            continue
        names = node.items.properties
        first = _row_below_header(source, {name.replace("_", " ").casefold() for name in names})
        taken = [span for spans in _rows_elsewhere(path, located, counted) for span in spans]
        if first and not any(start < first[1] and first[0] < end for start, end in taken):
            yield path, first


def _row_below_header(source: Source, names: set[str]) -> Span | None:
    for table in tables(source.text):
        header = source.text[slice(*table.header)].partition("\n")[0]
        cells = {cell.strip().casefold() for cell in _CELL_BORDER.split(header)}
        if len(cells & names) >= _FEWEST_NAMES:
            end = source.text.find("\n", table.start) % (table.end + 1)
            return table.start + source.offset, end + source.offset
    return None


def _missing(
    path: str,
    count: RowCount,
    located: int,
    records: Sequence[UnreadRecords],
    place: Callable[[int, int], str],
) -> MissingRows | None:
    number = sum(group.number for group in records) - (count.number - located)
    few = max(_MAX_UNREAD, _MAX_UNREAD_SHARE * (count.number + number))
    is_dense = min(number, max((group.longest for group in records), default=0)) >= DENSE
    # The entries around the values of an item may say anything, as the clauses around two parties;
    # “unpaid invoices” may be a few adjacent rows of a table, and “invoices” are all of them.
    are_values, name = path.startswith(_ITEMS), json_values.steps(path)[-1]
    are_all = are_values and " " not in name
    is_clear = number > 0 and any(
        group.runs and (group.is_clear or (group.is_rest and are_all)) for group in records
    )
    if not is_clear and (are_values or not (is_dense or number > few)):
        return None
    left = sorted(span for group in records for run in group.runs for span in run)
    names = list(dict.fromkeys(filter(None, (place(*span) for span in left))))
    more = len(names) - _MAX_NAMED
    return MissingRows(
        path=path,
        kept=count.number,
        found=count.number + number,
        max_items=count.max_items,
        records=number,
        where=(*names[:_MAX_NAMED], *([f"{more:,} more"] if more > 0 else [])),
    )


def _rows_elsewhere(
    path: str, located: Mapping[str, Sequence[Sequence[Span]]], counted: Mapping[str, RowCount]
) -> list[Sequence[Span]]:
    return [
        spans
        for other, rows in located.items()
        if not json_values.is_within(other, path)
        and not (other in counted and counted[other].is_selection)
        for spans in rows
    ]


def _without_copies(
    source: Source,
    counted: Mapping[str, RowCount],
    located: Mapping[str, list[list[Span]]],
    repeated: Mapping[str, int],
) -> tuple[dict[str, RowCount], dict[str, list[list[Span]]]]:
    """Count equal rows of the same place once, or as often as the text has their lines."""
    counts, places = dict(counted), dict(located)
    if not repeated:
        return counts, places
    lines = Counter(source.text[start:end].strip() for start, end in whole_lines(source.text))
    for path in repeated:
        rows = Counter(tuple(spans) for spans in located[path])
        kept = {row: min(copies, max(1, lines[_line(source, row)])) for row, copies in rows.items()}
        copies = min(rows.total() - sum(kept.values()), repeated[path])
        if copies and path in counts:
            counts[path] = replace(counts[path], number=counts[path].number - copies)
            places[path] = [list(row) for row, number in kept.items() for _ in range(number)]
    return counts, places


def _line(source: Source, row: Sequence[Span]) -> str:
    start = row[0][0] - source.offset
    end = source.text.find("\n", start)
    return source.text[source.text.rfind("\n", 0, start) + 1 : end if end >= 0 else None].strip()


def _placed(source: Source, output: JsonObject, task: AnalysisTask) -> JsonObject:
    """Add evidence for rows without a quote of their own, found by their values."""
    if task.options.schema is None:
        return output

    def is_long(start: int, end: int) -> bool:
        quote = source.text[start - source.offset : end - source.offset].strip()
        return "\n" in quote or len(quote) > _LONGEST_QUOTE

    output = schema_data.without_shared_quotes(output, is_long)
    values: list[JsonValue] = [*schema_data.values_without_place(output)]
    grounded = json_values.objects(grounding.ground({"evidence": values}, source)["evidence"])
    return {**output, "evidence": [*json_values.objects(output.get("evidence")), *grounded]}


def naming(places: Callable[[], Places], parts: Sequence[Span]) -> Callable[[int, int], str]:
    """Return a function that names a span of a document by its page, other place or chunk."""
    known, starts = cache(places), [start for start, _ in parts]

    def name(start: int, end: int) -> str:
        if place := known().locate(start, end).place:
            return place
        if len(parts) > 1:
            return f"part {bisect_right(starts, start)}"
        return f"characters {start:,}–{end:,}"

    return name


def hint(lost: Sequence[MissingRows], parts: int) -> str:
    """Return advice about missing rows in an answer that was joined from `parts` chunks."""
    has_schema = any(not row_list.path.startswith(_ITEMS) for row_list in lost)
    if any(row_list.records for row_list in lost):
        return _HINT_OF_RECORDS + _SELECTION * has_schema
    return _HINT + _ALIKE * has_schema if parts > 1 else _HINT_OF_ONE_CHUNK


def union(one: Iterable[MissingRows], other: Iterable[MissingRows]) -> tuple[MissingRows, ...]:
    """Return the union of two counts of one output; for a list in both, the larger one."""
    largest: dict[str, MissingRows] = {}
    for row_list in (*one, *other):
        known = largest.get(row_list.path, row_list)
        largest[row_list.path] = max(known, row_list, key=lambda counted: counted.found)
    return tuple(largest.values())


_STORED = TypeAdapter(tuple[MissingRows, ...])


def from_json(stored: JsonValue) -> tuple[MissingRows, ...]:
    """Read the value of a column `missing_rows`; null is an empty tuple."""
    return _STORED.validate_python(stored or ())


def _listed(missing: Sequence[MissingRows]) -> str:
    texts = [str(row_list) for row_list in missing[:_MAX_NAMED]]
    if rest := len(missing) - len(texts):
        texts.append(f"rows of {number_formats.counted(rest, 'more list')}")
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
