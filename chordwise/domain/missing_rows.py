"""Rows of lists: how many each part of a document has, and which an answer lacks of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import TypeAdapter

from chordwise.domain import json_values
from chordwise.domain.analyses.analysis import RowCount
from chordwise.domain.analyses.catalog import analysis_for
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.tasks import AnalysisTask

CODE = "missing_rows"
HINT = (
    "The answers of the parts, with all their rows, are in chunks.answer. chordwise retry RUN "
    "joins them again; a larger pipeline.chunk_tokens leaves fewer parts to join. If equal values "
    'are meant to count once, say "uniqueItems": true of the list in your schema.'
)
HINT_OF_ONE_CHUNK = (
    "The model dropped them when it repaired an invalid answer. Submit the document again with "
    "--fresh, with another model (--model) or a smaller pipeline.chunk_tokens."
)
_MAX_NAMED = 5
_PREFIXES = {"/data/": "rows", "/fields/": "values"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingRows:
    """A list of which `kept` of `found` rows are in an answer.

    `path` is a JSON Pointer into the output, with `*` for the position of an enclosing row;
    `/fields/ITEM` stands for the distinct values of an item. `max_items` is the limit that the
    user's schema sets.
    """

    path: str
    kept: int
    found: int
    max_items: int | None = None

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
        return f"{self.kept:,} of {self.found:,} {noun} of `{self.path.removeprefix(prefix)}`"


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
    parts: Sequence[JsonObject | None], output: JsonObject, task: AnalysisTask
) -> list[JsonValue]:
    """Return what the column `row_counts` keeps: the lists of an output and how they came about.

    `parts` are the answers of all chunks in their order, `None` where there is none.
    """
    analysis, options = analysis_for(task.analysis_type), task.options
    by_chunk = [None if part is None else analysis.row_counts([part], options) for part in parts]
    found = analysis.row_counts([part for part in parts if part is not None], options)
    kept = analysis.row_counts([output], options)
    places = analysis.row_places(output, options)
    counted: list[JsonValue] = []
    for path in {**found, **kept}:
        numbers = [None if each is None else _number(each, path) for each in by_chunk]
        read, spans = sum(number or 0 for number in numbers), places.get(path, [])
        counted.append(
            {
                "path": path,
                "by_chunk": list(numbers),
                "repeated": read - _number(found, path),
                "kept": _number(kept, path),
                "located": len(spans),
                "start_char": min((start for start, _ in spans), default=None),
                "end_char": max((end for _, end in spans), default=None),
            }
        )
    return counted


_DENSE = 5
"""A chunk with so many rows of a list is taken to lie within it."""


def gaps(counted: list[JsonValue]) -> list[str]:
    """Say which lists, as `counts` returns them, have chunks without rows in their midst."""
    said = []
    for each in json_values.objects(counted):
        numbers = each["by_chunk"]
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


_STORED = TypeAdapter(tuple[MissingRows, ...])


def from_json(stored: JsonValue) -> tuple[MissingRows, ...]:
    """Read what the columns `missing_rows` hold, as its `json_values.plain`; null is none."""
    return _STORED.validate_python(stored or ())


def _listed(missing: Sequence[MissingRows]) -> str:
    named = [str(each) for each in missing[:_MAX_NAMED]]
    if rest := len(missing) - len(named):
        named.append(f"rows of {rest:,} more list{'' if rest == 1 else 's'}")
    return " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)
