"""Writes XLSX with XlsxWriter: row by row to temporary files; strings never become formulas."""

from __future__ import annotations

import itertools
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO

from xlsxwriter import Workbook
from xlsxwriter.format import Format
from xlsxwriter.worksheet import Worksheet

from chordwise.errors import UsageError
from chordwise.pipeline.exports import table
from chordwise.pipeline.exports.table import Table, is_risky

MAX_ROWS = 1_048_576
"""The rows of a sheet, including the header (the limit of Excel; ECMA-376 sets none)."""
MAX_CHARACTERS = 32_767
"""The characters of a cell (the limit of Excel; ECMA-376 sets none)."""
MAX_TITLE = 31
"""The length of the title of a sheet, in characters."""
_RESERVED_TITLE = "history"
_MAX_MARKED = 65_000  # Excel reads 65,530 links in a sheet
_MAX_LINK = 2_000
_LINK_COLOR = "#0563C1"
_FIRST_DAY = date(1900, 3, 1)  # Excel counts a nonexistent February 29 in 1900
_MIN_WIDTH, _MAX_WIDTH = 9, 44  # characters
_MAX_LINES, _LINE_POINTS = 12, 15
_DAY = "yyyy-mm-dd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A value and how it is shown; number format and color are those of Excel."""

    value: object
    number_format: str = ""
    color: str = ""
    note: str = ""
    link: str = ""
    is_bold: bool = False


class Book:
    """An open workbook; `raw` keeps texts that begin like formulas, `wraps` breaks long lines."""

    def __init__(self, workbook: Workbook, *, raw: bool, wraps: bool) -> None:
        self.raw = raw
        self._workbook = workbook
        self._wraps = wraps
        self._formats: dict[tuple[object, ...], Format] = {}
        self._titles = {_RESERVED_TITLE}

    def new_sheet(self, name: str) -> Worksheet:
        """Add a sheet; its title is the name, shortened and numbered if necessary."""
        numbered = (f"{name[: MAX_TITLE - 4]}_{number}" for number in itertools.count(2))
        titles = itertools.chain([name[:MAX_TITLE]], numbered)
        title = next(title for title in titles if title.lower() not in self._titles)
        self._titles.add(title.lower())
        return self._workbook.add_worksheet(title)

    def format_of(self, cell: Cell) -> Format | None:
        """Return the format of a cell; a text like a formula stays text when it is edited."""
        value = cell.value
        number_format = cell.number_format or (_DAY if _is_day(value) else "")
        is_text = isinstance(value, str) and is_risky(value)
        key = number_format, cell.color, cell.is_bold, bool(cell.link), is_text
        if not (self._wraps or any(key)):
            return None
        if key not in self._formats:
            properties = {
                "num_format": number_format,
                "align": "left" if number_format == _DAY else "",
                "bg_color": cell.color,
                "bold": cell.is_bold,
                "font_color": _LINK_COLOR if cell.link else "",
                "underline": bool(cell.link),
                "quote_prefix": is_text,
                "text_wrap": self._wraps,
                "valign": "top" if self._wraps else "",
            }
            set_ones = {name: value for name, value in properties.items() if value}
            self._formats[key] = self._workbook.add_format(set_ones)
        return self._formats[key]


@contextmanager
def opened(sink: BinaryIO, *, raw: bool, wraps: bool = False) -> Iterator[Book]:
    """Open a workbook, which is discarded after an error; temporary files are always removed."""
    with tempfile.TemporaryDirectory(prefix="chordwise-") as folder:
        workbook = Workbook(sink, {"constant_memory": True, "tmpdir": folder})
        try:
            yield Book(workbook, raw=raw, wraps=wraps)
        except BaseException:
            workbook.filename = str(Path(folder) / "discarded")
            workbook.close()
            raise
        workbook.close()


