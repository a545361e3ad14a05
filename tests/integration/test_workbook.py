"""Tests of the workbook of a table of answers, read by openpyxl and by LibreOffice."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import openpyxl
import pytest
from openpyxl import Workbook
from openpyxl.worksheet.worksheet import Worksheet

from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.json_values import JsonObject
from chordwise.llm.model import CompletionRequest
from chordwise.settings import Settings
from tests.fakes.commands import output_of
from tests.fakes.generated_answers import a_field
from tests.fakes.pipeline import Pipeline, a_document, a_pipeline, a_run

pytestmark = pytest.mark.usefixtures("addressed")

ITEMS = ("governing law", "effective date", "parties", "annual fee: money", "notice period")
LEASE = "governing law: Texas. effective date: 3 May 2024. annual fee: US$ 1,234.50. Ada and Bob."
LOAN = "governing law: Ohio. effective date: 03/04/2020. =HYPERLINK(1)"
ORDER: JsonObject = {
    "type": "object",
    "properties": {
        "vendor": {"type": "string", "description": "Who sends it."},
        "quotes?": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"what": {"type": "string"}, "amount": {"type": "number"}},
            },
        },
    },
}


def reading(request: CompletionRequest) -> str:
    if request.task.options.schema is not None:
        words = [f"bolt {n}" for n in range(10)] + ["a nut"]
        rows = [{"what": word, "amount": n + 0.5} for n, word in enumerate(words)]
        evidence = [
            {"path": f"/quotes?/{n}/what", "quote": word, "confidence": 9}
            for n, word in enumerate(words)
        ]
        return json.dumps({"data": {"vendor": "Acme", "quotes?": rows}, "evidence": evidence})
    if LEASE in request.task.text:
        fields = [
            a_field("governing law", "Texas", 9, quote="governing law: Texas"),
            a_field("effective date", "3 May 2024", 9, quote="effective date: 3 May 2024"),
            a_field("parties", "Ada", 9, quote="Ada and Bob"),
            a_field("parties", "Bob", 9, quote="Ada and Bob"),
            a_field("annual fee", "US$ 1,234.50", 9, quote="annual fee: US$ 1,234.50"),
            a_field("notice period", None, 9),
        ]
    else:
        fields = [
            a_field("governing law", "Utah", 9, quote="governing law: Ohio"),
            a_field("effective date", "03/04/2020", 9, quote="effective date: 03/04/2020"),
            a_field("parties", "=HYPERLINK(1)", 9, quote="=HYPERLINK(1)"),
            a_field("annual fee", None, 9),
            a_field("notice period", None, 9),
        ]
    return json.dumps({"fields": fields})


@pytest.fixture
def pipeline(settings: Settings) -> Pipeline:
    return a_pipeline(settings, reading, repeat_last=True)


@pytest.fixture
def leases(pipeline: Pipeline, tmp_path: Path) -> Pipeline:
    """Two documents, of which one is a file on this machine."""
    (tmp_path / "a lease #1.txt").write_text(LEASE, "utf-8")
    options = a_run(AnalysisType.EXTRACTION, analysis=AnalysisOptions(items=ITEMS))
    documents = (a_document(LEASE, str(tmp_path / "a lease #1.txt")), a_document(LOAN, "b.txt"))
    pipeline.analyze(*documents, options=replace(options, save_as="leases"))
    return pipeline


def exported(table: str, *options: str) -> Workbook:
    output_of("export", f"answers.{table}", "-o", f"{table}.xlsx", "--force", *options)
    return openpyxl.load_workbook(f"{table}.xlsx")


def rows_of(sheet: Worksheet) -> list[tuple[object, ...]]:
    return list(sheet.iter_rows(values_only=True))


@pytest.mark.usefixtures("leases")
def test_values_come_first_with_their_types(tmp_path: Path) -> None:
    sheet = exported("leases").worksheets[0]

    heading, lease, loan = rows_of(sheet)
    fields = ("Governing law", "Effective date", "Parties", "Annual fee", "Notice period")
    assert heading == ("Document", *fields, "To check", "File")
    day = datetime(2024, 5, 3)  # noqa: DTZ001 - a day of Excel has no zone
    path = str(tmp_path / "a lease #1.txt")
    assert lease == ("a lease #1.txt", "Texas", day, "Ada\nBob", 1234.5, None, 0, path)
    assert loan[1:4] == ("Utah", "03/04/2020", "'=HYPERLINK(1)")
    assert sheet["E2"].number_format == '#,##0.00## "USD"'
    assert sheet["C2"].number_format == "yyyy-mm-dd"
    assert sheet["A1"].font.b
    assert sheet.freeze_panes == "B2"
    assert sheet.auto_filter.ref == "A1:H3"
    assert sheet["D2"].alignment.wrapText


@pytest.mark.usefixtures("leases")
def test_a_correction_of_another_type_is_shown_as_written() -> None:
    correction = ("--document", "a lease #1.txt", "--correct", "effective date=on request")
    output_of("feedback", "latest", *correction)

    sheet = exported("leases").worksheets[0]

    assert rows_of(sheet)[1][2] == "on request"
    assert sheet["C2"].comment is not None
    assert "not recognized as date" in sheet["C2"].comment.text


@pytest.mark.usefixtures("leases")
def test_a_cell_to_check_is_colored_and_says_why() -> None:
    book = exported("leases")
    sheet = book.worksheets[0]

    assert sheet["B3"].fill.start_color.rgb == "FFFFE699"
    assert sheet["B3"].comment is not None
    assert sheet["B3"].comment.text == "value not in quote\n“governing law: Ohio” "
    assert sheet["C3"].comment is not None
    assert "Shown as written: not recognized as date" in sheet["C3"].comment.text
    assert sheet["B2"].comment is None
    assert sheet["B2"].fill.fill_type is None


def test_names_lead_to_the_page_and_the_file(
    leases: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    links = [exported("leases").worksheets[0][place].hyperlink for place in ("A2", "H2", "H3")]
    monkeypatch.setenv("CHORDWISE_WEB__PUBLIC_URL", "https://docs.lan/")
    page = exported("leases").worksheets[0]["A2"].hyperlink

    uri = (tmp_path / "a lease #1.txt").as_uri().replace("file", "FILE", 1)
    assert [link.target if link else None for link in links] == [uri, uri, None]
    ids = "SELECT '/documents/' || document_id || '?job=' || job_id FROM answers.leases"
    path = leases.value(f"{ids} WHERE document <> 'b.txt'")
    assert page is not None
    assert page.target == f"https://docs.lan{path}"


def test_quotes_and_the_account_have_their_sheets(leases: Pipeline) -> None:
    leases.execute("UPDATE model_calls SET cost_usd = 0.25")
    book = exported("leases")

    assert book.sheetnames == ["leases", "Quotes", "About"]
    quotes = rows_of(book["Quotes"])
    about = {row[0]: row[1:] for row in rows_of(book["About"])}
    assert quotes[0] == ("Document", "Field", "Value", "Quote", "Place")
    assert [row[1] for row in quotes[1:6]] == [
        *("Governing law", "Effective date", "Parties", "Parties", "Annual fee")
    ]
    assert about["Asked"][0] == f"extraction: {', '.join(ITEMS)}"
    assert about["Cost of its runs"][0] == "$0.5000"
    assert about["Documents"][:3] == (None, 2, None)
    assert about["Governing law"] == ("Asked for: governing law", 2, 1, *[None] * 2, 1, *[None] * 3)
    to_check = leases.value("SELECT sum(needs_check) FROM answers.leases")
    counted = [row[2] for row in about.values() if isinstance(row[2], int)]
    assert sum(counted) == to_check


def test_what_was_not_read_is_listed(leases: Pipeline) -> None:
    leases.execute(
        "INSERT INTO intakes (id, run_id, source, byte_count, outcome, reason, message) SELECT "
        "uuidv7(), id, 'c.pdf', 1, 'encrypted', 'encrypted', 'It needs a password.' FROM runs"
    )
    leases.execute(
        "UPDATE jobs SET status = 'failed', error_message = 'Too long.', error_code = 'length' "
        "WHERE intake_id = (SELECT id FROM intakes WHERE source = 'b.txt')"
    )
    leases.execute("DELETE FROM results USING jobs WHERE job_id = jobs.id AND status = 'failed'")
    book = exported("leases")

    told = [row[1] for row in rows_of(book["About"]) if row[0] == "Not read"]
    name = book.worksheets[0]["A3"]
    assert told == [
        "b.txt\nextraction failed: Too long.",
        "c.pdf\nencrypted: It needs a password.",
    ]
    assert name.value == "b.txt"
    assert name.comment is not None
    assert name.comment.text == "failed: Too long."


def test_a_list_of_objects_is_a_sheet_of_rows(pipeline: Pipeline) -> None:
    options = a_run(AnalysisType.EXTRACTION, analysis=AnalysisOptions(schema=ORDER))
    text = " ".join(f"bolt {n}" for n in range(11))
    pipeline.analyze(a_document(f"Acme: {text}"), options=replace(options, save_as="orders"))

    book = exported("orders")
    all_columns = exported("orders", "--all-columns")

    assert book.sheetnames == ["orders", "quotes", "Quotes_2", "About"]
    heading, order = rows_of(book["orders"])
    assert heading[1:4] == ("Vendor", "Quotes? (rows)", "To check")
    assert order[1:4] == ("Acme", 11, 13)
    assert book["orders"]["C2"].hyperlink.location == "'quotes'!A2"
    assert book["orders"]["C2"].comment.text == "12 cells to check"
    rows = rows_of(book["quotes"])
    assert rows[0][1:] == ("What", "Amount")
    assert [row[1:] for row in rows[1:]] == [
        *((f"bolt {n}", n + 0.5) for n in range(10)),
        ("a nut", 10.5),
    ]
    assert book["quotes"]["B12"].comment is not None
    assert book["quotes"]["B12"].comment.text.startswith("quote not found")
    assert ("quotes? 11: What", "a nut") in [row[1:3] for row in rows_of(book["Quotes_2"])]
    wide = [rows_of(sheet)[0] for sheet in all_columns]
    assert {"job_id", "vendor_trust", "needs_check"} <= {*wide[0]}
    assert {"row_index", "grounded"} <= {*wide[1]}
    assert {"start_char", "trust", "reasons"} <= {*wide[2]}


@pytest.mark.skipif(shutil.which("soffice") is None, reason="LibreOffice is not installed")
@pytest.mark.usefixtures("leases")
def test_libreoffice_reads_the_same_values(tmp_path: Path) -> None:
    exported("leases")
    profile = f"-env:UserInstallation={(tmp_path / 'office').as_uri()}"
    command = ["soffice", profile, "--headless", "--convert-to", "csv:Text - txt - csv (StarCalc)"]
    command[-1] += ":44,34,76,1,,0,false,true,false,false,false,1"
    subprocess.run([*command, "leases.xlsx"], check=True, timeout=120)

    with next(tmp_path.glob("leases*.csv")).open(encoding="utf-8", newline="") as file:
        _, lease, loan = csv.reader(file)
    assert lease[:6] == ["a lease #1.txt", "Texas", "2024-05-03", "Ada\nBob", "1234.5", ""]
    assert loan[1:4] == ["Utah", "03/04/2020", "'=HYPERLINK(1)"]
