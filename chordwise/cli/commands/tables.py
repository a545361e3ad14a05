"""Tables and reports: Show the answer tables, and how to connect programs to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text
from sqlalchemy.orm import Session

from chordwise.cli import access, tool_connections
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson
from chordwise.domain.answer_tables import BASE_COLUMNS
from chordwise.domain.number_formats import counted
from chordwise.errors import UsageError
from chordwise.pipeline.intake.answer_tables import prune as prune_table
from chordwise.relations.relation import Relation, Row
from chordwise.rendering import layouts
from chordwise.rendering.plain_text import one_line
from chordwise.rendering.screen import hint, indented
from chordwise.storage import answer_tables
from chordwise.storage.answer_tables import EVIDENCE, OF_EVIDENCE, SCHEMA
from chordwise.storage.database import driver

VIEW_COLUMNS = Relation(
    query="""SELECT
    c.relname AS view, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
    coalesce(col_description(c.oid, a.attnum), '') AS description
FROM pg_class AS c
INNER JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped""",
    filters={
        "views": "c.relnamespace = 'answers'::regnamespace AND c.relname = ANY(%(views)s::text[])"
    },
    order="array_position(%(views)s::text[], c.relname::text), a.attnum",
)

_DESCRIPTION_WIDTH = 200
_LIST_WIDTH = 2_000


def tables(  # noqa: PLR0913 - the options of a command
    invocation: Invocation,
    name: Annotated[
        str | None, typer.Argument(metavar="TABLE", help="Show the columns of this table.")
    ] = None,
    *,
    prune: Annotated[
        bool, typer.Option("--prune", help="Drop columns that are no longer in use.")
    ] = False,
    drop: Annotated[
        bool, typer.Option("--drop", help="Drop the table; the results are kept.")
    ] = False,
    connect: Annotated[
        bool, typer.Option(help="Show how psql, pandas, DuckDB, Excel and others connect.")
    ] = False,
    listen: Annotated[
        str,
        typer.Option(
            metavar="127.0.0.1:PORT", help="Open a read-only port to the embedded database."
        ),
    ] = "",
    reader: Annotated[
        str, typer.Option(metavar="NAME", help="Connect with what this reader may read.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Show the answer tables and example queries. Each profile and --save-as NAME has a table.

    chordwise tables

    chordwise tables contracts

    chordwise tables --connect --listen 127.0.0.1:5433
    """
    if connect or listen:
        tool_connections.show(invocation, listen, reader, as_json=as_json)
        return
    if (prune or drop) and name is None:
        raise UsageError("Name the table to change.", "Example: chordwise tables TABLE --prune")
    if prune and drop:
        raise UsageError("--prune and --drop cannot be used together.")
    settings = access.reach(invocation)
    if name is not None and (prune or drop):
        with access.write(settings) as session:
            change = (_drop if drop else _prune)(session, name)
        invocation.screen.info(change)
        return
    with access.read(settings) as session:
        is_one = name is not None
        stored = [answer_tables.get(session, name)] if name else answer_tables.gather(session)
        views = {table.name: answer_tables.view_names(table) for table in stored}
        columns = {
            table: VIEW_COLUMNS.read(driver(session), {"views": names})
            for table, names in views.items()
        }
    if as_json:
        invocation.screen.write_json(tables=columns)
        return
    if not columns:
        invocation.screen.info(
            "There are no answer tables yet. Analyze with --profile NAME or --save-as NAME."
        )
    for table, described in columns.items():
        invocation.screen.show(*_views_of(table, described, in_full=is_one))


def _drop(session: Session, name: str) -> str:
    answer_tables.drop(session, name)
    return f"Dropped the table {name}. A run with --save-as {name} creates it again."


def _prune(session: Session, name: str) -> str:
    dropped = prune_table(session, name)
    columns = f"{counted(len(dropped), 'column')}: {', '.join(dropped)}"
    return f"Dropped {columns}." if dropped else f"All columns of {name} are in use."


def _views_of(table: str, columns: Sequence[Row], *, in_full: bool) -> Iterator[RenderableType]:
    views = dict.fromkeys(column["view"] for column in columns)
    for view in views:
        if view.endswith(EVIDENCE):
            yield hint(
                f"{SCHEMA}.{view} has the evidence of each column: {', '.join(OF_EVIDENCE)}",
                columns=2,
            )
            continue
        of_view = [column for column in columns if column["view"] == view]
        requested = [column for column in of_view if column["name"] not in BASE_COLUMNS]
        yield Text(f"{SCHEMA}.{view}", style="bold")
        if in_full:
            shown = of_view if view == table else requested
            rows = [
                (name, kind, one_line(description, _DESCRIPTION_WIDTH))
                for _, name, kind, description in (column.values() for column in shown)
            ]
            yield layouts.folded(("Column", "Type", "Description"), rows, ("Column",), indent=2)
        else:
            names = ", ".join(f"{column['name']} {column['type']}" for column in requested)
            yield indented(Text(one_line(names, _LIST_WIDTH), style="dim"), 2)
        yield from (hint(query, columns=2) for query in _queries(view, requested))


_QUERIES = {
    "text": "SELECT {column}, count(*) FROM {table} GROUP BY 1 ORDER BY 2 DESC",
    "date": "SELECT document, {column} FROM {table} WHERE {column} >= DATE '2024-01-01'",
    "numeric": "SELECT document, {column} FROM {table} ORDER BY 2 DESC NULLS LAST",
    "text[]": "SELECT document, unnest({column}) FROM {table}",
}
"""An example query for a column of each type."""
_BY_CURRENCY = "SELECT {column}_currency, sum({column}) FROM {table} GROUP BY 1"


def _queries(view: str, columns: Sequence[Row]) -> Iterator[str]:
    first: dict[str, str] = {}
    for column in columns:
        first.setdefault(column["type"], column["name"])
    names = {column["name"] for column in columns}
    for kind, query in _QUERIES.items():
        if name := first.get(kind):
            chosen = _BY_CURRENCY if f"{name}_currency" in names else query
            yield chosen.format(column=name, table=f"{SCHEMA}.{view}")
