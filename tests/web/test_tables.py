"""Tests of the pages of tables in the browser."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable
from dataclasses import replace

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from chordwise.domain import json_values
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.json_values import JsonObject
from chordwise.llm.model import CompletionRequest
from chordwise.settings import Settings
from chordwise.web.pages import answer_tables
from chordwise.web.server import Served
from tests.fakes.generated_answers import a_field
from tests.fakes.learning import LABELS, doubted
from tests.fakes.pipeline import Pipeline, a_document, a_label, a_pipeline, a_run
from tests.web.conftest import Visit

ITEMS = "governing law, effective date, parties, annual fee, notice period"
LAWS = ("Delaware", "New York", "England and Wales")
HOSTILE = "<img src=x onerror=alert(1)>\u202e"
ORDER: JsonObject = {
    "type": "object",
    "properties": {
        "buyer": {"type": "string", "description": "Who buys."},
        "lines": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "what": {"type": "string"},
                    "amount": {"type": "number"},
                    "open": {"type": "object"},
                },
            },
        },
    },
}
REMARKS = "SELECT verdict, field, corrected ->> 0, author FROM feedback ORDER BY created_at"


def a_contract(number: int) -> str:
    """Return a contract as lines of the form `Item: value`; every fourth one names no period."""
    period = "" if number % 4 == 3 else f"notice period: {30 * (1 + number % 3)} days\n"
    return (
        f"AGREEMENT No. {number}\ngoverning law: {LAWS[number % 3]}\n"
        f"effective date: March {1 + number % 28}, 20{20 + number % 5}\n"
        f"parties: Ada {number} Ltd\nparties: Bob {number} Inc.\n"
        f"annual fee: US$ {1_000 * (number + 1):,}.50\n{period}"
        "Either party may end this agreement by notice in writing.\n"
    )


def reading(request: CompletionRequest) -> str:
    """Return the values that the text has as lines, or as JSON."""
    text = request.task.text
    if request.task.options.schema is not None:
        data = json.loads(text[text.index("{") : text.rindex("}") + 1])
        quotes = {"/buyer": data["buyer"]}
        quotes |= {f"/lines/{n}": json.dumps(line) for n, line in enumerate(data["lines"])}
        evidence = [{"path": at, "quote": quote, "confidence": 9} for at, quote in quotes.items()]
        return json.dumps({"data": data, "evidence": evidence})
    lines = [line.partition(": ") for line in text.splitlines() if ": " in line]
    fields = [a_field(name, value, 9, quote=f"{name}: {value}") for name, _, value in lines]
    missing = {item.strip() for item in ITEMS.split(",")} - {name for name, _, _ in lines}
    return json.dumps({"fields": [*fields, *(a_field(name, None, 9) for name in missing)]})


@pytest.fixture
def pipeline(settings: Settings) -> Pipeline:
    """Return a pipeline whose model reads the lines of documents."""
    return a_pipeline(settings, reading, repeat_last=True)


def contracts(pipeline: Pipeline, count: int = 12) -> None:
    """Save the answers about contracts as a table, with cells to check in the second and last."""
    options = a_run(AnalysisType.EXTRACTION, analysis=AnalysisOptions(instructions=ITEMS))
    documents = (
        a_document(a_contract(n), f"/files/agreements of the year/contract-{n:03}-{HOSTILE}.txt")
        for n in range(count)
    )
    pipeline.analyze(*documents, options=replace(options, save_as="contracts"))
    doubted(pipeline, "US$ 2,000.50", "value not in quote")
    doubted(pipeline, LAWS[(count - 1) % 3], "chunks disagree", source=f"{count - 1:03}")


def fill(settings: Settings) -> None:
    contracts(a_pipeline(settings, reading, repeat_last=True))


@pytest.fixture
def filled_by(request: pytest.FixtureRequest) -> Callable[[Settings], object] | None:
    return fill if "filled" in request.fixturenames else None


@pytest.fixture
def filled(pipeline: Pipeline) -> Pipeline:
    """Return a pipeline whose database has the table of contracts."""
    return pipeline


def cell(page: Page, row: int, column: int) -> Locator:
    """Return a cell by the number of its row and its column, both from 0."""
    return page.locator("#sheet tbody tr").nth(row).locator("> *").nth(column)


def test_cells_are_checked_by_keyboard(filled: Pipeline, visit: Visit) -> None:
    """The next cell to check opens at its quote; decisions update the cell and the numbers."""
    page = visit.open("/tables")
    expect(page.locator("tbody td").first).to_have_text("12 documents · 2 cells to check")
    visit.look("tables")
    visit.follow(page.get_by_role("link", name="contracts", exact=True))
    expect(page.locator("#summary")).to_have_text("12 documents · 2 cells to check")
    expect(page.locator("#sums")).to_contain_text("9 values")
    visit.look("table")

    page.keyboard.press("n")
    expect(page.locator("#asked")).to_have_text("annual fee")
    expect(cell(page, 1, 4)).to_be_focused()
    expect(page.locator("#panel mark")).to_have_text("annual fee: US$ 2,000.50")
    visit.look("table-cell")
    page.keyboard.press("a")
    expect(page.locator("#summary")).to_have_text("12 documents · 1 cell to check")
    expect(cell(page, 1, 4)).to_have_class("confirmed number")
    expect(cell(page, 1, 4)).to_be_focused()
    page.keyboard.press("n")
    expect(cell(page, 11, 1)).to_be_focused()
    expect(page.locator("#asked")).to_have_text("governing law")
    page.keyboard.press("c")
    page.keyboard.type("Texas")
    page.keyboard.press("Enter")
    expect(cell(page, 11, 1)).to_have_text("Texas")
    expect(page.locator("#summary")).to_have_text("12 documents · 0 cells to check")
    expect(cell(page, 11, 1)).to_be_focused()
    page.keyboard.press("u")
    expect(page.locator("#summary")).to_have_text("12 documents · 1 cell to check")
    page.keyboard.press("x")
    expect(cell(page, 11, 1)).to_have_class("corrected")
    page.keyboard.press("Escape")
    expect(page.locator("#panel")).to_be_hidden()
    expect(cell(page, 11, 1)).to_be_focused()

    me = getpass.getuser()
    assert filled.rows(REMARKS) == [
        ("approved", "annual fee", None, me),
        ("corrected", "governing law", "Texas", me),
        ("withdrawn", "governing law", None, me),
        ("rejected", "governing law", None, me),
    ]


def test_a_missing_value_is_found_in_the_nearest_passage(pipeline: Pipeline, visit: Visit) -> None:
    """One key fills the passage into the correction, and its place is stored with it.

    The review offers the same passages. An undo is refused after another decision.
    """
    contracts(pipeline, 4)
    job = pipeline.value(
        "SELECT job_id FROM fact_quotes WHERE trust = 'silent' AND item = 'notice period'"
    )
    page = visit.open(f"/review?job={job}&path=/fields/5")
    expect(page.locator("#asked")).to_have_text("notice period")
    page.keyboard.press("m")
    expect(page.locator("#correction input[name=value]")).to_be_focused()
    visit.look("review-passages")

    visit.open("/tables/contracts")
    cell(page, 3, 5).click()
    expect(page.locator(".passages q")).to_have_count(1)
    page.keyboard.press("Escape")
    cell(page, 3, 4).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("#panel mark")).to_contain_text("by notice in writing")
    page.keyboard.press("m")
    expect(page.locator("#correction q")).to_contain_text("by notice in writing")
    visit.look("table-passages")
    page.keyboard.type("at any time")
    page.keyboard.press("Enter")
    expect(cell(page, 3, 5)).to_have_text("at any time")
    quote = "SELECT quote FROM fact_quotes WHERE item = 'notice period' AND verdict = 'corrected'"
    assert pipeline.rows(quote) == [("Either party may end this agreement by notice in writing.",)]

    expect(page.locator("#panel [name=feedback]")).to_have_count(1)
    pipeline.execute(
        "INSERT INTO feedback SELECT (jsonb_populate_record(NULL::feedback, to_jsonb(b)"
        " || jsonb_build_object('id', uuidv7(), 'verdict', 'rejected', 'created_at',"
        " clock_timestamp()))).* FROM feedback AS b"
    )
    page.keyboard.press("u")
    expect(page.locator(".panel-head")).to_contain_text("Another decision was made")
    assert pipeline.value("SELECT count(*) FROM feedback WHERE withdraws IS NOT NULL") == 0


def test_failed_documents_and_previews_are_marked(pipeline: Pipeline, visit: Visit) -> None:
    """A document without an answer has a row with its state and no cells to open.

    A warning about a document is a cell of its own, in the column of the names.
    """
    contracts(pipeline, 2)
    pipeline.execute("UPDATE results SET language_model = false, needs_review = true")
    pipeline.execute("UPDATE intakes SET message = 'Page 2 has no text.' WHERE source ~ '001'")
    pipeline.execute(
        "WITH failed AS (DELETE FROM results WHERE document_id ="
        " (SELECT document_id FROM intakes WHERE source ~ '000') RETURNING job_id),"
        " lost AS (DELETE FROM facts AS f USING failed WHERE f.job_id = failed.job_id)"
        " UPDATE jobs SET status = 'failed' FROM failed WHERE id = failed.job_id"
    )
    page = visit.open("/tables/contracts")
    expect(page.locator(".notice")).to_contain_text("Preview without a language model")
    expect(cell(page, 0, 0)).to_contain_text("failed")
    for column in (2, 0):
        cell(page, 0, column).click()
        expect(page.locator("#panel")).to_contain_text("There is no value to decide on.")
    visit.look("table-failed")
    page.keyboard.press("n")
    expect(cell(page, 1, 0)).to_be_focused()
    expect(page.locator("#panel")).to_contain_text("Page 2 has no text.")
    page.keyboard.press("a")
    expect(cell(page, 1, 0)).not_to_have_class("check")


def test_invalid_addresses_are_explained(pipeline: Pipeline, served: Served) -> None:
    contracts(pipeline, 1)
    with httpx.Client(follow_redirects=True) as client:
        client.get(served.link)
        base = served.link.partition("/?")[0]
        for address in (
            *("?sort=nonsense", "?trust=nonsense", "?from.annual_fee=much", "/rows?offset=-1"),
            *("/columns/nonsense", "/cell?document=nonsense", "/totals?to.effective_date=soon"),
        ):
            assert client.get(f"{base}/tables/contracts{address}").status_code == 400, address


@pytest.mark.usefixtures("filled")
def test_columns_are_sorted_filtered_and_described(visit: Visit) -> None:
    """The legend, the search, the headings and the menus narrow the rows; filters add up."""
    page = visit.open("/tables/contracts")
    visit.follow(page.locator("thead").get_by_role("link", name="annual fee"))
    visit.follow(page.locator("thead").get_by_role("link", name="annual fee"))
    expect(cell(page, 0, 4)).to_have_text("12,000.50 USD")
    page.get_by_role("button", name="governing law: values").click()
    expect(page.locator("#menu .counts li")).to_have_text(
        ["Delaware 4", "England and Wales 4", "New York 4"]
    )
    page.get_by_role("button", name="effective date: values").click()
    expect(page.locator("#menu")).to_contain_text("2020-03-01 – 2024-03-10")
    visit.look("table-menu")
    page.get_by_label("From").fill("2023-01-01")
    with page.expect_navigation():
        page.get_by_label("From").press("Enter")
    expect(page.locator("#summary")).to_have_text("4 documents · 0 cells to check")
    page.get_by_role("button", name="governing law: values").click()
    visit.follow(page.locator("#menu").get_by_role("link", name="Delaware"))
    expect(page.locator("#summary")).to_have_text("2 documents · 0 cells to check")
    visit.follow(page.locator("#legend .active a").first)
    expect(page.locator("#summary")).to_have_text("4 documents · 0 cells to check")
    visit.follow(page.locator("#legend").get_by_role("link", name="not mentioned"))
    expect(cell(page, 0, 5)).to_have_class("silent")
    page.get_by_role("searchbox", name="Search in names and values").fill("007")
    with page.expect_navigation():
        page.get_by_role("searchbox", name="Search in names and values").press("Enter")
    expect(page.locator("#sheet")).to_contain_text("No rows match")
    visit.follow(page.get_by_role("link", name="Show all"))
    expect(page.locator("#summary")).to_have_text("12 documents · 2 cells to check")


def test_rows_are_loaded_when_they_are_needed(
    pipeline: Pipeline, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys reach a cell to check that is not loaded yet; after the last, the first follows."""
    monkeypatch.setattr(answer_tables, "_PAGE_ROWS", 40)
    contracts(pipeline, 52)
    page = visit.open("/tables/contracts")
    expect(page.locator("#sheet tbody tr[data-document]")).to_have_count(40)
    page.keyboard.press("n")
    expect(cell(page, 1, 4)).to_be_focused()
    page.keyboard.press("n")
    expect(cell(page, 51, 1)).to_be_focused()
    expect(page.locator("#panel mark")).to_contain_text("governing law")
    page.keyboard.press("ArrowUp")
    expect(cell(page, 50, 1)).to_be_focused()
    page.keyboard.press("n")
    page.keyboard.press("n")
    expect(cell(page, 1, 4)).to_be_focused()


