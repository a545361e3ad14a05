"""Tests of export files: other libraries can read them, and no partial file remains."""

from __future__ import annotations

import io
import json
import os
import stat
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO

import openpyxl
import pytest
from openpyxl.cell.cell import Cell
from openpyxl.utils.escape import unescape
from pyarrow import parquet

from chordwise.domain.export_formats import ExportFormat
from chordwise.errors import ConfigurationError, UsageError
from chordwise.pipeline.exports import workbook, writers
from chordwise.pipeline.exports.table import Column, ColumnType, Table
from chordwise.pipeline.exports.writers import new_file
from chordwise.pipeline.runs.user_sql import Row

COLUMNS = (
    Column(name="text"),
    Column(name="count", kind=ColumnType.INTEGER),
    Column(name="share", kind=ColumnType.FLOAT),
    Column(name="cost", kind=ColumnType.DECIMAL, precision=14, scale=8),
    Column(name="sum", kind=ColumnType.DECIMAL),
    Column(name="sure", kind=ColumnType.BOOLEAN),
    Column(name="day", kind=ColumnType.DATE),
    Column(name="at", kind=ColumnType.TIMESTAMP),
    Column(name="output", kind=ColumnType.JSON),
)
MOMENT = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)
ROW: Row = (
    "=1+1",
    2**62 + 1,
    -0.25,
    Decimal("0.00000001"),
    Decimal("12345678901234567890.1234567890123456789"),
    True,
    date(2026, 11, 25),
    MOMENT,
    {"a": ["=1", Decimal("0.1")]},
)
EMPTY: Row = (None,) * len(COLUMNS)


def a_table(*batches: Sequence[Row], columns: Sequence[Column] = COLUMNS) -> Table:
    return Table(columns=columns, batches=iter(batches))


def written(table: Table, format_: ExportFormat, *, raw: bool = False) -> io.BytesIO:
    """Return a table as a file, written to a sink that cannot seek, like a pipe."""
    sink = io.BytesIO()
    writers.write(sink, table, format_, raw=raw)
    sink.seek(0)
    return sink


def test_json_lines_preserve_all_values() -> None:
    lines = written(a_table([ROW], [EMPTY]), ExportFormat.JSONL).read().decode().splitlines()

    first, second = map(json.loads, lines)
    assert first == {
        "text": "=1+1",
        "count": 2**62 + 1,
        "share": -0.25,
        "cost": 1e-08,
        "sum": "12345678901234567890.1234567890123456789",
        "sure": True,
        "day": "2026-11-25",
        "at": "2026-03-29T01:30:00.123456+00:00",
        "output": {"a": ["=1", 0.1]},
    }
    assert set(second.values()) == {None}


def test_parquet_keeps_types_and_values() -> None:
    arrow_table = parquet.read_table(written(a_table([ROW], [EMPTY]), ExportFormat.PARQUET))

    assert [str(field.type) for field in arrow_table.schema] == [
        "string",
        "int64",
        "double",
        "decimal128(14, 8)",
        "double",
        "bool",
        "date32[day]",
        "timestamp[us, tz=UTC]",
        "string",
    ]
    first, second = arrow_table.to_pylist()
    expected = dict(zip(arrow_table.column_names, ROW, strict=True))
    expected |= {"sum": float(str(ROW[4])), "output": '{"a": ["=1", 0.1]}'}
    assert first == expected
    assert set(second.values()) == {None}


