"""Commands 4: Export a view, a table or a query to a file."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, cast

import typer

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import Force, OnlyRun, Raw
from chordwise.domain.export_formats import ExportFormat
from chordwise.domain.identifiers import split_commas
from chordwise.domain.number_formats import counted
from chordwise.domain.visible_text import visible
from chordwise.errors import UsageError
from chordwise.pipeline.exports import selection, writers
from chordwise.pipeline.exports.selection import Selection
from chordwise.rendering.screen import until_reader_left
from chordwise.storage import audit_events, runs
from chordwise.storage.answer_tables import SCHEMA, AnswerTable

STDOUT = Path("-")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """The options of the command."""

    view: Annotated[
        str | None,
        typer.Argument(metavar="VIEW", help="A view or table; docs/sql-cookbook.md lists them."),
    ] = None
    sql: Annotated[str, typer.Option(metavar='"SELECT …"', help="A query instead of a view.")] = ""
    run: OnlyRun = None
    columns: Annotated[
        str, typer.Option(metavar="A,B,C", help="Only these columns, in this order.")
    ] = ""
    format: Annotated[
        ExportFormat | None,
        typer.Option(help="Output format. Default: by the file extension, else csv."),
    ] = None
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write; - is stdout.")
    ] = STDOUT
    all_columns: Annotated[
        bool, typer.Option("--all-columns", help="Also the columns for programs, in a workbook.")
    ] = False
    force: Force = False
    raw: Raw = False


def export(invocation: Invocation, options: ExportOptions) -> None:
    """Export a view, a table or a query to a file. Formats: CSV, JSON Lines, Parquet, XLSX.

    chordwise export document_results --run latest --output answers.xlsx

    chordwise export facts --format jsonl > facts.jsonl
    """
    names = split_commas(options.columns)
    if bool(options.view) == bool(options.sql) or (options.sql and (options.run or names)):
        raise UsageError(
            "Give either a view or --sql; --run and --columns need a view.",
            "Example: chordwise export document_results. docs/sql-cookbook.md lists the views.",
        )
    export_format = _checked_format(options)
    settings = access.reach(invocation)
    run_id = None
    if options.run is not None:
        with access.read(settings) as session:
            run_id = runs.find(session, options.run).id
    is_whole = export_format is ExportFormat.XLSX and run_id is None and not names
    schema, _, name = (options.view or "").partition(".")
    answers = None
    if is_whole and schema == SCHEMA:
        with access.read(settings) as session:
            answers = session.get(AnswerTable, name)
    if answers is not None:
        from chordwise.pipeline.exports import answer_workbook  # noqa: PLC0415 - slow to import

        with _opened(options) as sink:
            count = answer_workbook.write(
                sink, settings, answers, raw=options.raw, all_columns=options.all_columns
            )
    else:
        query = options.sql or Selection(name=options.view or "", columns=names, run_id=run_id)
        address = settings.require_sql_url()
        with selection.opened(address, query) as table, _opened(options) as sink:
            count = writers.write(sink, table, export_format, raw=options.raw)
    if settings.reader_url is None:  # whose role may not write
        with access.write(settings) as session:
            subject = options.view or audit_events.about_statement(options.sql)
            audit_events.record(session, getpass.getuser(), "exported", subject)
    if options.output != STDOUT:
        invocation.screen.info(f"Wrote {counted(count, 'row')} to {options.output}.")


def _checked_format(options: ExportOptions) -> ExportFormat:
    output = options.output
    usual = ExportFormat.CSV if output == STDOUT else ExportFormat.of_file(output)
    export_format = options.format or usual
    if export_format is None:
        raise UsageError(
            f"The extension of {output.name} is not a known format.",
            f"Use --format with one of {', '.join(ExportFormat)}.",
        )
    writers.require(export_format)
    if output != STDOUT:
        writers.check(output, overwrite=options.force)
    elif not export_format.is_text and sys.stdout.isatty():
        raise UsageError(
            f"A terminal cannot show {export_format}.",
            "Use --output FILE, or redirect the output to a file.",
        )
    return export_format


@contextmanager
def _opened(options: ExportOptions) -> Iterator[BinaryIO]:
    if options.output != STDOUT:
        with writers.new_file(options.output, overwrite=options.force) as sink:
            yield sink
        return
    with until_reader_left():
        try:
            yield cast("BinaryIO", _Terminal()) if sys.stdout.isatty() else sys.stdout.buffer
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:  # such as a full disk
            raise UsageError(f"Standard output cannot be written to: {error.strerror}.") from error


class _Terminal:
    """Writes text to a terminal with control characters made visible."""

    def write(self, content: bytes) -> int:
        sys.stdout.write(visible(content.decode()))
        return len(content)