def test_a_list_opens_as_a_table_of_its_own(pipeline: Pipeline, visit: Visit) -> None:
    """Keys alone check its cells one after another; a value of a row leads back to the rows."""
    lines = [{"what": f"bolt {n}", "amount": n + 0.5} for n in range(3)]
    lines[2] |= {"open": {"mark": "heavy"}}
    text = json.dumps({"buyer": "Ada", "lines": lines})
    options = a_run(AnalysisType.EXTRACTION, analysis=AnalysisOptions(schema=ORDER))
    pipeline.analyze(a_document(text, "o.txt"), options=replace(options, save_as="orders"))
    for value in ("bolt 1", "1.5", "bolt 2", "heavy"):
        doubted(pipeline, value, "value not in quote")
    page = visit.open("/tables/orders")
    summary, shown = page.locator("#summary"), page.locator("#panel .value")
    expect(summary).to_have_text("1 document · 4 cells to check")

    cell(page, 0, 2).click()
    expect(page.locator(".nested tbody tr")).to_have_count(3)
    visit.look("table-list")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Next to check").last).to_be_focused()
    page.keyboard.press("Enter")
    expect(shown).to_have_text("bolt 1")
    for value, left in (("1.5", "3 cells"), ("bolt 2", "2 cells"), ("heavy", "1 cell")):
        page.keyboard.press("n")
        expect(shown).to_contain_text(value)
        page.keyboard.press("a")
        expect(summary).to_have_text(f"1 document · {left} to check")
    page.keyboard.press("n")
    expect(shown).to_have_text("bolt 1")
    page.keyboard.press("c")
    page.keyboard.type("nut")
    page.keyboard.press("Enter")
    expect(summary).to_have_text("1 document · 0 cells to check")
    page.get_by_role("button", name="All rows").click()
    expect(page.get_by_role("button", name="nut")).to_be_visible()
    rows = "SELECT what FROM answers.orders_lines ORDER BY row_index"
    assert pipeline.rows(rows) == [("bolt 0",), ("nut",), ("bolt 2",)]


