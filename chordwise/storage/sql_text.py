"""Parts of statements that tables, their indexes and relations share."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from psycopg import sql

SEARCHED_CHARACTERS = 100_000
"""The indexed part of a text; its words amount to less than a megabyte."""


def quoted_name(*names: str) -> str:
    """Return a name as an identifier, with those of its schema or table before it."""
    return sql.Identifier(*names).as_string(None)


def quoted_value(value: object) -> str:
    """Return a value as a literal."""
    return sql.Literal(value).as_string(None)


def status_in(states: Collection[StrEnum]) -> str:
    """Return the condition of a partial index that the status is one of these."""
    return f"status IN ({', '.join(repr(state.value) for state in states)})"


def day_of(column: str) -> str:
    """Return the SQL for the UTC day of a column, as used by the views by day and their index."""
    return f"(({column} AT TIME ZONE 'UTC')::date)"


def words_of(column: str) -> str:
    """Return the SQL for the searchable words at the beginning of a text column.

    A `tsvector` holds at most a megabyte; a longer one would make the insert fail. A statement uses
    the index only if it repeats this expression.
    """
    return f"to_tsvector('simple', \"left\"({column}, {SEARCHED_CHARACTERS}))"
