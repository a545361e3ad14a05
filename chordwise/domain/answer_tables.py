"""The columns of the tables in the schema `answers`: the requested values, as SQL columns.

A profile, or a run that is saved under a name, has one table with a row for each document, and a
further table for each list of objects in its JSON Schema with a row for each element.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count

from pydantic import TypeAdapter

from chordwise.domain import identifiers, items, json_values
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.items import ColumnKind
from chordwise.domain.json_values import JsonValue
from chordwise.domain.schema_nodes import SchemaNode
from chordwise.errors import UsageError

MAX_COLUMNS = 500
"""The maximum number of values in a row, which have up to three SQL columns each."""
_MAX_DEPTH = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerColumn:
    """A column; `item` is the item of its facts, and `rows` the list that contains them, if any.

    `description` becomes its comment. `is_replaced` is set while the newest question asks for the
    same values in another kind. A column of the entities of another one has this one's name with
    its view in `grouped`, as `contracts.parties`, and what the values name in `entity_kind`.
    """

    name: str
    item: str
    kind: ColumnKind
    rows: str = ""
    analysis_type: AnalysisType = AnalysisType.EXTRACTION
    description: str = ""
    is_replaced: bool = False
    grouped: str = ""
    entity_kind: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """The identity of the shown values; columns with equal keys show the same."""
        return self.analysis_type, self.rows, self.item, self.kind

    @property
    def pointer(self) -> str:
        """The JSON Pointer of the value in its row, or in the data of an answer to a schema."""
        names = self.item.removeprefix(f"{self.rows}.").split(".")
        is_pointer = self.kind is ColumnKind.JSON
        return self.item if is_pointer else "".join(json_values.pointer("", n) for n in names)


BASE_COLUMNS = (
    *("document", "source", "status", "needs_review", "needs_check", "confidence", "unread"),
    *("run", "analyzed_at", "document_id", "job_id"),
    *("row_index", "parent_row", "quote", "grounded", "path"),
)
"""The columns of every table, and of the tables of lists."""


def kind_of_rows(types: Sequence[AnalysisType]) -> AnalysisType:
    """Return the analysis type whose jobs are the rows of a table, one for each document."""
    return AnalysisType.EXTRACTION if AnalysisType.EXTRACTION in types else types[0]


def columns_for(types: Sequence[AnalysisType], options: AnalysisOptions) -> list[AnswerColumn]:
    """Return the columns for the answers to a question, at most `MAX_COLUMNS`."""
    columns = [column for kind in types for column in _of_type(kind, options)]
    return _named(columns[:MAX_COLUMNS])


def with_new_columns(
    old: Sequence[AnswerColumn], columns: Sequence[AnswerColumn]
) -> list[AnswerColumn]:
    """Return the old columns, followed by the new ones.

    A column with another kind than before gets a separate name, and replaces the old column.
    """
    known = {column.key for column in old}
    keys = {column.key for column in columns}
    items = {column.key[:-1] for column in columns}

    def is_replaced(column: AnswerColumn) -> bool:
        return not column.grouped and column.key not in keys and column.key[:-1] in items

    all_columns = _named([column for column in columns if column.key not in known], old)
    return [replace(column, is_replaced=is_replaced(column)) for column in all_columns]


def family_of(name: str, columns: Sequence[AnswerColumn]) -> tuple[AnswerColumn, AnswerColumn]:
    """Return the column that documents of a family share, and the first date, which orders them.

    Raises:
        UsageError: No column has the name, or no column of a document is a date.
    """
    of_document = [column for column in columns if not column.rows and not column.grouped]
    spellings = (name, identifiers.sql_identifier(name))
    keys = [column for column in of_document if {column.item, column.name} & {*spellings}]
    dates = [column for column in of_document if column.kind is ColumnKind.DATE]
    if not keys:
        known = ", ".join(column.item for column in of_document)
        raise UsageError(
            f"The family is named by “{name}”, which is not asked for.", f"Items: {known}."
        )
    if not dates:
        raise UsageError(
            "Documents of a family need a date, by which one replaces another.",
            "Declare an item as a date: --items 'effective date: date'.",
        )
    return keys[0], dates[0]


_STORED = TypeAdapter(list[AnswerColumn])


def from_json(stored: JsonValue) -> list[AnswerColumn]:
    """Parse columns from `answer_tables.columns`, which holds their `json_values.as_json`."""
    return _STORED.validate_python(stored)


# The columns of each analysis type


def _of_type(kind: AnalysisType, options: AnalysisOptions) -> Iterator[AnswerColumn]:
    if kind != AnalysisType.EXTRACTION:
        analysis = analysis_for(kind)
        for name, item in analysis.label_columns.items():
            yield AnswerColumn(name=name, item=item, kind=ColumnKind.LABEL, analysis_type=kind)
        for name, item in analysis.score_columns.items():
            yield AnswerColumn(name=name, item=item, kind=ColumnKind.SCORE, analysis_type=kind)
    elif options.schema is not None:
        yield from _of_node(SchemaNode.root_of(options.schema), (), ())
    else:
        for name, declared in items.of(options).items():
            yield AnswerColumn(
                name=name, item=name, kind=declared.kind, description=f"Asked for: {name}"
            )


def _of_node(
    node: SchemaNode, names: tuple[str, ...], rows: tuple[str, ...]
) -> Iterator[AnswerColumn]:
    """Yield the columns for a value of the schema of a user; objects by their members.

    A value that cannot be split is one JSON column: an open object, a list of other values, and a
    value nested deeper than `_MAX_DEPTH`.
    """
    is_shallow = len(names) <= _MAX_DEPTH
    if node.properties and is_shallow and node.types <= {"object", "null"}:
        for name in node.properties:
            yield from _of_node(node.member(name), (*names, name), rows)
    elif is_shallow and _is_list_of_objects(node):
        yield from _of_node(node.items, names, names)
    else:
        kind = _kind_of(node)
        below = names[len(rows) :]
        pointer = "".join(json_values.pointer("", name) for name in below)
        yield AnswerColumn(
            name=".".join(below) or "data",
            item=pointer if kind is ColumnKind.JSON else ".".join(names) or "data",
            kind=kind,
            rows=".".join(rows),
            description=node.description,
        )


def _is_list_of_objects(node: SchemaNode) -> bool:
    items = node.items
    is_list = "array" in node.types and not node.is_tuple
    return is_list and bool(items.properties) and items.types <= {"object", "null"}


def _kind_of(node: SchemaNode, levels: int = _MAX_DEPTH) -> ColumnKind:
    types = node.types - {"null"}
    if types == {"array"} and levels:
        return {
            ColumnKind.NUMBER: ColumnKind.NUMBERS,
            ColumnKind.DATE: ColumnKind.DATES,
            ColumnKind.JSON: ColumnKind.JSON,
        }.get(_kind_of(node.items, levels - 1), ColumnKind.TEXTS)
    if not node.is_scalar:
        return ColumnKind.JSON
    if types and types <= {"integer", "number"}:
        return ColumnKind.NUMBER
    if types == {"boolean"}:
        return ColumnKind.BOOLEAN
    return ColumnKind.DATE if node.format == "date" else ColumnKind.TEXT


# Names


def _named(
    columns: Sequence[AnswerColumn], there: Sequence[AnswerColumn] = ()
) -> list[AnswerColumn]:
    result = list(there)
    for column in columns:
        beside = (other for other in result if other.rows == column.rows)
        taken = {*BASE_COLUMNS, *(name for other in beside for name in sql_names(other))}
        name = identifiers.sql_identifier(column.name) or "value"
        names = chain((name, f"{name}_{column.kind}"), (f"{name}_{n}" for n in count(2)))
        renamed = (replace(column, name=candidate) for candidate in names)
        result.append(next(one for one in renamed if taken.isdisjoint(sql_names(one))))
    return result


def sql_names(column: AnswerColumn) -> Iterator[str]:
    """Yield the names of the SQL columns of a column; an amount of money has three."""
    yield column.name
    yield f"{column.name}_trust"
    if column.kind is ColumnKind.MONEY:
        yield f"{column.name}_currency"