def test_values_that_an_answer_left_out_are_added(pipeline: Pipeline, visit: Visit) -> None:
    """A property, a member of a row, and a row that the model did not give can be corrected."""
    due: JsonObject = {"due": {"type": "string", "format": "date"}}
    members = json_values.as_object(ORDER["properties"]) | due
    schema: JsonObject = {"type": "object", "properties": members}
    options = a_run(AnalysisType.EXTRACTION, analysis=AnalysisOptions(schema=schema))
    text = json.dumps({"buyer": "Ada", "lines": [{"what": "bolt"}]})
    pipeline.analyze(a_document(text, "o.txt"), options=replace(options, save_as="orders"))
    page = visit.open("/tables/orders")
    cell(page, 0, 2).click()
    expect(page.locator("#asked")).to_have_text("due")
    page.keyboard.press("c")
    page.keyboard.type("March 1, 2026")
    page.keyboard.press("Enter")
    expect(cell(page, 0, 2)).to_have_text("2026-03-01")
    cell(page, 0, 3).click()
    page.get_by_role("button", name="–").first.click()
    expect(page.locator("#asked")).to_have_text("lines.amount")
    page.keyboard.press("c")
    page.keyboard.type("2.50")
    page.keyboard.press("Enter")
    expect(page.locator("#panel .state.done")).to_have_text("corrected")

    page.get_by_role("button", name="All rows").click()
    page.get_by_role("button", name="Correct the whole list").click()
    expect(page.locator("#asked")).to_have_text("lines")
    page.keyboard.press("c")
    page.keyboard.type('[{"what": "bolt", "amount": 2.5}, {"what": "nut"}]')
    page.keyboard.press("Enter")
    expect(cell(page, 0, 3)).to_have_text("2 rows")

    rows = "SELECT what, amount::text, amount_trust, due::text FROM answers.orders_lines"
    rows += " INNER JOIN answers.orders USING (document_id)"
    assert pipeline.rows(f"{rows} ORDER BY row_index") == [
        ("bolt", "2.5", "corrected", "2026-03-01"),
        ("nut", None, "silent", "2026-03-01"),
    ]


