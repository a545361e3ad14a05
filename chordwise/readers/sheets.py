"""Reads workbooks (XLSX, XLSM, XLSB, XLS, ODS): whole, as Markdown tables, or row by row."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import python_calamine
from python_calamine import CalamineWorkbook, SheetTypeEnum

from chordwise.readers import failures, rows, tables
from chordwise.readers.extracted import Extracted, Extraction, Wanted
from chordwise.readers.office_package import OfficePackage
from chordwise.readers.spending import Spending

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
        return rows.of_tables(sheets, wanted.columns, _MEDIA_TYPES[kind])
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


def _sheets(workbook: CalamineWorkbook) -> Iterator[tuple[str, list[list[str]]]]:
    for sheet in workbook.sheets_metadata:
        if sheet.typ == SheetTypeEnum.WorkSheet:
            found = workbook.get_sheet_by_name(sheet.name)
            yield sheet.name, [[_shown(cell) for cell in row] for row in found.to_python()]


def _whole(
    sheets: Sequence[tuple[str, list[list[str]]]], kind: str, max_characters: int
) -> Extracted:
    spend = Spending(max_characters)
    written = [(name, tables.markdown(table, spend)) for name, table in sheets]
    text = "\n\n".join(f"## {name}\n\n{table}" for name, table in written if table)
    return Extracted(text=text, media_type=_MEDIA_TYPES[kind])


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
