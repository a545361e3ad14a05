"""Tests that each quote of a file has its page, place and boxes wherever it is shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import openpyxl
import pytest

from chordwise import Client
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.errors import ExitCode
from chordwise.pipeline.intake.run_options import RunOptions
from chordwise.pipeline.intake.submit import Submission
from chordwise.pipeline.jobs.analyze_chunk import analyze_chunk
from chordwise.readers.reader import Reader
from chordwise.settings import ReaderSettings, Settings
from tests.fakes.commands import output_of, run
from tests.fakes.counting import counting
from tests.fakes.generated_answers import a_field
from tests.fakes.office_files import pdf, shown, workbook
from tests.fakes.pipeline import (
    PARAGRAPH,
    Pipeline,
    a_pipeline,
    a_run,
    a_summary,
    quoting_the_text,
)

pytestmark = pytest.mark.usefixtures("addressed")

LEASE = pdf([shown("Lease of a house"), shown("annual fee: 500 EUR, paid by", y=50)])
FACTS = "SELECT item, page, place, boxes FROM fact_quotes WHERE quote IS NOT NULL ORDER BY path"
PAGES = """
SELECT p.number, p.label, p.width, p.height, substr(d.text, p.start_char + 1, 6)
FROM document_places AS p JOIN documents AS d ON d.id = p.document_id
"""
FEE = a_field("annual fee", "500 EUR", 9, quote="annual fee: 500 EUR")


def take_in(
    pipeline: Pipeline, data: bytes, name: str, options: RunOptions | None = None
) -> Submission:
    with Reader(ReaderSettings()) as reader:
        return pipeline.submit(*reader.documents_in(data, name), options=options)


@pytest.fixture
def lease(settings: Settings) -> Pipeline:
    pipeline = a_pipeline(settings, json.dumps({"fields": [FEE]}), repeat_last=True)
    options = a_run(AnalysisType.EXTRACTION, analysis=AnalysisOptions(instructions="annual fee"))
    options = replace(options, save_as="leases", name="first")
    pipeline.work(take_in(pipeline, LEASE, "lease.pdf", options))
    return pipeline


def test_a_fact_has_page_place_and_boxes(lease: Pipeline) -> None:
    evidence = "SELECT annual_fee_page, annual_fee_place FROM answers.leases_evidence"
    output = "SELECT f ->> 'page', f ->> 'place', f -> 'boxes' FROM {} AS f"
    listed = "results, jsonb_array_elements(output -> 'fields')"

    ((item, page, place, boxes),) = lease.rows(FACTS)

    assert (item, page, place) == ("annual fee", 2, "p. 2")
    assert boxes == [[2, *(pytest.approx(edge, abs=3) for edge in (20, 240, 130, 252))]]
    assert lease.rows(output.format(listed)) == [("2", "p. 2", boxes)]
    assert lease.rows(evidence) == [(2, "p. 2")]
    assert lease.rows(PAGES) == [
        (1, "p. 1", 300.0, 300.0, "Lease "),
        (2, "p. 2", 300.0, 300.0, "annual"),
    ]
    said = ["--document", "lease", "--correct", "annual fee=600 EUR"]
    assert run(["feedback", "first", *said]) == ExitCode.SUCCESS
    assert [row[1:3] for row in lease.rows(FACTS)] == [(2, "p. 2")]
    assert lease.value("SELECT final_value FROM facts") == "600 EUR"


@pytest.mark.usefixtures("lease")
def test_results_show_the_place_of_each_quote(tmp_path: Path) -> None:
    path = tmp_path / "leases.xlsx"

    told = output_of("results", "--run", "first").out
    (result,) = json.loads(output_of("results", "--run", "first", "--json").out)["results"]
    assert run(["export", "answers.leases", "--output", str(path)]) == ExitCode.SUCCESS
    with Client() as client:
        (read,) = client.run("first").results()
    fee = read.facts["annual fee"]

    assert "“annual fee: 500 EUR” p. 2" in told
    assert result["output"]["fields"][0]["place"] == "p. 2"
    assert (fee.page, fee.place, fee.boxes) == (2, "p. 2", result["output"]["fields"][0]["boxes"])
    assert [cell.value for cell in openpyxl.load_workbook(path)["Quotes"][2]][-1] == "p. 2"


def test_places_cost_one_statement(settings: Settings) -> None:
    pipeline = a_pipeline(settings, quoting_the_text, repeat_last=True)
    counted: list[tuple[int, int]] = []
    for name, data in (("warm.txt", b"Warm it is."), ("a.txt", b"It is so."), ("a.pdf", LEASE)):
        with counting(pipeline) as intake:
            submission = take_in(pipeline, data, name)
        (chunk_id,) = pipeline.open_chunks(pipeline.job(submission).id)
        with counting(pipeline) as work:
            analyze_chunk(pipeline.context, chunk_id)
        counted.append((intake.statements, work.statements))

    (_, (plain_intake, plain_work), (paged_intake, paged_work)) = counted
    assert paged_intake == plain_intake
    assert paged_work == plain_work + 1
    assert pipeline.rows("SELECT DISTINCT source FROM document_places") == [("a.pdf",)]


def test_a_document_of_many_chunks_has_places(settings: Settings) -> None:
    lines = [PARAGRAPH[start : start + 40] for start in (0, 40)]
    page = " ".join(shown(line, y=280 - 13 * row) for row, line in enumerate(lines * 10))
    pages = [page] * 29 + [f"{page} {shown('The last word of all', y=10)}"]
    pipeline = a_pipeline(settings, a_summary("The last word of all"), repeat_last=True)

    submission = take_in(pipeline, pdf(pages), "long.pdf")
    pipeline.work(submission)

    assert (pipeline.job(submission).chunk_count or 0) > 1
    assert [row[1:3] for row in pipeline.rows(FACTS)] == [(30, "p. 30")]


def test_a_cell_has_neither_page_nor_boxes(settings: Settings) -> None:
    pipeline = a_pipeline(settings, a_summary("Bergen"), repeat_last=True)

    pipeline.work(take_in(pipeline, workbook({"Ports": [["port"], ["Bergen"]]}), "a.xlsx"))

    assert [row[1:] for row in pipeline.rows(FACTS)] == [(None, "Ports!A2", None)]
