"""The base of all tables: the metadata, column types, and time-ordered ids."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, ClassVar, TypeVar

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Index,
    Insert,
    MetaData,
    Numeric,
    SQLColumnExpression,
    TableValuedAlias,
    Text,
    TextClause,
    any_,
    bindparam,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column

from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.storage.sql_text import words_of

_NANOSECONDS = 1_000_000  # per millisecond


def new_id() -> uuid.UUID:
    """Return a UUIDv7: random, and ascending with the clock (RFC 9562, section 5.7).

    The twelve bits after the milliseconds are a fraction of a millisecond (section 6.2, method 3),
    so that ids created by a process one after another ascend, too.
    """
    milliseconds, nanoseconds = divmod(time.time_ns(), _NANOSECONDS)
    octets = bytearray(milliseconds.to_bytes(6, "big") + os.urandom(10))
    octets[6:8] = (0x7000 | (nanoseconds << 12) // _NANOSECONDS).to_bytes(2, "big")
    octets[8] = octets[8] & 0x3F | 0x80
    return uuid.UUID(bytes=bytes(octets))


def insert_all(
    session: Session, table: type[Record], rows: Sequence[Mapping[str, object]], **same: object
) -> None:
    """Insert rows with the same columns in one statement, with an array for each column.

    `same` holds further columns with the same value, or SQL expression, in all rows.
    """
    if not rows:
        return
    names = tuple(rows[0])
    expressions = tuple(
        (name, value) for name, value in same.items() if isinstance(value, ColumnElement)
    )
    values = {name: value for name, value in same.items() if not isinstance(value, ColumnElement)}
    columns = {name: [row[name] for row in rows] for name in names}
    session.execute(_insertion(table, names, tuple(values), expressions), {**columns, **values})


@lru_cache(maxsize=128)
def _insertion(
    table: type[Record],
    names: tuple[str, ...],
    same: tuple[str, ...],
    expressions: tuple[tuple[str, ColumnElement[object]], ...],
) -> Insert:
    into = table.metadata.tables[table.__tablename__]
    arrays = [bindparam(name, type_=ARRAY(into.c[name].type, dimensions=1)) for name in names]
    rows = func.unnest(*arrays).table_valued(*names).render_derived()
    shared = [bindparam(name, type_=into.c[name].type) for name in same]
    added = [expression for _, expression in expressions]
    return insert(into).from_select(
        [*names, *same, *(name for name, _ in expressions)],
        select(*(rows.c[name] for name in names), *shared, *added),
    )


def update_rows(
    session: Session, table: type[Record], *conditions: ColumnElement[bool], **values: object
) -> bool:
    """Update the rows that meet the conditions; return false if there is none."""
    statement = update(table).where(*conditions).values(**values)
    key = table.metadata.tables[table.__tablename__].primary_key.columns
    return session.execute(statement.returning(*key)).first() is not None


def rows_as_json(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as the parameter of a statement that reads them by `json_populate_recordset`."""
    return json.dumps(rows, allow_nan=False, default=str)


def unnested(table: type[Record], columns: Mapping[str, Sequence[object]]) -> TableValuedAlias:
    """Return values as a table for a statement; the columns have the types of those of `table`."""
    types = table.metadata.tables[table.__tablename__].c
    arrays = [literal(values, ARRAY(types[name].type)) for name, values in columns.items()]
    return func.unnest(*arrays).table_valued(*columns).render_derived()


def in_ids(
    column: SQLColumnExpression[uuid.UUID] | SQLColumnExpression[uuid.UUID | None],
    ids: Collection[uuid.UUID],
) -> ColumnElement[bool]:
    """Return the condition that a column holds one of the ids, whatever their number.

    The ids are one parameter of the statement; the protocol allows 65,535 parameters.
    """
    return column == any_(literal(list(ids), ARRAY(UUID(as_uuid=True))))


def block_range_index(name: str, column: str | TextClause) -> Index:
    """Return an index for the newest times in a column; updates of it stay heap-only (HOT)."""
    small = {"autosummarize": True, "pages_per_range": 16}
    return Index(name, column, postgresql_using="brin", postgresql_with=small)


def words_index(name: str, column: str) -> Index:
    """Return an index for full-text search, to which vacuum adds new words."""
    later = {"gin_pending_list_limit": 65_536}
    return Index(name, text(words_of(column)), postgresql_using="gin", postgresql_with=later)


class Record(DeclarativeBase):
    """The base class of table rows; its subclasses are the tables that migrations must create.

    `migrations/comments.toml` says what the columns mean.
    """

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {
        str: Text(),
        uuid.UUID: UUID(as_uuid=True),
        datetime: DateTime(timezone=True),
        Decimal: Numeric(14, 8),
        JsonObject: JSONB(none_as_null=True),
        JsonValue: JSONB(none_as_null=True),
    }


Copied = TypeVar("Copied")


def copied(kind: type[Copied], row: object, **values: object) -> Copied:
    """Return a dataclass filled from the attributes of a row, except those given in `values`."""
    names = kind.__dataclass_fields__.keys() - values.keys()  # type: ignore[attr-defined]  # of a dataclass
    return kind(**{name: getattr(row, name) for name in names}, **values)


Identity = Annotated[uuid.UUID, mapped_column(primary_key=True, default=new_id)]
CreatedAt = Annotated[datetime, mapped_column(server_default=func.now())]
