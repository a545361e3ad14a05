"""Reads workbooks (XLSX, XLSM, XLSB, XLS, ODS): whole, as Markdown tables, or row by row."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import NamedTuple, TypeAlias

import python_calamine
from python_calamine import CalamineWorkbook, SheetTypeEnum

from chordwise.domain.json_values import JsonValue
from chordwise.domain.places import Layout, Place, PlaceKind
from chordwise.errors import ReadError
from chordwise.readers import encodings, extracted, failures
from chordwise.readers.extracted import Columns, Extracted, Extraction, Naming, Unread, Wanted
from chordwise.readers.office_package import OfficePackage, Spending

_MEDIA_TYPES = {
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "xlsb": "application/vnd.ms-excel.sheet.binary.macroenabled.12",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
}
_ZIP = b"PK"
_PARSED = (".xml", ".rels", ".bin")
_WHOLE_NUMBERS = 1e21
_Moment: TypeAlias = dt.time | dt.date | dt.datetime | dt.timedelta
Cell: TypeAlias = int | float | str | bool | _Moment
_PLAIN_NAME = re.compile(r"[^\W\d]\w*")


class Sheet(NamedTuple):
    """The cells of a sheet from its first row and column on that hold something."""

    name: str
    rows: list[list[str]]
    start: tuple[int, int] = (0, 0)


def documents(data: bytes, wanted: Wanted) -> Iterator[Extraction]:
    """Yield the workbook as one document, or its rows where columns are named.

    Raises:
        ReadError: The file is damaged, encrypted, hostile, lacks the column, or is too long.
    """
    kind = _checked_kind(data)
    try:
        workbook = CalamineWorkbook.from_filelike(io.BytesIO(data))
        sheets = list(_sheets(workbook))
    except python_calamine.PasswordError as error:
        raise failures.encrypted() from error
    except python_calamine.CalamineError as error:
        raise failures.malformed("is a damaged workbook.") from error
    if wanted.columns.text:
        return of_tables(sheets, wanted.columns, _MEDIA_TYPES[kind])
    return iter([_whole(sheets, kind, wanted.max_characters)])


def _checked_kind(data: bytes) -> str:
    if not data.startswith(_ZIP):
        return "xls"
    package = OfficePackage(data, "workbook", parsed=_PARSED, has_document_types=True)
    if "META-INF/manifest.xml" in package:
        if b"encryption-data" in package.content("META-INF/manifest.xml"):
            raise failures.encrypted()
        return "ods"
    return "xlsb" if "xl/workbook.bin" in package else "xlsx"


def _sheets(workbook: CalamineWorkbook) -> Iterator[Sheet]:
    for sheet in workbook.sheets_metadata:
        if sheet.typ == SheetTypeEnum.WorkSheet:
            found = workbook.get_sheet_by_name(sheet.name)
            rows = [[_shown(cell) for cell in row] for row in found.to_python()]
            yield Sheet(sheet.name, rows, found.start or (0, 0))


def _whole(sheets: Sequence[Sheet], kind: str, max_characters: int) -> Extracted:
    spend = Spending(max_characters)
    written = [(each, extracted.markdown_lines(each.rows, spend)) for each in sheets]
    tables = [(sheet, f"## {sheet.name}\n\n", lines) for sheet, lines in written if lines]
    text, starts = extracted.joined(
        heading + "\n".join(line for _, line in lines) for _, heading, lines in tables
    )
    places = [
        _sheet_place(sheet, (start, len(heading)), lines)
        for (sheet, heading, lines), start in zip(tables, starts, strict=True)
    ]
    return Extracted(text=text, places=places, media_type=_MEDIA_TYPES[kind])


def _sheet_place(
    sheet: Sheet, begins: tuple[int, int], lines: Sequence[tuple[int | None, str]]
) -> Place:
    """Return the place of a sheet that begins at an offset with a heading of some length."""
    start, place = begins
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
    """Return the place of a table in CSV, which has no name; nothing where it is damaged."""
    lines = io.StringIO(decoded, newline="")
    delimiter = max(_DELIMITERS, key=lines.readline().count)
    lines.seek(0)
    layout, start, end = Layout(), 0, 0

    def counted() -> Iterator[str]:
        nonlocal end
        for line in lines:
            end += len(line)
            yield line

    try:
        for row, cells in enumerate(csv.reader(counted(), delimiter=delimiter)):
            if cells:
                layout.add((start, end), (0, row, len(cells) - 1, row))
            start = end
    except csv.Error:
        return []
    return [
        Place(
            kind=PlaceKind.SHEET,
            label="",
            start_char=0,
            end_char=len(decoded),
            layout=layout.packed(),
        )
    ]


def _shown(cell: Cell) -> str:
    """Return a cell as a person would write it: whole numbers and days without zeros behind."""
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


def documents_of_rows(data: bytes, name: str, wanted: Wanted) -> Iterator[Extraction] | None:
    """Return the rows of a CSV or JSON-lines file; `None` if it is no table with that column.

    Raises:
        ReadError: The bytes are no text, or the name says that it is a table and it is none.
    """
    extension = PurePath(name).suffix.lower()
    decoded = encodings.decode(data).text
    first = decoded[: decoded.find("\n") + 1] or decoded
    if extension in _LINES or (extension not in _TABLES and first.lstrip().startswith("{")):
        return _of_lines(decoded, wanted.columns)
    delimiter = max(_DELIMITERS, key=first.count)
    header = next(csv.reader([first.strip()], delimiter=delimiter), [])
    if extension not in _TABLES and wanted.columns.text not in header:
        return None
    return _of_csv(decoded, delimiter, wanted)


def of_tables(tables: Sequence[Sheet], columns: Columns, media_type: str) -> Iterator[Extraction]:
    """Yield the rows of all named tables that have the text column in their first row.

    Raises:
        ReadError: No table has it.
    """
    found = [each for each in tables if each.rows and columns.text in each.rows[0]]
    if not found:
        raise _no_such_column(columns.text, [cell for each in tables for cell in each.rows[0:1]])
    naming = Naming()
    for name, (first, *rows), _ in found:
        prefix = f"{name}/" if len(tables) > 1 else ""
        records = (dict(zip(first, row, strict=False)) for row in rows if any(row))
        yield from _documents(records, columns, media_type, (naming, prefix))


def _of_csv(decoded: str, delimiter: str, wanted: Wanted) -> Iterator[Extraction]:
    csv.field_size_limit(max(wanted.max_characters, 1))
    reader = csv.DictReader(io.StringIO(decoded, newline=""), delimiter=delimiter)
    try:
        header = list(reader.fieldnames or ())
        if wanted.columns.text not in header:
            raise _no_such_column(wanted.columns.text, [header])
        yield from _documents(reader, wanted.columns, _CSV, (Naming(), ""))
    except csv.Error as error:
        raise failures.malformed(f"is a damaged table near line {reader.line_num}.") from error


def _of_lines(decoded: str, columns: Columns) -> Iterator[Extraction]:
    naming = Naming()
    seen: set[str] = set()
    has_column = False
    # Only these ends of lines: others may stand inside a JSON string.
    for number, line in enumerate(io.StringIO(decoded, newline="\n"), start=1):
        if not line.strip():
            continue
        record = _parsed(line)
        if record is None:
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
    naming: tuple[Naming, str],
) -> Iterator[Extraction]:
    places, prefix = naming
    for number, record in enumerate(records, start=1):
        place = places.place(prefix + _place(record, columns, number))
        yield _document(record, columns, media_type, place)


def _document(
    record: Mapping[str, JsonValue], columns: Columns, media_type: str, place: str
) -> Extraction:
    value = record.get(columns.text)
    title = _text(record.get(columns.identity))
    return Extracted(text=_text(value), media_type=media_type, place=place, title=title)


def _place(record: Mapping[str, JsonValue], columns: Columns, number: int) -> str:
    return _text(record.get(columns.identity)).strip() or str(number)


def _parsed(line: str) -> Mapping[str, JsonValue] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


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
