"""Tests of the list of results: filters, search, order, SQL and export."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
from playwright.sync_api import Page, expect

from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.runs import user_sql
from chordwise.settings import Settings
from chordwise.web.pages import results
from tests.fakes.pipeline import Pipeline, a_document, a_pipeline, a_run, a_summary
from tests.web.conftest import Visit

COUNT, PAGE = 12, 10


def answering(request: CompletionRequest) -> str:
    """Return an answer with high confidence for some texts only."""
    return a_summary(request.task.text[:12], confidence=9 if "granite" in request.task.text else 4)


@pytest.fixture
def answered(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """Return a pipeline that has summarized more documents than a page has, a few with granite."""
    monkeypatch.setattr(results, "PAGE_ROWS", PAGE)
    pipeline = a_pipeline(settings, answering, repeat_last=True)
    documents = []
    for number in range(COUNT):
        stone = "granite" if number % 4 == 0 else "timber"
        documents.append(a_document(f"Harbour {number}. Its mole is of {stone}.", f"{number}.txt"))
    pipeline.analyze(*documents, options=replace(a_run(), name="harbours"))
    return pipeline


def expect_listed(page: Page, names: list[str]) -> None:
    """Wait until the page has these documents, in this order."""
    expect(page.locator("tbody th")).to_have_text(names)


def test_results_are_found_sorted_and_exported(answered: Pipeline, visit: Visit) -> None:
    """The SQL that the page shows and the export return the same results."""
    page = visit.open("/results")
    expect_listed(page, [f"{number}.txt" for number in reversed(range(COUNT - PAGE, COUNT))])
    page.get_by_role("link", name="Next page").click()
    expect_listed(page, [f"{number}.txt" for number in reversed(range(COUNT - PAGE))])

    page.get_by_label("Words in documents").fill("a topic")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("td.answer").first.locator("mark")).to_have_text(["A", "topic"])
    page.get_by_label("Words in documents").fill("granite mole")
    page.get_by_label("Type").select_option(AnalysisType.SUMMARY)
    page.get_by_label("Confidence from").fill("0.5")
    page.get_by_role("button", name="Show").click()
    page.get_by_role("link", name="Confidence").click()

    listed = ["0.txt", "4.txt", "8.txt"]
    expect_listed(page, listed)
    expect(page.get_by_role("status").filter(has_text="3 results")).to_be_visible()
    visit.look("results")
    page.get_by_text("The same in SQL").click()
    statement = page.locator("#sql").inner_text()
    assert answered.context.settings.database_url is not None
    with user_sql.run_query(answered.context.settings.database_url, statement) as answer:
        at = list(answer.columns).index("source")
        assert [row[at] for row in answer.rows] == listed
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert download.value.suggested_filename == "results.csv"
    with download.value.path().open(newline="", encoding="utf-8") as file:
        assert [row["source"] for row in csv.DictReader(file)] == listed
    page.get_by_role("link", name="8.txt").click()
    expect(page.locator(".text")).to_contain_text("Harbour 8. Its mole is of granite.")
    expect(page.locator(".text .sought")).to_have_text(["mole", "granite"])


def test_an_empty_list_shows_the_next_step(visit: Visit) -> None:
    """Before any analysis, without matching results, and with an invalid filter."""
    expect(visit.open("/results").locator(".empty")).to_contain_text("chordwise analyze")
    page = visit.open("/results?words=%22%27%3B--&run=x")
    expect(page.locator(".empty")).to_contain_text("Show all results")
    visit.look("results-empty")
    for query in ("type=novel", "from=2", "sort=colour", "after=!"):
        response = visit.page.request.get(f"{visit.base}/results?{query}")
        assert response.status == 400, query
