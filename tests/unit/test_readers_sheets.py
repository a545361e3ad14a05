"""Tests of reading tables as one document or as a document for each row."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace

import openpyxl
import pytest
from openpyxl.styles import Font, PatternFill

from chordwise.domain.places import Places
from chordwise.errors import ReadError
from chordwise.readers import reader_output
from chordwise.readers.formats import plain, sheets
from chordwise.readers.formats.sheets import documents_of_rows
from chordwise.readers.reader_output import (
    Columns,
    Extracted,
    Extraction,
    ReadOptions,
    Unread,
    leaves_out_unseen,
)
from tests.fakes.office_files import workbook

WHOLE = ReadOptions(max_characters=10_000, max_part_bytes=10_000)
BY_ROW = ReadOptions(
    max_characters=10_000, max_part_bytes=10_000, columns=Columns(text="review", identity="id")
)
NUMBERED = ReadOptions(max_characters=10_000, max_part_bytes=10_000, columns=Columns(text="review"))
REVIEWS = workbook(
    {"Spring": [["id", "review"], ["a", "Fine."], ["b", "Poor."]], "Notes": [["who"], ["me"]]}
)


def places(extractions: object) -> list[tuple[str, str]]:
    """Return the place and text of each row, or the reason why it was not read."""
    assert extractions is not None
    listed: list[Extraction] = list(extractions)  # type: ignore[call-overload]  # an iterator of them
    return [
        (
            extraction.place,
            extraction.text if isinstance(extraction, Extracted) else reason(extraction),
        )
        for extraction in listed
    ]


def reason(extraction: Extraction) -> str:
    assert isinstance(extraction, Unread)
    return extraction.error.reason


def test_a_workbook_is_one_document() -> None:
    data = workbook({"Ports": [["port", "ships"], ["Bergen", 7.0], ["Oslo", 1.5]], "Empty": []})

    (read,) = sheets.documents(data, WHOLE)

    assert isinstance(read, Extracted)
    assert read.text == (
        "## Ports\n\n| port | ships |\n| --- | --- |\n| Bergen | 7 |\n| Oslo | 1.5 |"
    )
    assert read.place == ""


def test_sentences_in_hidden_cells_are_kept_and_counted() -> None:
    """Cells are hidden, white or tiny; numbers and names in such cells are usual."""
    book = openpyxl.Workbook()
    sheet = book["Sheet"]
    for row in (
        ["seen by every reader here", "hidden in a column here"],
        ["hidden in a row here", "name"],
        ["white on nothing at all", None],
        ["white on a dark ground", None],
        ["too small for any reader", None],
    ):
        sheet.append(row)
    sheet.row_dimensions[2].hidden = True
    sheet.column_dimensions["B"].hidden = True
    sheet["A3"].font = sheet["A4"].font = Font(color="FFFFFFFF")
    sheet["A4"].fill = PatternFill("solid", fgColor="FF123456")
    sheet["A5"].font = Font(size=1)
    other = book.create_sheet("Other")
    other.append(["hidden in a sheet here", "name"])
    other.sheet_state = "hidden"
    book.save(data := io.BytesIO())

    (read,) = sheets.documents(data.getvalue(), WHOLE)

    assert isinstance(read, Extracted)
    assert read.unseen == (
        "hidden in a column here",
        "hidden in a row here",
        "white on nothing at all",
        "too small for any reader",
        "hidden in a sheet here",
    )
    assert read.invisible_characters == sum(
        len(sentence.replace(" ", "")) for sentence in read.unseen
    )
    assert all(sentence in read.text for sentence in read.unseen)
    token = leaves_out_unseen.set(True)
    (left,) = sheets.documents(data.getvalue(), WHOLE)
    leaves_out_unseen.reset(token)
    assert isinstance(left, Extracted)
    assert not any(sentence in left.text for sentence in read.unseen)
    assert (left.unseen, "seen by every reader here" in left.text) == (read.unseen, True)


def test_rows_of_a_workbook_are_documents() -> None:
    only = workbook({"Only": [["review"], ["Fine."]]})

    assert places(sheets.documents(only, NUMBERED)) == [("1", "Fine.")]
    assert places(sheets.documents(REVIEWS, BY_ROW)) == [
        ("Spring/a", "Fine."),
        ("Spring/b", "Poor."),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_rows_of_a_csv_are_documents(delimiter: str) -> None:
    lines = ("id,review", 'a,"Fine.\nVery."', "a,Poor.", ",Nameless.")
    data = "\n".join(lines).replace(",", delimiter).encode()

    extractions = documents_of_rows(data, replace(BY_ROW, name="reviews.csv"))

    expected = [("a", "Fine.\nVery."), ("a (2)", "Poor."), ("3", "Nameless.")]
    assert places(extractions) == expected


def test_lines_of_json_are_documents() -> None:
    lines = ('{"id": 7, "review": "Fine."}', "nonsense", "", '{"review": [1, "é"]}')

    extractions = documents_of_rows(
        "\n".join(lines).encode(), replace(BY_ROW, name="reviews.jsonl")
    )

    assert places(extractions) == [("7", "Fine."), ("2", "malformed"), ("4", '[1, "é"]')]


def test_standard_input_is_recognized_as_a_table() -> None:
    """The heading or the first brace decides; other text is unchanged."""
    assert places(documents_of_rows(b"review\nFine.\n", replace(NUMBERED, name="stdin"))) == [
        ("1", "Fine.")
    ]
    assert places(documents_of_rows(b'{"review": "Fine."}', replace(NUMBERED, name="stdin"))) == [
        ("1", "Fine.")
    ]
    assert documents_of_rows(b"Dear Sir,\n", replace(NUMBERED, name="stdin")) is None


@pytest.mark.parametrize(
    ("read", "reason", "hint"),
    [
        (
            lambda: documents_of_rows(b"a,b\n1,2\n", replace(BY_ROW, name="a.csv")),
            "no_such_column",
            "a, b",
        ),
        (
            lambda: documents_of_rows(b'{"a": 1, "b": 2}\n', replace(BY_ROW, name="a.jsonl")),
            "no_such_column",
            "a, b",
        ),
        (
            lambda: sheets.documents(workbook({"A": [["a"], ["1"]], "B": [["b"]]}), BY_ROW),
            "no_such_column",
            "a, b",
        ),
        (
            lambda: sheets.documents(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000), WHOLE),
            "malformed",
            "",
        ),
    ],
    ids=["csv", "jsonl", "workbook", "damaged"],
)
def test_unreadable_tables_report_the_reason(
    read: Callable[[], object], reason: str, hint: str
) -> None:
    with pytest.raises(ReadError) as failure:
        places(read())

    assert failure.value.reason == reason
    assert not hint or failure.value.hint == f"Its columns: {hint}."


def test_cells_cannot_break_the_structure_of_their_table() -> None:
    written = reader_output.markdown([["a|b", "c\nd"], ["", " "], ["1"]], lambda _: None)

    assert written == "| a\\|b | c<br>d |\n| --- | --- |\n| 1 |"


def cells(read: Extraction, quote: str) -> str | None:
    assert isinstance(read, Extracted)
    start = read.text.index(quote)
    return Places(read.places).locate(start, start + len(quote)).place


def test_rows_of_a_workbook_are_ranges_of_cells() -> None:
    rows: list[list[str | float]] = [
        ["port", "ships"],
        ["Bergen", 7.0],
        ["", ""],
        ["Oslo", 1.5],
        ["Bergen", 2.0],
    ]
    data = workbook({"Ports": rows, "It's 2026": [["Turku"]], "Nothing": []})

    (read,) = sheets.documents(data, WHOLE)

    assert cells(read, "Bergen | 7") == "Ports!A2:B2"
    assert cells(read, "| Oslo | 1.5 |\n| Bergen | 2 |") == "Ports!A4:B5"
    assert cells(read, "Turku") == "'It''s 2026'!A1"
    assert cells(read, "## Ports") == "Ports"


def test_rows_of_a_csv_are_ranges_of_cells() -> None:
    read = plain.read(b'port;ships\r\n"Bergen\r\nand Oslo";7\r\n\r\nTurku;2;x\r\n', "a.csv")

    assert cells(read, "Bergen\r\nand") == "A2:B2"
    assert cells(read, "Turku;2") == "A4:C4"
    csv.field_size_limit(10)  # as another reader may leave it
    assert cells(plain.read(b"a" * 200_000, "a.csv"), "a") == "A1"
    assert plain.read(b"a,b\n1,2\n", "a.txt").places == ()


def test_a_text_of_one_long_line_is_no_table() -> None:
    csv.field_size_limit(10)
    assert documents_of_rows(b"a" * 200_000, replace(BY_ROW, name="a.txt")) is None
