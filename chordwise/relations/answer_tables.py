"""The tables of answers as their page shows them: rows by page, totals, distributions and cells."""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from psycopg import Connection
from psycopg.errors import DataError

from chordwise.domain import json_values
from chordwise.domain.answer_tables import AnswerColumn
from chordwise.domain.facts import DATA
from chordwise.domain.items import ColumnKind
from chordwise.domain.trust import Trust
from chordwise.errors import UsageError
from chordwise.relations.relation import Relation, Row, Values, rows
from chordwise.storage import answer_tables
from chordwise.storage.answer_tables import SCHEMA, AnswerTable
from chordwise.storage.sql_text import quoted_name, quoted_value

NUMBERS = frozenset({ColumnKind.NUMBER, ColumnKind.MONEY, ColumnKind.SCORE})
MAX_LIST_ROWS = 200
_MAX_VALUES = 6
_IS_PREVIEW = """SELECT EXISTS (
    SELECT FROM answer_jobs AS n INNER JOIN results AS r ON r.job_id = n.job_id
    WHERE n.saved_as = %(table)s AND NOT r.language_model
) AS is_preview"""
_CELL = """SELECT n.job_id, n.output ? 'data' AS has_schema, (
    SELECT f.path FROM fact_trust AS f
    WHERE f.job_id = n.job_id
        AND (%(item)s::text IS NULL OR f.item = %(item)s)
        AND (%(parent)s::text IS NULL OR f.parent = %(parent)s)
    ORDER BY f.trust, f.fact_id LIMIT 1
) AS path
FROM answer_jobs AS n
WHERE n.saved_as = %(table)s AND n.analysis_type = %(type)s AND n.document_id = %(document_id)s
    AND n.analyzed_at IS NOT NULL"""


