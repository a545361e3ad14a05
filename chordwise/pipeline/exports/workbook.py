"""Writes XLSX with XlsxWriter: row by row to temporary files; strings never become formulas."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO

from xlsxwriter import Workbook
from xlsxwriter.format import Format
from xlsxwriter.utility import xl_col_to_name
from xlsxwriter.worksheet import Worksheet

from chordwise.errors import UsageError
from chordwise.pipeline.exports import table
from chordwise.pipeline.exports.table import Table, is_risky
from chordwise.pipeline.runs.user_sql import Row

MAX_ROWS = 1_048_576
"""The rows of a sheet, including the header (the limit of Excel; ECMA-376 sets none)."""
MAX_CHARACTERS = 32_767
"""The characters of a cell (the limit of Excel; ECMA-376 sets none)."""
MAX_TITLE = 31
"""The length of the title of a sheet, in characters."""
_MIN_TABLE = 8  # characters of a table's name before the name of its list
_MAX_LINKS = 65_000  # Excel reads 65,530 in a sheet
_FIRST_DAY = date(1900, 3, 1)  # Excel counts a nonexistent February 29 in 1900


def write(sink: BinaryIO, table: Table, *, raw: bool, max_rows: int = MAX_ROWS) -> int:
    """Write a table to as many sheets as it needs; return the number of rows.

    Raises:
        UsageError: A text is longer than a cell permits.
    """
    with _workbook(sink) as book:
        cell = _Cells(book, table.names, raw=raw)
        rows = itertools.chain.from_iterable(table.batches)
        count = cell.fill(book.add_worksheet(), itertools.islice(rows, max_rows - 1))
        for first in rows:
            more = itertools.chain([first], itertools.islice(rows, max_rows - 2))
            count += cell.fill(book.add_worksheet(), more)
    return count


def write_answers(sink: BinaryIO, tables: Mapping[str, Table], *, raw: bool) -> int:
    """Write a table of answers, its evidence and its lists; the keys are the sheet titles.

    The rows of the first two tables correspond: each value has a link to its quote. Return the
    number of rows of the first table.

    Raises:
        UsageError: A text is longer than a cell permits, or a table than a sheet.
    """
    (first, answers), (second, evidence), *_ = tables.items()
    links = {
        index: f"internal:'{second}'!{xl_col_to_name(evidence.names.index(f'{name}_quote'))}"
        for index, name in enumerate(answers.names)
        if f"{name}_quote" in evidence.names
    }
    counts: dict[str, int] = {}
    with _workbook(sink) as book:
        for title, each in tables.items():
            cells = _Cells(book, each.names, raw=raw, links=links if title == first else {})
            rows = itertools.chain.from_iterable(each.batches)
            counts[title] = cells.fill(book.add_worksheet(title), itertools.islice(rows, MAX_ROWS))
            if counts[title] >= MAX_ROWS:
                raise UsageError(
                    f"{title} has more than the {MAX_ROWS - 1:,} rows of a sheet.",
                    "Export the tables one by one, or use --format parquet.",
                )
    return counts[first]


def sheet_titles(names: Sequence[str]) -> list[str]:
    """Return distinct sheet titles of at most 31 characters for names.

    Every name begins with the first one, which is shortened so that the suffixes fit.
    """
    titles: list[str] = []
    for name in names:
        suffix = name.removeprefix(names[0])[: MAX_TITLE - _MIN_TABLE]
        title = f"{names[0][: MAX_TITLE - len(suffix)]}{suffix}"
        numbered = (f"{title[: MAX_TITLE - 3]}_{number}" for number in range(2, 99))
        titles.append(next(each for each in (title, *numbered) if each not in titles))
    return titles


@contextmanager
def _workbook(sink: BinaryIO) -> Iterator[Workbook]:
    """Open a workbook, which is discarded after an error; temporary files are always removed."""
    with tempfile.TemporaryDirectory(prefix="chordwise-") as folder:
        book = Workbook(sink, {"constant_memory": True, "tmpdir": folder})
        try:
            yield book
        except BaseException:
            book.filename = str(Path(folder) / "discarded")
            book.close()
            raise
        book.close()


class _Cells:
    def __init__(
        self,
        book: Workbook,
        names: Sequence[str],
        *,
        raw: bool,
        links: Mapping[int, str] | None = None,
    ) -> None:
        self._names = names
        self._links = links or {}
        self._raw = raw
        self._day: Format = book.add_format({"num_format": "yyyy-mm-dd"})
        # The cell stays text in Excel even when it is edited.
        self._text: Format = book.add_format({"quote_prefix": True})

    def fill(self, sheet: Worksheet, rows: Iterator[Row]) -> int:
        """Write a header and rows; return the number of rows."""
        self._write_row(sheet, 0, self._names)
        count = 0
        for count, row in enumerate(rows, start=1):
            self._write_row(sheet, count, row)
        return count

    def _write_row(self, sheet: Worksheet, number: int, row: Sequence[object]) -> None:
        for column, value in enumerate(row):
            if value is not None:
                if number and column in self._links and number * len(self._links) < _MAX_LINKS:
                    # The value then replaces the text of the link.
                    sheet.write_url(number, column, f"{self._links[column]}{number + 1}")
                self._write_cell(sheet, number, column, value)

    def _write_cell(self, sheet: Worksheet, row: int, column: int, value: object) -> None:
        if isinstance(value, bool):
            sheet.write_boolean(row, column, value)
        elif _is_exact(value):
            sheet.write_number(row, column, value)
        elif _is_day(value):
            sheet.write_datetime(row, column, value, self._day)
        else:
            self._write_text(sheet, row, column, value)

    def _write_text(self, sheet: Worksheet, row: int, column: int, value: object) -> None:
        text = table.cell_text(value, raw=self._raw)
        if len(text.encode("utf-16-le")) // 2 > MAX_CHARACTERS:
            raise UsageError(
                f"A text in {self._names[column]} is longer than the {MAX_CHARACTERS:,} "
                "characters of an XLSX cell.",
                "Omit the column with --columns, or use another format.",
            )
        style = self._text if is_risky(table.text_of(value)) else None
        sheet.write_string(row, column, text, style)


def _is_exact(value: object) -> bool:
    """Return whether a cell can hold a number exactly, with its 16 digits.

    Floating-point numbers are always written as numbers, because their last digit is noise.
    """
    if not table.is_number(value) or isinstance(value, float):
        return table.is_number(value)
    number = Decimal(str(value))
    return Decimal(f"{float(number):.16G}") == number


def _is_day(value: object) -> bool:
    return isinstance(value, date) and not isinstance(value, datetime) and value >= _FIRST_DAY
