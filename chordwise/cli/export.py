"""`chordwise export`: views and tables as files for other programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, TypeAlias, cast

import typer

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import OnlyRun, Raw
from chordwise.cli.rendering.plain_text import counted
from chordwise.cli.rendering.screen import until_reader_left
from chordwise.domain.export_formats import ExportFormat
from chordwise.domain.visible_text import visible
from chordwise.errors import UsageError
from chordwise.pipeline.exports import selection, writers
from chordwise.pipeline.exports.selection import Selection
from chordwise.pipeline.exports.table import Table
from chordwise.pipeline.exports.writers import check, new_file
from chordwise.settings import Settings
from chordwise.storage import runs

STDOUT = Path("-")
Format: TypeAlias = Annotated[
    ExportFormat | None,
    typer.Option("--format", help="Without it the file's ending decides; else csv."),
]
Statement: TypeAlias = Annotated[
    str, typer.Option("--sql", metavar='"SELECT …"', help="Instead of a view: one statement.")
]


def export(  # noqa: PLR0913 - a parameter is an option of the command
    invocation: Invocation,
    view: Annotated[
        str | None, typer.Argument(metavar="VIEW", help="A view or table of the SQL cookbook.")
    ] = None,
    *,
    statement: Statement = "",
    run: OnlyRun = None,
    columns: Annotated[
        str, typer.Option(metavar="A,B,C", help="Only these columns, in this order.")
    ] = "",
    wanted_format: Format = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to; - is stdout.")
    ] = STDOUT,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    raw: Raw = False,
) -> None:
    """Write a view or a table into a file. CSV, JSON Lines, Parquet or XLSX.

    chordwise export document_results --run latest --output answers.xlsx

    chordwise export facts --format jsonl > facts.jsonl
    """
    names = [name.strip() for name in columns.split(",") if name.strip()]
    if bool(view) == bool(statement) or (statement and (run or names)):
        raise UsageError(
            "Name a view or table, or a statement with --sql and neither --run nor --columns.",
            "docs/sql-cookbook.md lists the views; document_results has the answers.",
        )
    target = _Target(path=output, format=_chosen_format(wanted_format, output), force=force)
    target.check()
    settings = access.reach(invocation)
    wanted = statement or _selection(settings, view or "", names, run)
    with selection.opened(access.address(settings), wanted) as table:
        count = target.receive(table, raw=raw)
    if output != STDOUT:
        invocation.screen.tell(f"{output} has {counted(count, 'row')}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """Where a table goes."""

    path: Path
    format: ExportFormat
    force: bool

    def check(self) -> None:
        writers.require(self.format)
        if self.path != STDOUT:
            check(self.path, overwrite=self.force)
        elif not self.format.is_text and sys.stdout.isatty():
            raise UsageError(
                f"A terminal cannot show {self.format}.",
                "Say --output FILE, or lead it into a file.",
            )

    def receive(self, table: Table, *, raw: bool) -> int:
        if self.path != STDOUT:
            with new_file(self.path, overwrite=self.force) as sink:
                return writers.write(sink, table, self.format, raw=raw)
        with until_reader_left(), _explaining_a_full_disk():
            sink = cast("BinaryIO", _Terminal()) if sys.stdout.isatty() else sys.stdout.buffer
            return writers.write(sink, table, self.format, raw=raw)


def _chosen_format(wanted: ExportFormat | None, output: Path) -> ExportFormat:
    chosen = wanted or (ExportFormat.CSV if output == STDOUT else ExportFormat.of_file(output))
    if chosen is None:
        raise UsageError(
            f"The ending of {output.name} names no format.",
            f"Say --format with one of {', '.join(ExportFormat)}.",
        )
    return chosen


def _selection(settings: Settings, view: str, columns: list[str], run: str | None) -> Selection:
    if run is None:
        return Selection(name=view, columns=columns)
    with access.read(settings) as session:
        return Selection(name=view, columns=columns, run_id=runs.find(session, run).id)


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
