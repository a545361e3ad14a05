"""Tests of reviewing in the browser, one value at a time."""

from __future__ import annotations

import getpass
import re

import pytest
from playwright.sync_api import Page, expect

from chordwise.pipeline.learning.certification import Bounds, certify
from chordwise.settings import Settings
from tests.fakes.learning import a_learner, a_scope, classified, extracted
from tests.fakes.pipeline import Pipeline
from tests.web.conftest import Visit

HOSTILE = "<img src=x onerror=alert(1)>\x1b[31m\u202etxt.exe"
FACTS = "SELECT final_value, value, verdict FROM fact_quotes WHERE item = '{}'"
SELECTED = """
    SELECT b.quote, f.quote, substr(d.text, b.start_char + 1, b.end_char - b.start_char)
    FROM feedback AS b JOIN documents AS d ON d.id = b.document_id
        JOIN fact_quotes AS f ON f.document_id = d.id AND f.item = b.field
    WHERE b.field = 'buyer' AND b.withdraws IS NULL"""
REMARKS = "SELECT verdict, author FROM feedback ORDER BY created_at"


@pytest.fixture
def pipeline(settings: Settings) -> Pipeline:
    """Return a pipeline whose model returns the answer that each document contains."""
    return a_learner(settings)


def name_of(page: Page) -> str:
    """Return the name of the value under review."""
    return page.locator("#asked").inner_text()


def press(page: Page, key: str, then: str) -> None:
    """Press a key, and wait until another value is shown."""
    page.keyboard.press(key)
    expect(page.locator("#asked")).to_have_text(then)


def test_values_are_reviewed_by_keyboard(pipeline: Pipeline, visit: Visit) -> None:
    """The least confident value is first; a correction selects text, is stored, and is undone."""
    extracted(
        pipeline,
        {HOSTILE: {"buyer": ("Miller & Sons", 2), "price": ("12 EUR", 4), "law": (None, 3)}},
        threshold=0.5,
    )
    page = visit.open("/review")
    assert name_of(page) == "buyer"
    assert page.locator("mark").inner_text() == "Miller & Sons"
    assert "\\u001b[31m\\u202etxt.exe" in page.locator("#source").inner_text()
    visit.look("review")

    page.evaluate("""() => {
        const node = document.querySelector(".excerpt mark span").firstChild;
        getSelection().setBaseAndExtent(node, 0, node, "Miller".length);
    }""")
    page.keyboard.press("c")
    press(page, "Enter", "price")
    page.keyboard.press("x")
    expect(page.locator(".empty")).to_contain_text("Nothing to review")

    assert pipeline.rows(FACTS.format("buyer")) == [("Miller", "Miller & Sons", "corrected")]
    assert pipeline.rows(SELECTED) == [("Miller", "Miller", "Miller")]
    assert pipeline.rows(FACTS.format("price")) == [(None, "12 EUR", "rejected")]
    visit.look("review-history")
    press(page, "u", "price")
    assert pipeline.rows(FACTS.format("price")) == [("12 EUR", "12 EUR", None)]
    me = getpass.getuser()
    said = ("corrected", "rejected", "withdrawn")
    assert pipeline.rows(REMARKS) == [(verdict, me) for verdict in said]
    expect(page.locator(".history .withdrawn")).to_have_count(1)
    page.get_by_role("button", name="Undo: buyer").click()
    expect(page.locator("mark")).to_have_text("Miller & Sons")
    assert pipeline.rows(SELECTED) == [("Miller", "Miller & Sons", "Miller")]


def test_the_uncorrected_part_of_a_value_is_preserved(pipeline: Pipeline, visit: Visit) -> None:
    """The field of the form has one line, and shows a soft hyphen as its escape."""
    long = "word " * 40
    extracted(pipeline, {"a.txt": {"buyer": (f"Mil\u00adler\n& Sons {long}", 2)}}, threshold=0.5)

    page = visit.open("/review")
    page.keyboard.press("c")
    page.keyboard.press("End")
    page.keyboard.type("more")
    page.keyboard.press("Enter")

    expect(page.locator(".history ins")).to_have_text(re.compile("& Sons word .*…$"))
    corrected = pipeline.value("SELECT corrected ->> 0 FROM feedback")
    assert corrected == f"Mil\u00adler & Sons {long.strip()}more"


def test_a_skipped_value_is_shown_again(pipeline: Pipeline, visit: Visit) -> None:
    """A label is corrected by choosing among the labels of the question."""
    classified(pipeline, {"a.txt": ("letter", 0.2), "b.txt": ("report", 0.3)}, threshold=0.9)
    page = visit.open("/review?analysis_type=classification")
    expect(page.locator(".value")).to_have_text("letter")

    page.keyboard.press("Space")
    expect(page.locator(".value")).to_have_text("report")
    page.keyboard.press("c")
    label = page.locator("#correction select")
    label.select_option("invoice")
    label.press("Enter")
    expect(page.locator(".history a")).to_have_text(["label"])
    visit.follow(page.get_by_role("link", name="Review the skipped values"))

    expect(page.locator(".value")).to_have_text("letter")
    labels = "SELECT final_value FROM facts WHERE path = '/primary_label' ORDER BY value"
    assert pipeline.rows(labels) == [("letter",), ("invoice",)]


def test_a_corrected_label_replaces_the_state_nothing_found(
    pipeline: Pipeline, visit: Visit
) -> None:
    """The list of results shows the correction, and not that the model found no label."""
    classified(pipeline, {"a.txt": ("none", 0.2)}, threshold=0.9)
    visit.open("/results")
    states = visit.page.locator("td .state")
    expect(states).to_have_text(["nothing found", "needs review"])
    page = visit.open("/review")
    page.keyboard.press("c")
    label = page.locator("#correction select")
    label.select_option("invoice")
    label.press("Enter")
    expect(page.locator(".empty")).to_be_visible()

    visit.open("/results")
    expect(states).to_have_text(["corrected"])


def test_the_page_of_a_run_links_to_the_missing_checks(pipeline: Pipeline, visit: Visit) -> None:
    """All answers of a field are shown in their random order, and a skipped one again."""
    submission = extracted(
        pipeline, {f"{n}.txt": {"term": (f"{n} days", 9), "law": (None, 9)} for n in range(3)}
    )
    scope = a_scope(pipeline, submission.name)
    assert len(certify(pipeline.context.database, scope, Bounds())) == 2
    page = visit.open(f"/runs/{submission.run_id}")
    visit.look("run-certified")

    visit.follow(
        page.locator("tr", has_text="term").get_by_role("link", name="all 3 have to be checked")
    )
    order = [page.locator("#source").inner_text()]
    page.keyboard.press("Space")
    for left in (2, 1):
        expect(page.locator(".measures dd").last).to_have_text(str(left))
        order.append(page.locator("#source").inner_text())
        page.keyboard.press("a")
    visit.follow(page.get_by_role("link", name="Review the skipped values"))
    assert page.locator("#source").inner_text() == order[0]
    visit.look("review-queue")
    page.keyboard.press("a")
    expect(page.locator(".empty")).to_contain_text("All of the queue is checked")

    assert sorted(order) == ["0.txt", "1.txt", "2.txt"]
    certified = certify(pipeline.context.database, scope, Bounds())
    checks = {unit["name"]: unit["certificate"].checks for unit in certified}
    assert checks == {"term": 3, "law, not mentioned": 0}
