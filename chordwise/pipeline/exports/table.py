"""A table on its way out: its columns, and its rows in batches as they arrive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import psycopg

from chordwise.pipeline.runs.user_sql import Row


class Kind(StrEnum):
    """What a column holds, as far as a format treats it in a way of its own."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    FLOAT = "float"
    DECIMAL = "decimal"
    DATE = "date"
    MOMENT = "moment"
    JSON = "json"
    TEXT = "text"


# Their numbers never change (pg_type.dat of PostgreSQL).
_KINDS = {
    16: Kind.BOOLEAN,
    20: Kind.INTEGER,
    21: Kind.INTEGER,
    23: Kind.INTEGER,
    700: Kind.FLOAT,
    701: Kind.FLOAT,
    1700: Kind.DECIMAL,
    1082: Kind.DATE,
    1184: Kind.MOMENT,
    114: Kind.JSON,
    3802: Kind.JSON,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column; `precision` and `scale` are known of decimals that are declared with them."""

    name: str
    kind: Kind = Kind.TEXT
    precision: int | None = None
    scale: int | None = None

    @classmethod
    def described(cls, column: psycopg.Column) -> Column:
        """Return what PostgreSQL says of a column."""
        kind = _KINDS.get(column.type_code, Kind.TEXT)
        return cls(name=column.name, kind=kind, precision=column.precision, scale=column.scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns and rows; the rows can be read once."""

    columns: Sequence[Column]
    batches: Iterator[Sequence[Row]]

    @property
    def names(self) -> list[str]:
        """Return the names of the columns in their order."""
        return [column.name for column in self.columns]