def test_labels_and_open_values_have_cells(settings: Settings, visit: Visit) -> None:
    """A label belongs to another answer than the values; both are decided on in their cells."""
    data = {"buyer": "Ada", "terms": {"days": 30}}
    evidence = [{"path": f"/{name}", "quote": "Ada buys.", "confidence": 9} for name in data]
    script = json.dumps({"data": data, "evidence": evidence}), a_label("invoice", 0.9, "Ada buys.")
    pipeline = a_pipeline(settings, *script)
    members: JsonObject = {"buyer": {"type": "string"}, "terms": {"type": "object"}}
    schema: JsonObject = {"type": "object", "properties": members}
    kinds = (AnalysisType.EXTRACTION, AnalysisType.CLASSIFICATION)
    options = a_run(*kinds, analysis=AnalysisOptions(schema=schema, labels=LABELS))
    pipeline.analyze(a_document("Ada buys.", "a.txt"), options=replace(options, save_as="mixed"))
    page = visit.open("/tables/mixed")
    answers = {"buyer": "Ada", "terms": "30", "label": "invoice"}
    for column, (name, answer) in enumerate(answers.items(), 1):
        cell(page, 0, column).click()
        expect(page.locator("#asked")).to_have_text(name)
        expect(page.locator("#panel .value")).to_contain_text(answer)
        page.keyboard.press("a")
        expect(cell(page, 0, column)).to_have_class("confirmed")


