"""A relation: rows that every command, page and method of the client reads in the same way."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from psycopg import Connection, sql
from psycopg.rows import DictRow, dict_row

Row: TypeAlias = DictRow
Values: TypeAlias = Mapping[str, object]
_PARAMETER = re.compile(r"%\((\w+)\)s")
_NO_VALUES: Values = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A query up to its WHERE clause, the conditions that can narrow it, and its order.

    A condition refers to the value of its name, as `%(name)s`, and applies if that is given:
    neither `None` nor empty. Other values belong to the query.
    """

    query: str
    filters: Mapping[str, str] = field(default_factory=dict)
    order: str = ""

    def statement(
        self,
        values: Values,
        where: Sequence[str] = (),
        order: str | None = None,
        limit: int | None = None,
    ) -> str:
        """Return the statement for these values, with further conditions and another order."""
        names = [name for name, value in values.items() if value not in (None, "", ())]
        conditions = [*(self.filters[name] for name in names if name in self.filters), *where]
        parts = [self.query]
        parts += [f"WHERE {' AND '.join(conditions)}"] if conditions else []
        order = self.order if order is None else order
        parts += [f"ORDER BY {order}"] if order else []
        parts += [f"LIMIT {limit:d}"] if limit is not None else []
        return "\n".join(parts)

    def read(
        self,
        connection: Connection,
        values: Values = _NO_VALUES,
        *,
        where: Sequence[str] = (),
        order: str | None = None,
        limit: int | None = None,
    ) -> list[Row]:
        """Return the rows that match, at most `limit`."""
        return rows(connection, self.statement(values, where, order, limit), values)

    def one(self, connection: Connection, values: Values) -> Row:
        """Return the only row that matches."""
        (row,) = self.read(connection, values)
        return row

    def count(
        self,
        connection: Connection,
        values: Values = _NO_VALUES,
        *,
        where: Sequence[str] = (),
        limit: int | None = None,
    ) -> int:
        """Return the number of rows that match; counting stops at `limit`."""
        matching = self.statement(values, where, "", limit)
        (row,) = rows(connection, f"SELECT count(*) FROM ({matching}) AS matching", values)
        return int(row["count"])


def rows(connection: Connection, statement: str, values: Values = _NO_VALUES) -> list[Row]:
    """Run a statement and return its rows."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement.encode(), values).fetchall()


def literal(statement: str, values: Values) -> str:
    """Return a statement with its values written out, for users to copy."""
    return _PARAMETER.sub(lambda name: sql.Literal(values[name[1]]).as_string(), statement)
