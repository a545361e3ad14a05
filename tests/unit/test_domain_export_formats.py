"""Tests of export formats: cells that begin like formulas are escaped, others are unchanged."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.domain.export_formats import ExportFormat
from chordwise.pipeline.exports import table
from chordwise.pipeline.exports.table import csv_lines, distinct, is_risky, neutralized

DANGEROUS = "=+-@\t\r\n＝＋－＠"  # noqa: RUF001 - the full-width forms are meant
texts = st.text(st.characters(codec="utf-8")) | st.builds(
    str.__add__, st.sampled_from(DANGEROUS), st.text(st.characters(codec="utf-8"))
)
values = (
    texts
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.timedeltas()
    | st.binary()
    | st.lists(texts)
    | st.dictionaries(texts, texts)
)


def read_back(lines: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(lines, newline="")))


@pytest.mark.parametrize("beginning", DANGEROUS)
def test_text_that_begins_like_a_formula_gets_an_apostrophe(beginning: str) -> None:
    assert neutralized(f"{beginning}1+1") == f"'{beginning}1+1"
    assert neutralized(f"1{beginning}1") == f"1{beginning}1"


@given(st.lists(st.tuples(values, values), min_size=1))
def test_no_cell_of_a_csv_begins_like_a_formula(rows: list[tuple[object, object]]) -> None:
    written = "".join(csv_lines(["=a", "b"], rows, raw=False))

    header, *written_rows = read_back(written)
    assert header == ["'=a", "b"]
    for row, given_row in zip(written_rows, rows, strict=True):
        for cell, value in zip(row, given_row, strict=True):
            text = table.text_of(value)
            assert cell == (text if table.is_number(value) else neutralized(text))
            assert table.is_number(value) or not is_risky(cell)


@given(st.lists(st.tuples(texts, texts), min_size=1))
def test_raw_text_is_exported_unchanged(rows: list[tuple[str, str]]) -> None:
    written = "".join(csv_lines(["a", "b"], rows, raw=True))

    assert read_back(written) == [["a", "b"], *map(list, rows)]


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, ""),
        (True, "true"),
        (-3, "-3"),
        (-0.5, "-0.5"),
        (float("-inf"), "'-inf"),
        (Decimal("-0.00000001"), "-0.00000001"),
        (Decimal("NaN"), "NaN"),
        (2**80, "1208925819614629174706176"),
        ({"a": [1, "=1"]}, '{"a": [1, "=1"]}'),
        (datetime(2026, 11, 24, 12, tzinfo=UTC), "2026-11-24T12:00:00+00:00"),
        (b"\x00\xff", "\\x00ff"),
    ],
)
def test_values_are_converted_to_cells(value: object, cell: str) -> None:
    assert table.cell_text(value) == cell


def test_csv_quotes_cells_only_where_necessary() -> None:
    rows = [(None, "=1+1", 'say "a, b"'), (True, {"a": 1}, Decimal("1.50"))]

    lines = list(csv_lines(["x", "y", "z"], rows, raw=True))

    (_, line) = csv_lines(["x"], [("a\r=1+1",)], raw=False)

    assert line == '"a\r=1+1"\n'
    assert lines == ["x,y,z\n", ',=1+1,"say ""a, b"""\n', 'true,"{""a"": 1}",1.50\n']


def test_columns_of_the_same_name_are_numbered() -> None:
    """A JSON object can have each name only once."""
    assert distinct(["a", "b", "a", "a_2", "a"]) == ["a", "b", "a_2", "a_2_2", "a_3"]


@pytest.mark.parametrize(
    ("name", "format_name"),
    [("x.CSV", "csv"), ("x.tar.jsonl", "jsonl"), ("csv", None), ("x.txt", None)],
)
def test_the_extension_of_a_file_determines_its_format(name: str, format_name: str | None) -> None:
    assert ExportFormat.of_file(PurePath(name)) == format_name
