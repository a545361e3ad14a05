"""What every table has in common: the metadata, column types, and time-ordered ids."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Collection
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, ClassVar

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Index,
    MetaData,
    Numeric,
    SQLColumnExpression,
    Text,
    any_,
    func,
    literal,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID
from sqlalchemy.orm import DeclarativeBase, mapped_column

from chordwise.domain.json_values import JsonObject, JsonValue


def new_id() -> uuid.UUID:
    """Return a UUIDv7: random, and ascending with the clock (RFC 9562, section 5.7)."""
    milliseconds = (time.time_ns() // 1_000_000).to_bytes(6, "big")
    octets = bytearray(milliseconds + os.urandom(10))
    octets[6] = octets[6] & 0x0F | 0x70
    octets[8] = octets[8] & 0x3F | 0x80
    return uuid.UUID(bytes=bytes(octets))


def among(
    column: SQLColumnExpression[uuid.UUID], ids: Collection[uuid.UUID]
) -> ColumnElement[bool]:
    """Return the condition that a column holds one of the ids, however many those are.

    They are one parameter of the statement, of which the protocol allows 65,535.
    """
    return column == any_(literal(list(ids), ARRAY(UUID(as_uuid=True))))


def status_among(states: Collection[StrEnum]) -> str:
    """Return the condition of a partial index: the status is one of these."""
    return f"status IN ({', '.join(repr(state.value) for state in states)})"


def block_range_index(name: str, column: str) -> Index:
    """Return an index for the newest moments in a column; updates of it stay heap-only (HOT)."""
    small = {"autosummarize": True, "pages_per_range": 16}
    return Index(name, column, postgresql_using="brin", postgresql_with=small)


class Record(DeclarativeBase):
    """A row of a table; the mapped classes are the tables that migrations must produce."""

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


Identity = Annotated[uuid.UUID, mapped_column(primary_key=True, default=new_id)]
CreatedAt = Annotated[datetime, mapped_column(server_default=func.now())]