def test_types_of_parquet_do_not_depend_on_the_values() -> None:
    """A night without values has the schema of every other night."""
    columns = [
        Column(name="sum", kind=ColumnType.DECIMAL),
        Column(name="names", elements=ColumnType.TEXT),
        Column(name="days", elements=ColumnType.DATE),
        Column(name="amounts", elements=ColumnType.DECIMAL),
    ]
    row: Row = (Decimal("1.5"), ["a", None], [date(2026, 11, 25)], [Decimal(2), Decimal("NaN")])
    empty: Row = (None,) * 4

    full, bare = (
        parquet.read_table(written(a_table([row_or_empty], columns=columns), ExportFormat.PARQUET))
        for row_or_empty in (row, empty)
    )

    assert full.schema == bare.schema
    assert [str(field.type) for field in full.schema] == [
        "double",
        *(f"list<element: {kind}>" for kind in ("string", "date32[day]", "double")),
    ]
    assert full["names"].to_pylist() == [["a", None]]
    assert full["days"].to_pylist() == [[date(2026, 11, 25)]]
    assert bare.to_pylist() == [dict.fromkeys(full.column_names)]


@pytest.mark.parametrize("format_", ExportFormat)
def test_a_table_without_rows_is_written(format_: ExportFormat) -> None:
    content = written(a_table(), format_)

    match format_:
        case ExportFormat.CSV:
            names = content.read().decode().strip().split(",")
        case ExportFormat.PARQUET:
            names = parquet.read_table(content).column_names
        case ExportFormat.XLSX:
            names = [str(cell.value) for cell in next(cells_of(content))]
        case ExportFormat.JSONL:
            names = []
            assert content.read() == b""
    assert names in ([column.name for column in COLUMNS], [])


def cells_of(content: BinaryIO) -> Iterator[list[Cell]]:
    for row in openpyxl.load_workbook(content).worksheets[0].iter_rows():
        yield [cell for cell in row if isinstance(cell, Cell)]


def test_xlsx_has_texts_numbers_and_dates() -> None:
    """Amounts are numbers with the same digits, also those whose sixteenth digit is noise."""
    amounts = [Decimal(cents) / 100 for cents in range(0, 100_000, 7)]
    column = Column(name="amount", kind=ColumnType.DECIMAL)
    sums = a_table([(amount,) for amount in amounts], columns=[column])

    _, empty, row = cells_of(written(a_table([EMPTY], [ROW]), ExportFormat.XLSX))
    _, *read = (cells[0].value for cells in cells_of(written(sums, ExportFormat.XLSX)))

    assert [(cell.value, cell.data_type) for cell in row] == [
        ("'=1+1", "s"),
        (str(2**62 + 1), "s"),
        (-0.25, "n"),
        (1e-08, "n"),
        ("12345678901234567890.1234567890123456789", "s"),
        (True, "b"),
        (datetime(2026, 11, 25), "d"),  # noqa: DTZ001 - a day of Excel has no zone
        (MOMENT.isoformat(), "s"),
        ('{"a": ["=1", 0.1]}', "s"),
    ]
    assert {cell.value for cell in empty} <= {None}
    assert [Decimal(str(value)) for value in read] == amounts


@pytest.mark.parametrize("raw", [True, False])
def test_no_text_of_an_xlsx_is_a_formula(raw: bool) -> None:  # noqa: FBT001 - pytest's
    """This includes raw output: the cell is a string, and stays one when it is edited."""
    texts = ["=1+1", "@a", "+1", "-1", "\t=1", "＝1", "https://x.y", "_x0041_", "\x1b[2J", " =1"]  # noqa: RUF001 - meant
    table = a_table([(text,) for text in texts], columns=[Column(name="=header")])

    header, *rows = cells_of(written(table, ExportFormat.XLSX, raw=raw))

    cells = [row[0] for row in rows]
    marked = {"=1+1", "@a", "+1", "-1", "\t=1", "＝1"}  # noqa: RUF001 - meant
    assert {cell.data_type for cell in (*header, *cells)} == {"s"}
    assert [unescape(str(cell.value)) for cell in cells] == [
        f"'{text}" if text in marked and not raw else text for text in texts
    ]
    assert [cell.quotePrefix for cell in cells] == [text in marked for text in texts]
    assert all(cell.hyperlink is None for cell in cells)


