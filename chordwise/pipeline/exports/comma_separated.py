"""CSV with a header line (RFC 4180, but for line ends of a single character)."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from chordwise.pipeline.exports import cells
from chordwise.pipeline.exports.table import Table
from chordwise.pipeline.runs.user_sql import Row

_QUOTED = "\r\n"


def write(sink: BinaryIO, table: Table, *, raw: bool) -> int:
    """Write a table as UTF-8; return how many rows those were."""
    count = 0
    for number, rows in enumerate(itertools.chain([()], table.batches)):
        header = [table.names] if number == 0 else []
        sink.write(_encoded([*header, *rows], raw=raw).encode())
        count += len(rows)
    return count


def lines(columns: Sequence[str], rows: Iterable[Row], *, raw: bool) -> Iterator[str]:
    """Return CSV with a header, row by row; NULL is an empty cell."""
    for row in itertools.chain([tuple(columns)], rows):
        yield _encoded([row], raw=raw)


def _encoded(rows: Iterable[Sequence[object]], *, raw: bool) -> str:
    lines = _Lines()
    # The module quotes what its line end is made of, and a carriage return has to be, too: for a
    # spreadsheet it begins a row, and what follows it a cell.
    writer = csv.writer(lines, lineterminator=_QUOTED)
    writer.writerows([cells.shown(value, raw=raw) for value in row] for row in rows)
    return "".join(lines.written)


class _Lines:
    """Takes row after row from the module, and gives each the line end that we want."""

    def __init__(self) -> None:
        self.written: list[str] = []

    def write(self, line: str) -> None:
        self.written.append(f"{line.removesuffix(_QUOTED)}\n")
