"""Tests of the page that runs SQL."""

from __future__ import annotations

import csv

from playwright.sync_api import expect

from chordwise.settings import Settings
from tests.fakes.pipeline import a_pipeline, a_summary
from tests.web.conftest import Visit

HOSTILE = "<img src=x onerror=alert(1)>\u202e"


def test_the_rows_of_a_statement_are_shown_and_exported(settings: Settings, visit: Visit) -> None:
    """A key runs the statement, the table shows the rows as text, and the CSV has the same rows."""
    pipeline = a_pipeline(settings, a_summary("The harbour"), repeat_last=True)
    pipeline.work(pipeline.submit("The harbour of Lindau was rebuilt in 1856."))
    page = visit.open("/sql")
    editor = page.get_by_label("Statement")
    editor.fill(f"SELECT run, -1.50 AS sum, '{HOSTILE}' AS mark, NULL AS gap FROM run_accounts")  # noqa: S608 - run as the reader role

    editor.press("Control+Enter")

    expect(page.locator("tbody tr")).to_have_count(1)
    cells = page.locator("tbody td").all_inner_texts()
    assert cells[1:] == ["-1.50", r"<img src=x onerror=alert(1)>\u202e", "null"]
    expect(page.locator("aside summary").filter(has_text="fact_quotes")).to_have_count(1)
    visit.look("sql")
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Download as CSV").click()
    with downloading.value.path().open(encoding="utf-8", newline="") as file:
        header, row = csv.reader(file)
    assert header == ["run", "sum", "mark", "gap"]
    assert row[1:] == ["-1.50", HOSTILE, ""]


def test_a_statement_that_writes_is_refused(settings: Settings, visit: Visit) -> None:
    """The reason is shown below the statement, which stays editable; nothing is changed."""
    pipeline = a_pipeline(settings, a_summary("The harbour"), repeat_last=True)
    pipeline.submit("A text.")
    page = visit.open("/sql?sql=SELECT * FROM outbox")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("alert")).to_contain_text("permission denied")

    page.get_by_label("Statement").fill("DELETE FROM runs")
    page.get_by_role("button", name="Run").click()

    expect(page.get_by_role("alert")).to_contain_text("Only read-only statements are allowed")
    assert page.get_by_label("Statement").input_value() == "DELETE FROM runs"
    assert pipeline.value("SELECT count(*) FROM runs") == 1
    visit.look("sql-refused")