def test_rows_beyond_the_limit_of_a_sheet_are_on_another_sheet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Titles of sheets are short and distinct; Excel keeps “History” for itself."""
    table = a_table(
        [(n,) for n in range(7)], [], columns=[Column(name="n", kind=ColumnType.INTEGER)]
    )
    sink = io.BytesIO()
    monkeypatch.setattr(workbook, "MAX_ROWS", 4)

    count = workbook.write(sink, table, raw=False)
    with workbook.opened(io.BytesIO(), raw=False) as book:
        names = ("a" * 35, "a" * 40, "About", "about", "History")
        titles = [book.new_sheet(name).get_name() for name in names]

    sheets = openpyxl.load_workbook(sink).worksheets
    values = [[row[0].value for row in sheet.iter_rows()] for sheet in sheets]
    assert count == 7
    assert values == [["n", 0, 1, 2], ["n", 3, 4, 5], ["n", 6]]
    assert titles == ["a" * 31, f"{'a' * 27}_2", "About", "about_2", "History_2"]


def test_a_value_that_does_not_fit_is_refused() -> None:
    """A truncated text would look complete; characters are counted as Excel counts them."""
    columns = [Column(name="text")]
    costs = [Column(name="cost", kind=ColumnType.DECIMAL, precision=4, scale=2)]
    written(a_table([("😀" * 16_383,)], columns=columns), ExportFormat.XLSX)

    with pytest.raises(UsageError, match="A text in text is longer"):
        written(a_table([("😀" * 16_384,)], columns=columns), ExportFormat.XLSX)
    with pytest.raises(UsageError, match="A value in cost does not fit"):
        written(a_table([(Decimal("1.005"),)], columns=costs), ExportFormat.PARQUET)


@pytest.mark.parametrize("format_", [ExportFormat.PARQUET, ExportFormat.XLSX])
def test_a_partial_table_is_an_invalid_file(format_: ExportFormat) -> None:
    """If the rows end early, a pipe has received a file that no program opens."""

    def breaking_off() -> Iterator[Sequence[Row]]:
        yield [(1,)] * 50_000
        raise UsageError("That was all.")

    sink = io.BytesIO()
    table = Table(columns=[Column(name="n", kind=ColumnType.INTEGER)], batches=breaking_off())

    with pytest.raises(UsageError, match="That was all"):
        writers.write(sink, table, format_)

    assert not sink.getvalue().endswith(b"PAR1") or sink.getvalue() == b"PAR1"
    assert b"PK\x05\x06" not in sink.getvalue()


def test_without_its_library_parquet_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)

    with pytest.raises(ConfigurationError) as caught:
        writers.require(ExportFormat.PARQUET)

    assert 'pip install "chordwise[parquet]"' in caught.value.hint


def test_a_file_appears_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"

    with new_file(path) as sink:
        sink.write(b"content")
        seen = path.exists()

    mask = os.umask(0)
    os.umask(mask)
    assert not seen
    assert path.read_bytes() == b"content"
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [UsageError("no"), KeyboardInterrupt(), None])
def test_a_failed_export_leaves_no_file(tmp_path: Path, error: BaseException | None) -> None:
    """A file created meanwhile is not replaced: the last check and the naming are one step."""
    path = tmp_path / "out.csv"
    if error:
        path.write_text("before", "utf-8")

    def fail() -> None:
        with new_file(path, overwrite=error is not None) as sink:
            sink.write(b"half")
            if error:
                raise error
            path.write_text("before", "utf-8")

    with pytest.raises(type(error) if error else UsageError) as raised:
        fail()

    assert error or "already" in str(raised.value)
    assert path.read_text("utf-8") == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["folder", "link", "nowhere", "full"])
def test_an_invalid_destination_is_refused(tmp_path: Path, kind: str) -> None:
    path = {"nowhere": tmp_path / "no" / "x.csv", "full": Path("/dev/full")}.get(
        kind, tmp_path / kind
    )
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("/dev/null")

    with pytest.raises(UsageError), new_file(path, overwrite=True):
        pytest.fail("it was opened")