def ask(page: Page, question: str) -> None:
    box = page.get_by_label("Ask a question about all documents")
    box.fill(question)
    with page.expect_navigation():
        box.press("Enter")


def test_a_question_is_answered_above_the_table(filled: Pipeline, visit: Visit) -> None:
    assert filled.value("SELECT count(*) FROM answers.contracts") == 12
    page = visit.open("/tables/contracts")
    ask(page, "count contracts by notice period where annual fee > 3000")

    expect(page.locator("h2")).to_have_text("In 7 of 12 documents:")
    expect(page.locator("tbody tr").first).to_have_text("90 days3")
    expect(page.get_by_text("Silent: 3 documents: ")).to_be_visible()
    expect(page.get_by_text("Plan: answers.contracts")).to_be_visible()
    page.get_by_text("Quotes (").click()
    expect(page.locator("details q").first).to_be_visible()
    visit.look("ask")
    ask(page, "count contracts where period is silent")
    expect(page.locator("main")).to_contain_text("3 of 12 documents")
    page.locator("summary", has_text="Quotes (3)").click()
    expect(page.locator("main")).to_contain_text("notice period = not mentioned")
    visit.look("ask-absent")
    ask(page, "Which ones end soon?")
    expect(page.get_by_role("alert")).to_contain_text("This question needs a language model.")
