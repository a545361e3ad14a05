"""`chordwise export`: views and tables as files for other programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, cast

import typer

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import OnlyRun, Raw
from chordwise.cli.rendering.screen import until_reader_left
from chordwise.domain.export_formats import ExportFormat
from chordwise.domain.visible_text import visible
from chordwise.domain.wording import counted
from chordwise.errors import UsageError
from chordwise.pipeline.exports import selection, writers
from chordwise.pipeline.exports.selection import Selection
from chordwise.settings import Settings
from chordwise.storage import answer_tables, runs
from chordwise.storage.answer_tables import SCHEMA

STDOUT = Path("-")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """The options of the command: what is written, and where to."""

    view: Annotated[
        str | None, typer.Argument(metavar="VIEW", help="A view or table of the SQL cookbook.")
    ] = None
    sql: Annotated[
        str, typer.Option(metavar='"SELECT …"', help="Instead of a view: one statement.")
    ] = ""
    run: OnlyRun = None
    columns: Annotated[
        str, typer.Option(metavar="A,B,C", help="Only these columns, in this order.")
    ] = ""
    format: Annotated[
        ExportFormat | None,
        typer.Option(help="Without it the file's ending decides; else csv."),
    ] = None
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to; - is stdout.")
    ] = STDOUT
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False
    raw: Raw = False


def export(invocation: Invocation, options: ExportOptions) -> None:
    """Write a view or a table into a file. CSV, JSON Lines, Parquet or XLSX.

    chordwise export document_results --run latest --output answers.xlsx

    chordwise export facts --format jsonl > facts.jsonl
    """
    names = [name.strip() for name in options.columns.split(",") if name.strip()]
    if bool(options.view) == bool(options.sql) or (options.sql and (options.run or names)):
        raise UsageError(
            "Name a view or table, or a statement with --sql and neither --run nor --columns.",
            "docs/sql-cookbook.md lists the views; document_results has the answers.",
        )
    chosen = _checked_format(options)
    settings = access.reach(invocation)
    run_id = None
    if options.run is not None:
        with access.read(settings) as session:
            run_id = runs.find(session, options.run).id
    name = (options.view or "").removeprefix(f"{SCHEMA}.")
    is_whole = name != options.view and run_id is None and not names
    views = _views_of(settings, name) if is_whole and chosen is ExportFormat.XLSX else ()
    address = settings.require_sql_url()
    if views:
        with _opened(options) as sink:
            count = writers.write_answers(sink, address, views, raw=options.raw)
    else:
        wanted = options.sql or Selection(name=options.view or "", columns=names, run_id=run_id)
        with selection.opened(address, wanted) as table, _opened(options) as sink:
            count = writers.write(sink, table, chosen, raw=options.raw)
    if options.output != STDOUT:
        invocation.screen.tell(f"{options.output} has {counted(count, 'row')}.")


def _views_of(settings: Settings, name: str) -> Sequence[str]:
    """Return the views of a table of answers; none where it is a view of its own, or unknown."""
    with access.read(settings) as session:
        found = {table.name: table for table in answer_tables.gather(session)}
    return answer_tables.view_names(found[name]) if name in found else ()


def _checked_format(options: ExportOptions) -> ExportFormat:
    """Return the format to write.

    Raises:
        UsageError: There is none, or it or the file cannot be written.
    """
    output = options.output
    usual = ExportFormat.CSV if output == STDOUT else ExportFormat.of_file(output)
    chosen = options.format or usual
    if chosen is None:
        raise UsageError(
            f"The ending of {output.name} names no format.",
            f"Say --format with one of {', '.join(ExportFormat)}.",
        )
    writers.require(chosen)
    if output != STDOUT:
        writers.check(output, overwrite=options.force)
    elif not chosen.is_text and sys.stdout.isatty():
        raise UsageError(
            f"A terminal cannot show {chosen}.", "Say --output FILE, or lead it into a file."
        )
    return chosen


@contextmanager
def _opened(options: ExportOptions) -> Iterator[BinaryIO]:
    if options.output != STDOUT:
        with writers.new_file(options.output, overwrite=options.force) as sink:
            yield sink
        return
    with until_reader_left(), _explaining_a_full_disk():
        yield cast("BinaryIO", _Terminal()) if sys.stdout.isatty() else sys.stdout.buffer


@contextmanager
def _explaining_a_full_disk() -> Iterator[None]:
    """Translate what the other end of standard output has against being written to.

    Raises:
        UsageError: It takes no more.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(f"Standard output takes no more: {error.strerror}.") from error


class _Terminal:
    """Shows text on a terminal, which must not obey what documents say."""

    def write(self, content: bytes) -> int:
        sys.stdout.write(visible(content.decode()))
        return len(content)
