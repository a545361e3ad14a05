"""Choosing the writer of a format."""

from __future__ import annotations

from typing import BinaryIO, assert_never

from chordwise.domain.export_formats import ExportFormat
from chordwise.pipeline.exports import parquet
from chordwise.pipeline.exports.table import Table, write_csv, write_json_lines


def require(wanted: ExportFormat) -> None:
    """Make sure that a format can be written.

    Raises:
        ConfigurationError: Its library is not installed.
    """
    if wanted is ExportFormat.PARQUET:
        parquet.require()


def write(sink: BinaryIO, table: Table, wanted: ExportFormat, *, raw: bool = False) -> int:
    """Write a table in a format; return how many rows those were.

    `raw` leaves texts that begin like formulas as they are in CSV and XLSX; the other formats
    never change them.

    Raises:
        UsageError: The format cannot hold a value.
    """
    match wanted:
        case ExportFormat.CSV:
            return write_csv(sink, table, raw=raw)
        case ExportFormat.JSONL:
            return write_json_lines(sink, table)
        case ExportFormat.PARQUET:
            return parquet.write(sink, table)
        case ExportFormat.XLSX:
            # XlsxWriter takes long to load, and the scheduler may never need it.
            from chordwise.pipeline.exports import workbook  # noqa: PLC0415 - see above

            return workbook.write(sink, table, raw=raw)
        case _:
            assert_never(wanted)
