"""Reader for workbooks (XLSX, XLSM, XLSB, XLS, ODS): whole, as Markdown tables, or by rows."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import NamedTuple, TypeAlias
from xml.etree.ElementTree import Element

import python_calamine
from python_calamine import CalamineWorkbook, SheetTypeEnum, SheetVisibleEnum

from chordwise.domain.json_values import JsonValue
from chordwise.domain.places import Layout, Place, PlaceKind
from chordwise.errors import ReadError
from chordwise.readers import encodings, failures, reader_output
from chordwise.readers.formats import Format, of_items
from chordwise.readers.limits import CharacterAllowance
from chordwise.readers.office_xml import OfficePackage, local, value_of
from chordwise.readers.reader_output import (
    Columns,
    Extracted,
    Extraction,
    Naming,
    ReadOptions,
    Unread,
)

_MEDIA_TYPES = {
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "xlsb": "application/vnd.ms-excel.sheet.binary.macroenabled.12",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
}
_PARSED = (".xml", ".rels", ".bin")
_WHOLE_NUMBERS = 1e21
_Moment: TypeAlias = dt.time | dt.date | dt.datetime | dt.timedelta
Cell: TypeAlias = int | float | str | bool | _Moment
_PLAIN_NAME = re.compile(r"[^\W\d]\w*")


class Sheet(NamedTuple):
    """The cells from the first non-empty row and column on; `unseen` are invisible sentences."""

    name: str
    rows: list[list[str]]
    start: tuple[int, int] = (0, 0)
    unseen: Sequence[str] = ()


def documents(data: bytes, options: ReadOptions) -> Iterator[Extraction]:
    """Yield the workbook as one document, or its rows if columns are named."""
    kind, package = _checked(data)
    hidden = _hidden_cells(package) if package and kind == "xlsx" else {}
    try:
        workbook = CalamineWorkbook.from_filelike(io.BytesIO(data))
        sheets = list(_sheets(workbook, hidden))
    except python_calamine.PasswordError as error:
        raise failures.encrypted() from error
    except python_calamine.CalamineError as error:
        raise failures.malformed("is a damaged workbook.") from error
    if options.columns.text:
        return of_tables(sheets, options.columns, _MEDIA_TYPES[kind])
    text = _workbook_text(sheets, kind, options.max_characters)
    return iter([replace(text, is_partial=package is None or package.is_partial)])


def _checked(data: bytes) -> tuple[str, OfficePackage | None]:
    if not data.startswith(b"PK"):
        return "xls", None
    package = OfficePackage(data, "workbook", parsed=_PARSED, has_document_types=True)
    if "META-INF/manifest.xml" in package:
        if b"encryption-data" in package.content("META-INF/manifest.xml"):
            raise failures.encrypted()
        return "ods", package
    return "xlsb" if "xl/workbook.bin" in package else "xlsx", package


def _sheets(workbook: CalamineWorkbook, hidden: Mapping[str, _HiddenCells]) -> Iterator[Sheet]:
    for sheet in workbook.sheets_metadata:
        if sheet.typ == SheetTypeEnum.WorkSheet:
            worksheet = workbook.get_sheet_by_name(sheet.name)
            rows = [[_cell_text(cell) for cell in row] for row in worksheet.to_python()]
            start = worksheet.start or (0, 0)
            is_visible = sheet.visible == SheetVisibleEnum.Visible
            hidden_cells = hidden.get(sheet.name, _NOTHING) if is_visible else None
            yield Sheet(sheet.name, rows, start, list(_sentences(rows, start, hidden_cells)))


_MIN_WORDS = 4


def _sentences(
    rows: Sequence[list[str]], start: tuple[int, int], hidden: _HiddenCells | None
) -> Iterator[str]:
    """Yield the sentences in hidden cells; a few words are often hidden by a filter."""
    for number, row in enumerate(rows, start[0]) if hidden != _NOTHING else ():
        for column, text in enumerate(row, start[1]):
            if (hidden is None or hidden.holds(number, column)) and len(text.split()) >= _MIN_WORDS:
                row[column - start[1]] = "" if reader_output.leaves_out_unseen.get() else text
                yield reader_output.cell(text)


class _HiddenCells(NamedTuple):
    """The invisible rows, columns and cells of a sheet, counted from 0."""

    rows: frozenset[int] = frozenset()
    columns: frozenset[int] = frozenset()
    cells: frozenset[tuple[int, int]] = frozenset()

    def holds(self, row: int, column: int) -> bool:
        return row in self.rows or column in self.columns or (row, column) in self.cells


_NOTHING = _HiddenCells()
_HIDDEN_ROW = re.compile(rb'<(?:\w{1,9}:)?row ([^<>]*\bhidden="(?:1|true)"[^<>]*)>')
_HIDDEN_COLUMNS = re.compile(rb'<(?:\w{1,9}:)?col ([^<>]*\bhidden="(?:1|true)"[^<>]*)>')
_STYLED_CELL = re.compile(rb'<(?:\w{1,9}:)?c ([^<>]*\bs="\d+"[^<>]*)>')
_VALUE = re.compile(rb'\b(r|s|min|max)="(?:([A-Z]{1,3})(\d{1,7})|(\d{1,7}))"')
_MAX_COLUMNS = 16_384


def _hidden_cells(package: OfficePackage) -> dict[str, _HiddenCells]:
    main = package.main_part()
    if not main:
        return {}
    related, unseen = package.relationships(main), set[int]()
    for part in package.related(related, "styles"):
        unseen |= _unseen_formats(package.elements(part, "fonts", "fills", "cellXfs"))
    sheets = [sheet.attrib for sheet in package.elements(main, "sheet")]
    parts = {sheet.get("name", ""): related.get(value_of(sheet, "id")) for sheet in sheets}
    return {
        name: _hidden_in(package.content(part.target), unseen)
        for name, part in parts.items()
        if part and part.target in package
    }


def _hidden_in(sheet: bytes, unseen: set[int]) -> _HiddenCells:
    rows = (_values(match[1])["r"] for match in _HIDDEN_ROW.finditer(sheet))
    spans = (_values(match[1]) for match in _HIDDEN_COLUMNS.finditer(sheet))
    cells = (_values(match[1]) for match in _STYLED_CELL.finditer(sheet)) if unseen else ()
    return _HiddenCells(
        frozenset(row - 1 for _, row in rows),
        frozenset(
            column - 1
            for span in spans
            for column in range(span["min"][1], min(span["max"][1], _MAX_COLUMNS) + 1)
        ),
        frozenset(
            (row - 1, column - 1)
            for cell in cells
            if cell["s"][1] in unseen
            for column, row in [cell["r"]]
        ),
    )


def _values(attributes: bytes) -> dict[str, tuple[int, int]]:
    values = {"r": (0, 0), "s": (0, 0), "min": (0, 0), "max": (0, -1)}
    for name, letters, row, number in _VALUE.findall(attributes):
        column = 0
        for letter in letters:
            column = column * 26 + letter - ord("A") + 1
        values[name.decode()] = column, int(row or number)
    return values


def _unseen_formats(sections: Iterable[Element]) -> set[int]:
    """Return the numbers of the cell formats with tiny text, or white text without a fill."""
    by_name = {local(section.tag): section for section in sections}
    fonts, fills, formats = (by_name.get(name, ()) for name in ("fonts", "fills", "cellXfs"))
    tiny = {str(number) for number, font in enumerate(fonts) if _is_tiny(font)}
    white = {str(number) for number, font in enumerate(fonts) if _is_white(font)}
    filled = {str(number) for number, fill in enumerate(fills) if _is_filled(fill)}
    return {
        number
        for number, cell in enumerate(formats)
        if cell.get("fontId", "0") in tiny
        or (cell.get("fontId", "0") in white and cell.get("fillId", "0") not in filled)
    }


def _is_tiny(font: Element) -> bool:
    return any(size.get("val") in ("1", "2") for size in font.iterfind("{*}sz"))


def _is_white(font: Element) -> bool:
    return any(
        (color.get("theme") == "0" and "tint" not in color.attrib)
        or color.get("rgb", "").upper().endswith("FFFFFF")
        for color in font.iterfind("{*}color")
    )


def _is_filled(fill: Element) -> bool:
    patterns = [pattern.get("patternType", "none") for pattern in fill.iterfind("{*}patternFill")]
    return (
        any(pattern != "none" for pattern in patterns) or fill.find("{*}gradientFill") is not None
    )


def _workbook_text(sheets: Sequence[Sheet], kind: str, max_characters: int) -> Extracted:
    spend = CharacterAllowance(max_characters)
    written = [(sheet, reader_output.markdown_lines(sheet.rows, spend)) for sheet in sheets]
    tables = [(sheet, f"## {sheet.name}\n\n", lines) for sheet, lines in written if lines]
    text, starts = reader_output.joined(
        heading + "\n".join(line for _, line in lines) for _, heading, lines in tables
    )
    places = [
        _sheet_place(sheet, start, len(heading), lines)
        for (sheet, heading, lines), start in zip(tables, starts, strict=True)
    ]
    unseen = tuple(sentence for sheet in sheets for sentence in sheet.unseen)
    return Extracted(
        text=text,
        places=places,
        media_type=_MEDIA_TYPES[kind],
        invisible_characters=reader_output.nonblank_characters(unseen),
        unseen=unseen,
    )


def _sheet_place(
    sheet: Sheet, start: int, place: int, lines: Sequence[tuple[int | None, str]]
) -> Place:
    top, left = sheet.start
    layout = Layout()
    for row, line in lines:
        if row is not None:
            cells = left, top + row, left + len(sheet.rows[row]) - 1, top + row
            layout.add((place, place + len(line)), cells)
        place += len(line) + 1
    quoted = "'" + sheet.name.replace("'", "''") + "'"
    name = sheet.name if _PLAIN_NAME.fullmatch(sheet.name) else quoted
    return Place(
        kind=PlaceKind.SHEET,
        label=f"{name}!",
        start_char=start,
        end_char=start + place - 1,
        layout=layout.packed(),
    )


def rows_of_csv(decoded: str) -> list[Place]:
    """Return the place of a CSV table, which has no name."""
    # The limit belongs to the process: another reader may have set a smaller one.
    csv.field_size_limit(max(len(decoded), 1))
    lines = io.StringIO(decoded, newline="")
    delimiter = max(_DELIMITERS, key=lines.readline().count)
    lines.seek(0)
    layout, start, end = Layout(), 0, 0

    def counted() -> Iterator[str]:
        nonlocal end
        for line in lines:
            end += len(line)
            yield line

    for row, cells in enumerate(csv.reader(counted(), delimiter=delimiter)):
        if cells:
            layout.add((start, end), (0, row, len(cells) - 1, row))
        start = end
    return [
        Place(
            kind=PlaceKind.SHEET,
            label="",
            start_char=0,
            end_char=len(decoded),
            layout=layout.packed(),
        )
    ]


def _cell_text(cell: Cell) -> str:
    match cell:
        case bool():
            return str(cell).upper()
        case float() if cell.is_integer() and abs(cell) < _WHOLE_NUMBERS:
            return str(int(cell))
        case dt.datetime():
            return str(cell).removesuffix(" 00:00:00")
    return str(cell)


_LINES = (".jsonl", ".ndjson")
_TABLES = (".csv", ".tsv", ".tab")
_CSV, _JSONL = "text/csv", "application/x-ndjson"
_DELIMITERS = ",;\t|"
_COLUMNS_NAMED = 12


def documents_of_rows(data: bytes, options: ReadOptions) -> Iterator[Extraction] | None:
    """Return the rows of a CSV or JSON-lines file; `None` if it is not a table with that column."""
    extension = PurePath(options.name).suffix.lower()
    decoded = encodings.decode(data).text
    first = decoded[: decoded.find("\n") + 1] or decoded
    if extension in _LINES or (extension not in _TABLES and first.lstrip().startswith("{")):
        return _of_lines(decoded, options.columns)
    delimiter = max(_DELIMITERS, key=first.count)
    csv.field_size_limit(max(len(first), 1))
    header = next(csv.reader([first.strip()], delimiter=delimiter), [])
    if extension not in _TABLES and options.columns.text not in header:
        return None
    return _of_csv(decoded, delimiter, options)


def of_tables(tables: Sequence[Sheet], columns: Columns, media_type: str) -> Iterator[Extraction]:
    """Yield the rows of all tables that have the text column in their first row."""
    matching = [table for table in tables if table.rows and columns.text in table.rows[0]]
    if not matching:
        raise _no_such_column(columns.text, [cell for table in tables for cell in table.rows[0:1]])
    naming = Naming()
    for name, (first, *rows), *_ in matching:
        prefix = f"{name}/" if len(tables) > 1 else ""
        records = (dict(zip(first, row, strict=False)) for row in rows if any(row))
        yield from _documents(records, columns, media_type, naming, prefix)


def _of_csv(decoded: str, delimiter: str, options: ReadOptions) -> Iterator[Extraction]:
    csv.field_size_limit(max(options.max_characters, 1))
    reader = csv.DictReader(io.StringIO(decoded, newline=""), delimiter=delimiter)
    try:
        header = list(reader.fieldnames or ())
        if options.columns.text not in header:
            raise _no_such_column(options.columns.text, [header])
        yield from _documents(reader, options.columns, _CSV, Naming())
    except csv.Error as error:
        raise failures.malformed(f"is a damaged table near line {reader.line_num}.") from error


def _of_lines(decoded: str, columns: Columns) -> Iterator[Extraction]:
    naming = Naming()
    seen: set[str] = set()
    has_column = False
    # Only this line end, since others may occur inside a JSON string.
    for number, line in enumerate(io.StringIO(decoded, newline="\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            error = failures.malformed(f"has no JSON object in line {number}.")
            yield Unread(place=naming.place(str(number)), error=error)
            continue
        has_column = has_column or columns.text in record
        seen.update(list(record)[:_COLUMNS_NAMED])
        yield _document(record, columns, _JSONL, naming.place(_place(record, columns, number)))
    if not has_column:
        raise _no_such_column(columns.text, [sorted(seen)])


def _documents(
    records: Iterable[Mapping[str, str]],
    columns: Columns,
    media_type: str,
    naming: Naming,
    prefix: str = "",
) -> Iterator[Extraction]:
    for number, record in enumerate(records, start=1):
        place = naming.place(prefix + _place(record, columns, number))
        yield _document(record, columns, media_type, place)


def _document(
    record: Mapping[str, JsonValue], columns: Columns, media_type: str, place: str
) -> Extraction:
    value = record.get(columns.text)
    title = _text(record.get(columns.identity))
    return Extracted(text=_text(value), media_type=media_type, place=place, title=title)


def _place(record: Mapping[str, JsonValue], columns: Columns, number: int) -> str:
    return _text(record.get(columns.identity)).strip() or str(number)


def _text(value: JsonValue) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _no_such_column(column: str, headers: Sequence[Sequence[str]]) -> ReadError:
    names = list(dict.fromkeys(name for header in headers for name in header if name))
    listed = ", ".join(names[:_COLUMNS_NAMED]) or "none"
    return failures.unreadable(
        f"has no column “{column}”.", f"Its columns: {listed}.", "no_such_column"
    )


_MIMETYPE = "mimetype:application/vnd.oasis.opendocument.spreadsheet"
FORMAT = Format(
    "XLSX, XLS, ODS",
    of_items(documents),
    extensions=(".xlsx", ".xlsm", ".xlsb", ".ods"),
    parts=(("[Content_Types].xml", "xl/"), ("content.xml", "META-INF/manifest.xml", _MIMETYPE)),
    streams=("Workbook", "Book"),
)
