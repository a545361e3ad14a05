"""Tests of values that chunks contradict, and of the evidence for what a document does not say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import openpyxl
import pytest

from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.learning.feedback_input import FeedbackInput
from chordwise.domain.learning.truths import Verdict
from chordwise.errors import ModelRequestError
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.intake.run_options import RunOptions
from chordwise.pipeline.learning import feedback
from chordwise.relations import review
from chordwise.settings import Settings
from chordwise.storage.database import driver
from tests.fakes.commands import output_of
from tests.fakes.generated_answers import a_field
from tests.fakes.pipeline import LONG, a_document, a_pipeline, a_run

FIRST = "The fee is 5,000 EUR, due to Acme Ltd. in Bonn."
LAST = "EUR 5000 (ACME LTD) or 7,000 EUR."
TEXT = f"{FIRST} {LONG} {LAST}"
ITEMS = ("fee", "payee", "places (list)", "notice period")
SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "fee": {"type": "string"},
        "places": {"type": "array", "items": {"type": "string"}},
        "notice": {"type": ["string", "null"]},
    },
    "required": ["fee", "places", "notice"],
    "additionalProperties": False,
}
pytestmark = pytest.mark.usefixtures("addressed")


def a_question(**options: object) -> RunOptions:
    analysis = replace(AnalysisOptions(), **options)  # type: ignore[arg-type]  # a test's options
    return a_run(AnalysisType.EXTRACTION, analysis=analysis)


def quoted(request: CompletionRequest) -> str:
    """Answer with what a chunk has of the values."""
    text = request.task.text
    values: list[tuple[str, str | None, int]] = [("places (list)", "Lindau", 9)]
    if FIRST in text:
        values += [("fee", "5,000 EUR", 9), ("payee", "Acme Ltd.", 9), ("places (list)", "Bonn", 9)]
    if LAST in text:
        values += [("fee", "EUR 5000", 8), ("fee", "7,000 EUR", 8), ("payee", "ACME LTD", 8)]
    answered = {item for item, _, _ in values}
    values += [(item, None, 9) for item in ITEMS if item not in answered]
    return json.dumps({"fields": [a_field(*value) for value in values]})


def of_schema(request: CompletionRequest) -> str:
    """Answer with the fee of a chunk; a synthesis decides for the last one."""
    is_last = bool(request.task.answers) or LAST in request.task.text
    fee = "7,000 EUR" if is_last else "5,000 EUR"
    fee = fee if request.task.answers or fee in request.task.text else ""
    data: JsonObject = {"fee": fee, "places": [], "notice": None}
    evidence = [{"path": "/fee", "quote": fee, "confidence": 9}] if fee else []
    return json.dumps({"data": data, "evidence": evidence})


def test_other_values_of_chunks_are_recorded_and_kept_after_a_correction(
    small_chunks: Settings, tmp_path: Path
) -> None:
    """Lists do not contradict, and neither do other forms of a value; a workbook has a note."""
    pipeline = a_pipeline(small_chunks, quoted, repeat_last=True)
    options = replace(a_question(items=ITEMS), save_as="contracts")
    job_id = pipeline.job(pipeline.analyze(TEXT, options=options)).id

    recorded = (
        "SELECT field, kept_value, kept_because, other_value, other_quote, other_start_char,"
        " kept_start_char FROM contradictions"
    )
    (row,) = pipeline.rows(recorded)
    assert row[:5] == ("fee", "5,000 EUR", "higher confidence", "7,000 EUR", "7,000 EUR")
    assert row[5:] == (TEXT.index("7,000 EUR"), TEXT.index("5,000 EUR"))
    said = "fee: 5,000 EUR was kept (higher confidence); another chunk has 7,000 EUR, as in"
    assert said in output_of("explain", str(job_id)).in_one_line
    output_of("export", "answers.contracts", "--output", str(tmp_path / "contracts.xlsx"))
    sheet = openpyxl.load_workbook(tmp_path / "contracts.xlsx")["contracts"]
    notes = [cell.comment.text for row in sheet.iter_rows() for cell in row if cell.comment]
    assert any("another chunk has 7,000 EUR\n“7,000 EUR”" in note for note in notes)
    with pipeline.context.database.write() as session:
        question = review.item(driver(session), job_id, "/fields/0")
        corrected = FeedbackInput(
            verdict=Verdict.CORRECTED, path="/fields/0", value="7,000 EUR", author="Ada"
        )
        feedback.decide(session, job_id, question["result_id"], corrected)
    assert [said in account for account in question["accounts"]] == [True]
    assert pipeline.rows(recorded) == [row]
    assert pipeline.value("SELECT final_value FROM contradictions") == "7,000 EUR"


def test_the_model_decides_between_members_of_a_schema(small_chunks: Settings) -> None:
    pipeline = a_pipeline(small_chunks, of_schema, repeat_last=True)
    pipeline.analyze(TEXT, options=a_question(schema=SCHEMA))

    assert pipeline.rows(
        "SELECT field, kept_value, kept_because, other_value, other_start_char, path"
        " FROM contradictions"
    ) == [
        ("fee", "7,000 EUR", "decided by the model", "5,000 EUR", TEXT.index("5,000"), "/data/fee")
    ]
    reasons = pipeline.value("SELECT reasons FROM review_queue WHERE item = 'fee'")
    assert "chunks disagree" in str(reasons)


def test_an_absence_has_what_was_read_and_asked(small_chunks: Settings) -> None:
    pipeline = a_pipeline(small_chunks, quoted, repeat_last=True)
    submission = pipeline.analyze(TEXT, options=a_question(items=ITEMS))
    chunks = pipeline.job(submission).chunk_count

    absences = """SELECT field, trust::text, character_count, characters_read, chunk_count,
        answered_chunks, votes, agreement FROM absences"""
    evidence = (len(TEXT), len(TEXT), chunks, chunks, 1, None)
    assert pipeline.rows(absences) == [("notice period", "silent", *evidence)]
    again = pipeline.submit(TEXT, options=a_question(items=ITEMS))
    assert pipeline.job(again).reused_from is not None
    assert pipeline.rows(absences) == [("notice period", "silent", *evidence)] * 2
    said = f"Not mentioned: notice period; read: {len(TEXT):,} of {len(TEXT):,} characters in"
    assert (
        f"{said} {chunks} of {chunks} chunks"
        in output_of("explain", str(pipeline.job(submission).id)).in_one_line
    )


def test_what_was_not_read_is_no_absence(small_chunks: Settings) -> None:
    def failing(request: CompletionRequest) -> str:
        if LAST in request.task.text:
            raise ModelRequestError("No.", "")
        return quoted(request)

    pipeline = a_pipeline(small_chunks, failing, repeat_last=True)
    submission = pipeline.analyze(TEXT, options=a_question(items=ITEMS))
    chunks = pipeline.job(submission).chunk_count or 0

    assert pipeline.rows(
        "SELECT trust::text, answered_chunks, characters_read < character_count FROM absences"
    ) == [("unread", chunks - 1, True)]
    shown = output_of("explain", str(pipeline.job(submission).id)).in_one_line
    assert "Not all was read for: notice period; read: " in shown


def test_a_list_of_a_document_that_was_read_in_part_is_not_silent(small_chunks: Settings) -> None:
    """A question over the rows of a list leaves the document out of its figure, by name."""
    properties: JsonObject = {"name": {"type": "string"}}
    row: JsonObject = {"type": "object", "properties": properties, "required": ["name"]}
    clauses: JsonObject = {"type": "array", "items": row}
    schema: JsonObject = {"type": "object", "properties": {"clauses": clauses}}

    def partly(request: CompletionRequest) -> str:
        if "unread" in request.task.text and LAST in request.task.text:
            raise ModelRequestError("No.", "")
        rows: list[JsonValue] = [{"name": "Bonn"}] if "Bonn" in request.task.text else []
        evidence = [{"path": "/clauses/0/name", "quote": "Bonn", "confidence": 9}] if rows else []
        return json.dumps({"data": {"clauses": rows}, "evidence": evidence})

    pipeline = a_pipeline(small_chunks, partly, repeat_last=True)
    silent = a_document(f"{LONG} {LAST}", source="silent.txt")
    unread = a_document(f"{LONG} unread {LAST}", source="unread.txt")
    options = replace(a_question(schema=schema), save_as="contracts")
    pipeline.analyze(a_document(TEXT, source="other.txt"), silent, unread, options=options)

    shown = output_of("ask", "count contracts_clauses where name is Bonn").in_one_line
    assert "Read: 2 of 3 documents; unread 1: unread.txt" in shown
    assert "Silent: 1 document: silent.txt" in shown
