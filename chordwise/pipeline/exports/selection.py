"""Reads tables, views and results of SQL for an export, with the reader role.

Everything is read in one read-only transaction through server-side cursors, in batches limited by
size, so that neither a million rows nor a few very large ones have to fit into memory.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

import psycopg
from psycopg import IsolationLevel, sql
from psycopg.types.json import set_json_loads
from pydantic import SecretStr

from chordwise.errors import UsageError
from chordwise.pipeline.exports.table import Column, Table
from chordwise.pipeline.runs import user_sql
from chordwise.pipeline.runs.user_sql import Connection, Row
from chordwise.storage.answer_tables import SCHEMA

_STATEMENT_SECONDS = 600
"""The timeout for one batch; the first batch of a sorted view takes longest."""
_IDLE_SECONDS = 600
_BATCH_CHARACTERS = 4_000_000
_FIRST_ROWS = 20
_MAX_ROWS = 2_000
_COLUMNS = """
SELECT attname FROM pg_attribute
WHERE attrelid = %s::regclass
    AND attnum > 0 AND NOT attisdropped
ORDER BY attnum
"""
# The condition for the rows of a run, by the first of these columns that a table or view has.
_OF_RUN: Mapping[str, str] = {
    "run_id": "{column} = {run_id}",
    "run": "{column} = (SELECT name FROM runs WHERE id = {run_id})",
    "job_id": "{column} IN (SELECT id FROM jobs WHERE run_id = {run_id})",
    "intake_id": "{column} IN (SELECT id FROM intakes WHERE run_id = {run_id})",
}
_OF_RUN_BY_NAME: Mapping[str, str] = {
    "runs": "id = {run_id}",
    "documents": "id IN (SELECT document_id FROM intakes WHERE run_id = {run_id})",
    # For some calls only the job refers to the run.
    "model_calls": (
        "(run_id = {run_id} OR job_id IN (SELECT id FROM jobs WHERE run_id = {run_id}))"
    ),
}
_ORDER = ("document", "job_id", "parent_row", "row_index")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A table or view; optionally only some of its columns, or only the rows of one run."""

    name: str
    columns: Sequence[str] = ()
    run_id: uuid.UUID | None = None


@contextmanager
def opened(database_url: SecretStr, selection: Selection | str) -> Iterator[Table]:
    """Open a selection or an SQL statement of the user; rows can be read until the block ends.

    Raises:
        UsageError: The table, view or column does not exist, or PostgreSQL rejects the statement.
        ConfigurationError: The reader role is missing, or cannot log in.
    """
    with opened_in_one_snapshot(database_url, [selection]) as (table,):
        yield table


@contextmanager
def opened_in_one_snapshot(
    database_url: SecretStr, selections: Sequence[Selection | str]
) -> Iterator[Sequence[Table]]:
    """Open several selections in one snapshot of the database.

    Raises:
        UsageError: A table, view or column does not exist, or PostgreSQL rejects a statement.
        ConfigurationError: The reader role is missing, or cannot log in.
    """
    for selection in selections:
        if isinstance(selection, str):
            user_sql.check_reading(selection)
    with (
        user_sql.reader(database_url, _STATEMENT_SECONDS, _IDLE_SECONDS) as connection,
        ExitStack() as opened_so_far,
    ):
        names = user_sql.readable_names(connection)
        statements = [
            selection if isinstance(selection, str) else _statement(connection, selection, names)
            for selection in selections
        ]
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        yield [
            opened_so_far.enter_context(_opened(connection, number, statement, names))
            for number, statement in enumerate(statements)
        ]


@contextmanager
def _opened(
    connection: Connection, number: int, statement: str | sql.Composed, readable: Sequence[str]
) -> Iterator[Table]:
    with connection.cursor(f"export{number}") as cursor:
        set_json_loads(partial(json.loads, parse_float=Decimal), cursor)
        with user_sql.explaining(readable, _STATEMENT_SECONDS):
            cursor.execute(statement)
        with closing(_batches(cursor, readable)) as batches:
            columns = [Column.described(column) for column in cursor.description or ()]
            yield Table(columns=columns, batches=batches)


def _batches(
    cursor: psycopg.ServerCursor[Row], readable: Sequence[str]
) -> Generator[Sequence[Row], None, None]:
    """Yield rows in batches of about the same total size."""
    count = _FIRST_ROWS
    while True:
        with user_sql.explaining(readable, _STATEMENT_SECONDS):
            rows = cursor.fetchmany(count)
        if not rows:
            return
        yield rows
        characters = max(1, sum(_size(value) for row in rows for value in row))
        fitting = _BATCH_CHARACTERS * len(rows) // characters
        # A few small rows do not predict the size of the next ones, so growth is limited.
        count = max(1, min(fitting, 4 * count, _MAX_ROWS))


def _size(value: object) -> int:
    if isinstance(value, dict | list):
        return len(str(value))
    return len(value) if isinstance(value, str | bytes) else 8


def _statement(connection: Connection, selection: Selection, names: Sequence[str]) -> sql.Composed:
    if selection.name not in names:
        raise UsageError(
            f"There is no table or view “{selection.name}” to export.",
            user_sql.similar(selection.name, names),
        )
    name = sql.Identifier(*selection.name.split("."))
    columns = [str(row[0]) for row in connection.execute(_COLUMNS, (name.as_string(connection),))]
    connection.rollback()
    unknown = [column for column in selection.columns if column not in columns]
    if unknown:
        raise UsageError(
            f"{selection.name} has no column “{unknown[0]}”.", f"Columns: {', '.join(columns)}."
        )
    return sql.SQL("SELECT {} FROM {} WHERE {}{}").format(
        sql.SQL(", ").join(map(sql.Identifier, selection.columns or columns)),
        name,
        sql.SQL("true")
        if selection.run_id is None
        else _of_run(selection.name, columns, selection.run_id),
        _ordered(selection.name, columns),
    )


def _ordered(name: str, columns: Sequence[str]) -> sql.Composable:
    """Return the ORDER BY clause of a table of answers: by document, then by position in it."""
    by = [column for column in _ORDER if column in columns] if name.startswith(f"{SCHEMA}.") else []
    if not by:
        return sql.SQL("")
    return sql.SQL(" ORDER BY {}").format(sql.SQL(", ").join(map(sql.Identifier, by)))


def _of_run(name: str, columns: Sequence[str], run_id: uuid.UUID) -> sql.Composed:
    column = next((key for key in _OF_RUN if key in columns), "")
    condition = _OF_RUN_BY_NAME.get(name) or _OF_RUN.get(column)
    if condition is None:
        raise UsageError(
            f"The rows of {name} do not belong to runs.", "Omit --run, or use another view."
        )
    return sql.SQL(condition).format(column=sql.Identifier(column), run_id=sql.Literal(run_id))
