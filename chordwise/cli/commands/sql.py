"""Commands 5: Run a read-only SQL query."""

from __future__ import annotations

import itertools
from typing import Annotated

import typer
from rich.text import Text

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, Raw
from chordwise.errors import UsageError
from chordwise.pipeline.exports.table import csv_lines, distinct
from chordwise.pipeline.runs import user_sql
from chordwise.rendering import layouts
from chordwise.rendering.plain_text import SCHEMA_VERSION, encoded, one_line
from chordwise.rendering.screen import Screen

MAX_ROWS = 100
_CELL_WIDTH = 300
# The minimum width of a wrapped text column.
_PROSE_WIDTH = 20


def sql(
    invocation: Invocation,
    statement: Annotated[str, typer.Argument(metavar='"SELECT …"', help="One SQL statement.")],
    *,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header line.")] = False,
    as_json: AsJson = False,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help=f"Maximum rows. Default: {MAX_ROWS} in a table, else all."),
    ] = None,
    raw: Raw = False,
) -> None:
    """Run a read-only SQL query.

    chordwise sql "SELECT document, governing_law FROM answers.contracts"

    chordwise sql --csv "SELECT * FROM fact_quotes WHERE grounded" > facts.csv
    """
    if as_csv and as_json:
        raise UsageError("--csv and --json cannot be used together.")
    screen = invocation.screen
    with user_sql.run_query(access.reach(invocation).require_sql_url(), statement) as answer:
        if as_csv:
            rows = itertools.islice(answer.rows, limit)
            for line in csv_lines(answer.columns, rows, raw=raw):
                screen.write(line)
        elif as_json:
            names = distinct(answer.columns)
            start = f'{{"schema_version": {SCHEMA_VERSION}, "columns": {encoded(names)}, "rows": ['
            screen.write(start)
            for number, row in enumerate(itertools.islice(answer.rows, limit)):
                members = dict(zip(names, row, strict=True))
                screen.write(f"{',' if number else ''}\n  {encoded(members)}")
            screen.write("\n]}\n")
        else:
            _show_table(screen, answer, limit or MAX_ROWS)


def _show_table(screen: Screen, answer: user_sql.QueryResult, limit: int) -> None:
    rows = list(itertools.islice(answer.rows, limit + 1))
    names = [one_line(column) for column in answer.columns]
    cells = [[_cell(value) for value in row] for row in rows[:limit]]
    table = layouts.table(names, cells, _PROSE_WIDTH)
    screen.show(layouts.FirstThatFits(table, layouts.records(names, cells)))
    if len(rows) > limit:
        screen.info(f"Showing the first {limit} rows. Use --limit N, --csv or --json for more.")
    elif not rows:
        screen.info("No rows.")


def _cell(value: object) -> Text:
    if value is None:
        return Text("∅", style="dim")
    text = value if isinstance(value, str) else encoded(value).strip('"')
    return Text(
        one_line(text, _CELL_WIDTH), justify="left" if isinstance(value, str) else "default"
    )
