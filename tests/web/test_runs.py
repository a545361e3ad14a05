"""Tests of the list of runs, and of the page of a run."""

from __future__ import annotations

import re
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from chordwise.pipeline.intake.found_files import entry_of
from chordwise.pipeline.intake.submit import Submission, open_run
from chordwise.readers.discovery import FoundFile
from chordwise.settings import Settings
from tests.fakes.pipeline import NOW, Pipeline, a_document, a_pipeline, a_run, a_summary
from tests.fakes.processes import wait_until
from tests.web.conftest import Visit

TEXT = "The harbour of Lindau was rebuilt in 1856. It cost more than the town had planned."
# Longer than a visible page waits before it loads its lists again.
LOADING_MS = 4_000
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202etxt.exe"


@pytest.fixture
def pipeline(settings: Settings) -> Pipeline:
    """Return a pipeline whose model always returns the same summary."""
    return a_pipeline(settings, a_summary("The harbour of Lindau"), repeat_last=True)


def submitted(pipeline: Pipeline, *sources: str) -> Submission:
    """Take in documents with these names."""
    documents = (a_document(f"{number}. {TEXT}", source) for number, source in enumerate(sources))
    return pipeline.submit(*documents)


def show_tab(page: Page, *, is_shown: bool) -> None:
    """Simulate a visible or a hidden tab."""
    page.evaluate(
        """isShown => {
            Object.defineProperty(document, "hidden", {value: !isShown, configurable: true});
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        is_shown,
    )


def test_the_page_follows_a_run_to_its_end(pipeline: Pipeline, visit: Visit) -> None:
    """A visible page follows the run without a reload, until its account is final."""
    submission = submitted(pipeline, "one.txt", "two.txt", "three.txt")
    page = visit.open("/runs")
    page.get_by_role("link", name=submission.name).click()
    documents = page.locator(".figures > div", has_text="Documents done").locator("dd")
    expect(documents).to_have_text("0 of 3")
    first, *rest = pipeline.jobs(submission)

    pipeline.work_on(first.id)
    expect(documents).to_have_text("1 of 3")
    states = page.locator(".columns .panel").nth(1).locator("tbody tr")
    expect(states).to_have_text(["running2", "succeeded1"])
    expect(page.locator("td .state")).to_have_text(["succeeded", "running", "running"])
    requests: list[str] = []
    show_tab(page, is_shown=False)
    page.on("request", lambda request: requests.append(request.resource_type))
    pipeline.work_on(rest.pop().id)
    page.wait_for_timeout(LOADING_MS)
    assert requests == []
    show_tab(page, is_shown=True)
    expect(documents).to_have_text("2 of 3")
    assert requests.count("eventsource") == 1
    for job in rest:
        pipeline.work_on(job.id)

    expect(page.locator(".heading .state")).to_have_text("finished")
    expect(documents).to_have_text("3 of 3")
    expect(page.get_by_text("It balances.")).to_have_count(2)
    visit.look("run")


def test_sums_over_calls_are_loaded_after_the_page(pipeline: Pipeline, visit: Visit) -> None:
    """The list shows the costs of its runs shortly after the page, and a finished run its calls."""
    done = submitted(pipeline, "one.txt", "two.txt")
    pipeline.work(done)
    pipeline.execute("UPDATE model_calls SET cost_usd = 0.25")
    begun = pipeline.submit("A text of its own.")

    page = visit.open("/runs")
    expect(page.locator(f"#cost-{done.run_id}")).to_have_text("$0.5000")
    expect(page.locator(f"#cost-{begun.run_id}")).to_have_text("–")
    visit.open("/runs?status=finished")
    expect(page.locator("td[data-label=Cost]")).to_have_text(["$0.5000"])
    visit.open(f"/runs/{done.run_id}")

    for name, number in {"Calls": "2", "Cost": "$0.5000"}.items():
        figure = page.locator(".figures > div", has_text=name).locator("dd")
        expect(figure).to_have_text(re.compile(rf"^{re.escape(number)} "))
    expect(page.locator(".figures > div", has_text="Analyses done")).to_contain_text("in 2 chunks")


def test_paused_work_is_counted_and_can_be_continued(pipeline: Pipeline, visit: Visit) -> None:
    """The list counts it among the problems, as the command does.

    Tags, escape sequences and direction marks in a name are shown as text. On a phone, the
    navigation is scrolled to the current page, even to the last one.
    """
    paused = submitted(pipeline, HOSTILE)
    pipeline.execute("UPDATE jobs SET status = 'paused'")
    pipeline.execute("UPDATE runs SET status = 'paused'")

    page = visit.open("/runs")
    expect(page.locator("td[data-label='Problems']")).to_have_text("1")
    visit.open(f"/runs/{paused.run_id}")
    expect(page.get_by_role("button", name="Continue")).to_be_visible()
    shown = page.locator("tbody th", has_text="alert(1)").first.inner_text()
    assert shown == r"<script>alert(1)</script>\u001b[31m\u202etxt.exe"

    visit.page.set_viewport_size({"width": 390, "height": 844})
    box = visit.open("/sql").locator(".bar nav [aria-current]").bounding_box()
    assert box is not None
    assert 0 <= box["x"] <= 390 - box["width"]


def test_a_run_leads_to_its_table(pipeline: Pipeline, visit: Visit) -> None:
    """The link has the numbers of the table, and the table leads to its statement."""
    options = replace(a_run(), save_as="Contracts 2026-Q1")
    pipeline.analyze("A text.", options=options)
    page = visit.open(f"/runs/{options.name}")

    link = page.get_by_role("link", name="Table contracts_2026_q1")
    expect(link).to_contain_text(": 1 document · ")
    visit.look("run-table")
    visit.follow(link)
    visit.follow(page.get_by_role("link", name="SQL", exact=True).last)

    expect(page.locator("tbody tr")).to_have_count(1)


def test_a_run_is_cancelled_and_retried(pipeline: Pipeline, visit: Visit) -> None:
    """Both ask for confirmation and act as the commands do; the address has the name of the run."""
    documents = (a_document(f"{number}. {TEXT}", f"{number}.txt") for number in range(2))
    submission = pipeline.submit(*documents, options=replace(a_run(), name="acme/2026"))
    page = visit.open(f"/runs/{submission.name}")
    page.get_by_role("button", name="Cancel run").click()
    page.locator("#confirm").get_by_role("button", name="No").click()
    assert "cancelled" not in {job.status for job in pipeline.jobs(submission)}

    visit.confirm("Cancel run")
    expect(page.locator("#notice")).to_have_text("2 analyses cancelled.")
    visit.look("run-cancelled")
    visit.confirm("Continue")
    expect(page.locator("#notice")).to_have_text("2 analyses retried.")

    assert {job.status for job in pipeline.jobs(submission)} == {"queued"}


def test_dropped_files_start_a_run(settings: Settings, pipeline: Pipeline, visit: Visit) -> None:
    """Files dropped on the page are taken in under their names, and analyzed.

    A folder is refused: browsers pass it as a file that cannot be read.
    """
    page = visit.open("/runs")
    visit.look("runs-empty")
    page.evaluate(
        """() => {
            const folder = {webkitGetAsEntry: () => ({isDirectory: true})};
            const drop = new Event("drop", {cancelable: true});
            drop.dataTransfer = {types: ["Files"], items: [folder], files: []};
            document.dispatchEvent(drop);
        }"""
    )
    expect(page.locator(".sending")).to_have_text(
        "A folder cannot be dropped. Drop the files in it."
    )
    assert pipeline.value("SELECT count(*) FROM runs") == 0
    page.evaluate(
        """([name, text]) => {
            const files = new DataTransfer();
            files.items.add(new File([text], name));
            const bytes = new Uint8Array(900).map((_, at) => (at * 7) % 256);
            files.items.add(new File([bytes], "../../picture.bin"));
            document.dispatchEvent(new DragEvent("drop", {dataTransfer: files, bubbles: true}));
        }""",
        ["harbour.txt", TEXT],
    )
    expect(page.locator("#notice")).to_have_text("2 files sent.")
    wait_until(lambda: pipeline.value("SELECT count(*) FROM jobs") == 1, 60, "taken in")
    pipeline.work_on(uuid.UUID(str(pipeline.value("SELECT id FROM jobs"))))
    expect(page.locator(".heading .state").first).to_have_text("finished")
    visit.look("run-failure")
    visit.open("/runs")
    visit.look("runs")
    page.get_by_role("button", name="Dark").click()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.reload()
    expect(page.get_by_role("button", name="Light")).to_be_visible()

    intakes = pipeline.rows("SELECT source, outcome FROM intakes ORDER BY id")
    assert intakes == [("harbour.txt", "accepted"), ("picture.bin", "unsupported")]
    stored = sorted(path.name for path in (settings.home / "web" / "uploads").rglob("file*"))
    assert stored == ["file.bin", "file.txt"]


def test_an_interrupted_intake_is_resumed(tmp_path: Path, pipeline: Pipeline, visit: Visit) -> None:
    """Files that another process has not taken in are taken in."""
    (tmp_path / "left.txt").write_text(TEXT, "utf-8")
    entries = [entry_of(FoundFile(source="left.txt", path=tmp_path / "left.txt"))]
    submission = open_run(pipeline.context, replace(a_run(), model="extractive"), NOW, entries)
    submission.close()
    page = visit.open(f"/runs/{submission.run_id}")
    expect(page.locator(".state.interrupted")).to_have_text("intake interrupted")

    visit.confirm("Continue")

    taken = "SELECT count(*) FROM intakes WHERE outcome = 'accepted'"
    wait_until(lambda: pipeline.value(taken) == 1, 60, "taken in")