class FilteredSheet:
    """Rows below a fixed header with filters; too many rows are continued on further sheets."""

    def __init__(self, book: Book, name: str, columns: Sequence[str]) -> None:
        self.count = 0
        self._book = book
        self._name = name
        self._columns = columns
        self._begin()

    def add(self, row: Sequence[object]) -> None:
        """Add a row of values, any of which may be a `Cell`.

        Raises:
            UsageError: A text is longer than a cell permits.
        """
        if self._next_row >= MAX_ROWS:
            self.finish()
            self._begin()
        self.count += 1
        self._write([cell if isinstance(cell, Cell) else Cell(value=cell) for cell in row])

    @property
    def link(self) -> str:
        """The link from another sheet to the next row."""
        return f"internal:'{self._sheet.name}'!A{self._next_row + 1}"

    def finish(self) -> None:
        """Set the widths and filters, which depend on the rows."""
        for column, width in self._widths.items():
            self._sheet.set_column(column, column, min(max(width + 2, _MIN_WIDTH), _MAX_WIDTH))
        self._sheet.autofilter(0, 0, self._next_row - 1, len(self._columns) - 1)

    def _begin(self) -> None:
        self._sheet = self._book.new_sheet(self._name)
        self._widths: dict[int, int] = defaultdict(int)
        self._next_row = self._marked = 0
        self._sheet.freeze_panes(1, 1)
        self._sheet.set_landscape()
        self._sheet.fit_to_pages(1, 0)
        self._sheet.repeat_rows(0)
        self._write([Cell(value=name, is_bold=True) for name in self._columns])

    def _write(self, cells: Sequence[Cell]) -> None:
        texts = [self._text(column, cell.value) for column, cell in enumerate(cells)]
        if max(map(_line_count, texts)) > _MAX_LINES:
            self._sheet.set_row(self._next_row, _MAX_LINES * _LINE_POINTS)
        for column, (cell, text) in enumerate(zip(cells, texts, strict=True)):
            longest = max(map(len, text.split("\n"))) + len(cell.number_format) // 2
            self._widths[column] = max(self._widths[column], longest)
            if cell.value is not None or cell.color:
                self._write_cell(column, cell, text)
        self._next_row += 1

    def _text(self, column: int, value: object) -> str:
        text = table.cell_text(value, raw=self._book.raw)
        if len(text) > MAX_CHARACTERS // 2 and len(text.encode("utf-16-le")) // 2 > MAX_CHARACTERS:
            raise UsageError(
                f"A text in {self._columns[column]} is longer than the {MAX_CHARACTERS:,} "
                "characters of an XLSX cell.",
                "Omit the column with --columns, or use another format.",
            )
        return text

    def _write_cell(self, column: int, cell: Cell, text: str) -> None:
        sheet, place, shown = self._sheet, (self._next_row, column), self._book.format_of(cell)
        has_link = bool(cell.link) and self._marked < _MAX_MARKED and len(cell.link) < _MAX_LINK
        if has_link:  # what is written to the cell afterwards keeps the link
            sheet.write_url(*place, cell.link, shown, text)
        match cell.value:
            case None:
                sheet.write_blank(*place, None, shown)
            case bool() as truth:
                sheet.write_boolean(*place, truth, shown)
            case int() | float() | Decimal() as number if _is_exact(number):
                sheet.write_number(*place, _ShortestNumber(number), shown)
            case date() as day if _is_day(day):
                sheet.write_datetime(*place, day, shown)
            case _:
                sheet.write_string(*place, text, shown)
        if cell.note and self._marked < _MAX_MARKED:
            sheet.write_comment(*place, cell.note, {"author": "", "x_scale": 2})
        self._marked += bool(cell.note or cell.link)


def write(sink: BinaryIO, table: Table, *, raw: bool) -> int:
    """Write a table to as many sheets as it needs; return the number of rows.

    Raises:
        UsageError: A text is longer than a cell permits.
    """
    with opened(sink, raw=raw) as book:
        sheet = FilteredSheet(book, "Sheet", table.names)
        for row in itertools.chain.from_iterable(table.batches):
            sheet.add(row)
        sheet.finish()
    return sheet.count


def _line_count(text: str) -> int:
    return sum(1 + len(line) // _MAX_WIDTH for line in text.split("\n"))


class _ShortestNumber(float):
    """A number that is written in its shortest form; the 16 digits of the library change 8.12."""

    def __format__(self, _: str) -> str:
        return repr(float(self)).removesuffix(".0")


def _is_exact(value: float | Decimal) -> bool:
    """Return whether a cell holds a number exactly: whether its shortest form is the same number.

    Floating-point numbers are always written as numbers, because their last digit is noise.
    """
    if not table.is_number(value) or isinstance(value, float):
        return table.is_number(value)
    number = Decimal(str(value))
    return Decimal(repr(float(number))) == number


def _is_day(value: object) -> bool:
    return isinstance(value, date) and not isinstance(value, datetime) and value >= _FIRST_DAY
