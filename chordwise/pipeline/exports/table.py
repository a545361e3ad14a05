"""A table to be exported: its columns, and its rows in batches; written as CSV or JSON Lines."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import BinaryIO

import psycopg
from psycopg.postgres import types

from chordwise.domain import json_values
from chordwise.pipeline.runs.user_sql import Row


class ColumnType(StrEnum):
    """The type of a column, as far as a format distinguishes it."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    FLOAT = "float"
    DECIMAL = "decimal"
    DATE = "date"
    TIMESTAMP = "timestamp"
    JSON = "json"
    TEXT = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column; `precision` and `scale` are set for decimals that are declared with them.

    An array column has the kind `TEXT`, and `elements` is the kind of its elements.
    """

    name: str
    kind: ColumnType = ColumnType.TEXT
    precision: int | None = None
    scale: int | None = None
    elements: ColumnType | None = None

    @classmethod
    def described(cls, column: psycopg.Column) -> Column:
        """Return the column that a PostgreSQL column description describes."""
        array = types.get(column.type_code)
        is_array = array is not None and array.array_oid == column.type_code
        return cls(
            name=column.name,
            kind=_KINDS.get(column.type_code, ColumnType.TEXT),
            precision=column.precision,
            scale=column.scale,
            elements=_KINDS.get(array.oid, ColumnType.TEXT) if array and is_array else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns and rows; the rows can be read only once."""

    columns: Sequence[Column]
    batches: Iterator[Sequence[Row]]

    @property
    def names(self) -> list[str]:
        """The names of the columns, in order."""
        return [column.name for column in self.columns]


def write_json_lines(sink: BinaryIO, table: Table) -> int:
    """Write a table as JSON Lines in UTF-8; return the number of rows."""
    names, count = distinct(table.names), 0
    for rows in table.batches:
        objects = (dict(zip(names, row, strict=True)) for row in rows)
        sink.write("".join(f"{json_values.encoded(record)}\n" for record in objects).encode())
        count += len(rows)
    return count


def distinct(columns: Sequence[str]) -> list[str]:
    """Return the names of columns with repeated ones numbered, for use as keys of an object."""
    names: list[str] = []
    for column in columns:
        candidates = itertools.chain([column], (f"{column}_{n}" for n in itertools.count(2)))
        names.append(next(name for name in candidates if name not in names))
    return names


MARK = "'"
# East Asian spreadsheets treat the full-width forms like the ASCII characters.
_BEGINNINGS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - meant


def is_risky(text: str) -> bool:
    """Return whether a spreadsheet might evaluate this text as a formula."""
    return text.startswith(_BEGINNINGS)


def neutralized(text: str) -> str:
    """Return the text, with an apostrophe in front if it might be evaluated."""
    return f"{MARK}{text}" if is_risky(text) else text


def cell_text(value: object, *, raw: bool = False) -> str:
    """Return the text of a value in a cell; unless `raw`, texts like formulas are neutralized.

    NULL is written as an empty string. Numbers are never neutralized, not even negative ones.
    """
    text = text_of(value)
    return text if raw or is_number(value) else neutralized(text)


def is_number(value: object) -> bool:
    """Return whether a value is a finite number; Booleans are not numbers."""
    match value:
        case bool():
            return False
        case int():
            return True
        case float():
            return math.isfinite(value)
        case Decimal():
            return value.is_finite()
        case _:
            return False


def text_of(value: object) -> str:
    """Return a value as text: decimals with all their digits, JSON for lists and objects."""
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case Decimal() if value.is_finite():
            return f"{value:f}"
        case dict() | list():
            return json_values.encoded(value)
        case _:
            plain = json_values.as_json(value)
            return plain if isinstance(plain, str) else repr(plain)


# OIDs of built-in types, which never change (pg_type.dat of PostgreSQL).
_KINDS = {
    16: ColumnType.BOOLEAN,
    20: ColumnType.INTEGER,
    21: ColumnType.INTEGER,
    23: ColumnType.INTEGER,
    700: ColumnType.FLOAT,
    701: ColumnType.FLOAT,
    1700: ColumnType.DECIMAL,
    1082: ColumnType.DATE,
    1184: ColumnType.TIMESTAMP,
    114: ColumnType.JSON,
    3802: ColumnType.JSON,
}
_QUOTED = "\r\n"


def write_csv(sink: BinaryIO, table: Table, *, raw: bool) -> int:
    """Write a table as CSV in UTF-8; return the number of rows."""
    count = 0
    sink.write(_encoded([table.names], raw=raw).encode())
    for rows in table.batches:
        sink.write(_encoded(rows, raw=raw).encode())
        count += len(rows)
    return count


def csv_lines(columns: Sequence[str], rows: Iterable[Row], *, raw: bool) -> Iterator[str]:
    """Yield the lines of CSV with a header, one per row; NULL is an empty cell."""
    for row in itertools.chain([tuple(columns)], rows):
        yield _encoded([row], raw=raw)


def _encoded(rows: Iterable[Sequence[object]], *, raw: bool) -> str:
    lines = _Lines()
    # The module quotes the characters of its line end. A carriage return must be quoted as well,
    # because a spreadsheet begins a new row after it.
    writer = csv.writer(lines, lineterminator=_QUOTED)
    writer.writerows([cell_text(value, raw=raw) for value in row] for row in rows)
    return "".join(lines.written)


class _Lines:
    """Receives each row from the csv module, and replaces its line end with a line feed."""

    def __init__(self) -> None:
        self.written: list[str] = []

    def write(self, line: str) -> None:
        self.written.append(f"{line.removesuffix(_QUOTED)}\n")