@dataclass(frozen=True)
class DocumentTable:
    """A table with a row for each document.

    The filters are those of `documents`: `q` is a part of the document's name or of a value,
    `trust` the state of any cell, `has.COLUMN` a part of a value, `is.COLUMN` a whole value, and
    `from.COLUMN` and `to.COLUMN` limit numbers and dates.
    """

    stored: AnswerTable

    @property
    def name(self) -> str:
        """The name of the table."""
        return self.stored.name

    @cached_property
    def columns(self) -> Mapping[str, AnswerColumn]:
        """The columns with a value for each document, by name."""
        columns = answer_tables.columns_of(self.stored)
        return {column.name: column for column in columns if not column.rows}

    @cached_property
    def lists(self) -> Mapping[str, str]:
        """The names of the views of lists of objects, by the list."""
        columns = answer_tables.columns_of(self.stored)
        return answer_tables.list_views(self.name, columns)

    @property
    def sorts(self) -> Sequence[str]:
        """The columns by which rows can be sorted."""
        return ("document", "needs_check", *self.columns)

    @cached_property
    def documents(self) -> Relation:
        """The ids of the documents, with the number of cells to check."""
        texts = ", ".join(_field(name) for name in ("source", *self.columns))
        states = ", ".join(_field(f"{name}_trust") for name in self.columns)
        filters = {
            "q": f"strpos(lower(concat_ws(' ', {texts})), lower(%(q)s)) > 0",
            "trust": f"""CASE %(trust)s WHEN 'check' THEN t.needs_check > 0
    ELSE %(trust)s = ANY(ARRAY[{states}]::text[]) END""",
        }
        for column in self.columns.values():
            filters |= _filters_of(column)
        view = quoted_name(SCHEMA, self.name)
        query = f"SELECT t.document_id, t.needs_check\nFROM {view} AS t"
        return Relation(query=query, filters=filters)

    def order(self, column: str, *, is_descending: bool, offset: int = 0) -> str:
        """Return the order of `documents` by a column from an offset on; no value is last."""
        direction = "DESC" if is_descending else "ASC"
        by = f"{_field(column)} {direction} NULLS LAST, t.document, t.document_id"
        return f"{by} OFFSET {offset:d}"

    def read(
        self,
        connection: Connection,
        filters: Values,
        order: str,
        limit: int | None,
        after: uuid.UUID | None = None,
    ) -> list[Row]:
        """Return `documents` in an order; with `after`, those whose name follows that document's.

        Raises:
            UsageError: The limit of a column is not a number or a date.
        """
        last = f"""SELECT t.document, t.document_id FROM {quoted_name(SCHEMA, self.name)} AS t
WHERE t.document_id = %(after)s"""
        where = [f"(t.document, t.document_id) > ({last})"] if after else []
        values = {**filters, "after": after}
        with _readable():
            return self.documents.read(connection, values, where=where, order=order, limit=limit)

    def rows(self, connection: Connection, ids: Sequence[uuid.UUID]) -> list[Row]:
        """Return the rows of documents, in this order.

        `whole answer` is the state of the answer as a whole, and `lists of objects` has the number
        of rows (`count`) and the state of each list; no column has such a name.
        """
        answers = rows(
            connection,
            f"""SELECT t.*, a.trust AS "whole answer" FROM {quoted_name(SCHEMA, self.name)} AS t
LEFT JOIN answer_trust AS a ON a.job_id = t.job_id
WHERE t.document_id = ANY(%(ids)s) ORDER BY array_position(%(ids)s, t.document_id)""",
            {"ids": ids},
        )
        lists: dict[uuid.UUID, dict[str, Row]] = defaultdict(dict)
        for name, view in self.lists.items():
            states = [_field(f"{column.name}_trust") for column in self.of_list(name)]
            trust = f"min(least({', '.join([*states, 'NULL::trust'])})) AS trust"
            of_view = f"""SELECT t.document_id, count(*), {trust}
FROM {quoted_name(SCHEMA, view)} AS t WHERE t.document_id = ANY(%(ids)s) GROUP BY t.document_id"""
            for row in rows(connection, of_view, {"ids": ids}):
                lists[row["document_id"]][name] = row
        return [{**row, "lists of objects": lists[row["document_id"]]} for row in answers]

    def of_list(self, name: str) -> Sequence[AnswerColumn]:
        """Return the columns of a list of objects."""
        columns = answer_tables.columns_of(self.stored)
        return [column for column in columns if column.rows == name]

    def path_of_list(self, name: str) -> str:
        """Return the path of a list in an answer; empty for a list in the rows of another one."""
        is_nested = any(name.startswith(f"{other}.") for other in self.lists)
        steps = "" if is_nested else "".join(json_values.pointer("", s) for s in name.split("."))
        return steps and f"{DATA.path}{steps}"

    def list_rows(
        self, connection: Connection, name: str, document_id: uuid.UUID, min_checks: int = 0
    ) -> list[Row]:
        """Return the rows of a list of one document, at most `MAX_LIST_ROWS`.

        `min_checks` is the least number of cells to check in a row.
        """
        statement = f"""SELECT t.* FROM {quoted_name(SCHEMA, self.lists[name])} AS t
WHERE t.document_id = %(document_id)s AND t.needs_check >= %(min_checks)s
ORDER BY t.parent_row, t.row_index LIMIT {MAX_LIST_ROWS}"""
        return rows(connection, statement, {"document_id": document_id, "min_checks": min_checks})

    def next_in_list(
        self, connection: Connection, name: str, document_id: uuid.UUID, after: tuple[str, str]
    ) -> tuple[str, str] | None:
        """Return the next cell to check of a list, as the path of its row and its column.

        `after` is such a cell, or two empty texts for the first one. `None` after the last.
        """
        columns = [column.name for column in self.of_list(name)]

        def place(cell: tuple[str, str]) -> tuple[list[int], int]:
            numbers = [int(step) for step in json_values.steps(cell[0]) if step.isdecimal()]
            return numbers, columns.index(cell[1]) if cell[1] else 0

        cells = [
            (row["path"], column)
            for row in self.list_rows(connection, name, document_id, min_checks=1)
            for column in columns
            if row[f"{column}_trust"] == Trust.CHECK
        ]
        return min((cell for cell in cells if place(cell) > place(after)), key=place, default=None)

    def totals(self, connection: Connection, filters: Values) -> Row:
        """Return the numbers of `documents` and of cells `to_check`, and the states of `columns`.

        A column has the number of its values (`values`) and of its cells in each state.
        """
        cells = ["('', NULL::trust, t.needs_check)"]
        for name in self.columns:
            literal, trust = quoted_value(name), _field(f"{name}_trust")
            cells.append(f"({literal}, {trust}, ({_field(name)} IS NOT NULL)::int)")
        # Each column of the view is computed once, and not again for each number.
        statement = f"""WITH t AS MATERIALIZED (SELECT t.* {self._matching(filters)})
SELECT c.name, c.trust, count(*) AS cells, coalesce(sum(c.number), 0)::bigint AS values
FROM t CROSS JOIN LATERAL (VALUES {", ".join(cells)}) AS c (name, trust, number)
GROUP BY c.name, c.trust"""
        columns: dict[str, Counter[str]] = {name: Counter() for name in ("", *self.columns)}
        with _readable():
            for row in rows(connection, statement, filters):
                columns[row["name"]] += Counter(
                    {"values": row["values"], row["trust"] or "": row["cells"]}
                )
        whole = columns.pop("")
        return {"documents": whole[""], "to_check": whole["values"], "columns": columns}

    def distribution(self, connection: Connection, filters: Values, column: AnswerColumn) -> Row:
        """Return the most frequent `values` of a column with their counts, and its `ranges`.

        A range is the least and the greatest number or date, for amounts by currency.
        """
        field = _field(column.name)
        value = f"unnest({field})" if column.kind.is_list else field
        currency = _field(f"{column.name}_currency")
        code = currency if column.kind is ColumnKind.MONEY else "NULL"
        shown = f"SELECT {value} AS value, {code} AS currency {self._matching(filters)}"
        counted = f"""SELECT value::text AS value, count(*) FROM ({shown} OFFSET 0) AS t
WHERE value IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {_MAX_VALUES}"""
        limits = f"""SELECT currency, min(value) AS least, max(value) AS most
FROM ({shown} OFFSET 0) AS t WHERE value IS NOT NULL GROUP BY 1 ORDER BY 1"""
        with _readable():
            return {
                "values": rows(connection, counted, filters),
                "ranges": rows(connection, limits, filters) if is_limited(column) else [],
            }

    def _matching(self, filters: Values) -> str:
        return self.documents.statement(filters, order="").partition("\n")[2]

    def is_preview(self, connection: Connection) -> bool:
        """Return whether the built-in model has answered for any row."""
        (row,) = rows(connection, _IS_PREVIEW, {"table": self.name})
        return bool(row["is_preview"])

    def cell(
        self,
        connection: Connection,
        document_id: uuid.UUID,
        column: AnswerColumn | None = None,
        parent: str = "",
    ) -> tuple[uuid.UUID, str] | None:
        """Return the job of a cell, and the path of the value that determines its state.

        `None` if there is no value to decide on; one that the answer to a schema left out can be
        decided on. `parent` is the path of the row of a list. Without a column the path is that of
        a list, if `parent` is one, or that of the whole answer.
        """
        is_extracted = column is not None and column.analysis_type == "extraction"
        values = {
            "item": column.item if column and is_extracted else None,
            "parent": parent or None,
            "table": self.name,
            "type": column.analysis_type if column else self.stored.analysis_type,
            "document_id": document_id,
        }
        for row in rows(connection, _CELL, values):
            path = row["path"] if column else parent
            is_left_out = is_extracted and path is None and row["has_schema"]
            if column and (is_left_out or column.kind is ColumnKind.JSON):
                return row["job_id"], f"{parent or DATA.path}{column.pointer}"
            if path is not None or not is_extracted:
                return row["job_id"], path or ""
        return None


def is_limited(column: AnswerColumn) -> bool:
    """Return whether a column has numbers or dates that `from` and `to` can limit."""
    return column.kind in NUMBERS or column.kind is ColumnKind.DATE


def _filters_of(column: AnswerColumn) -> Iterator[tuple[str, str]]:
    name, field = column.name, _field(column.name)
    yield f"has.{name}", f"strpos(lower({field}::text), lower(%(has.{name})s)) > 0"
    texts = f"{field}::text[]" if column.kind.is_list else f"ARRAY[{field}::text]"
    yield f"is.{name}", f"%(is.{name})s = ANY({texts})"
    if is_limited(column):
        kind = "date" if column.kind is ColumnKind.DATE else "numeric"
        yield f"from.{name}", f"{field} >= %(from.{name})s::{kind}"
        yield f"to.{name}", f"{field} <= %(to.{name})s::{kind}"


@contextmanager
def _readable() -> Iterator[None]:
    """Say that a limit cannot be read, instead of the error of the database."""
    try:
        yield
    except DataError as error:
        what = "A limit of a column is not a number or a date."
        raise UsageError(what, "Write dates as 2026-01-31, and numbers as 1200.50.") from error


def _field(name: str) -> str:
    return quoted_name("t", name)
