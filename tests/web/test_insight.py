"""Tests of the plots of the insight page, and of the report as a self-contained file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, FloatRect, Page, expect

from chordwise.errors import ExitCode
from chordwise.pipeline.learning.evaluation import evaluate
from chordwise.pipeline.learning.gold import read
from chordwise.settings import Settings
from tests.fakes.commands import output_of, point_to, run
from tests.fakes.learning import a_learner, a_scope, classified, written
from tests.fakes.pipeline import Pipeline
from tests.web.conftest import Visit

HOSTILE = "</script><script>document.title = 'broken'</script>\u202e"
RENAMED = f"UPDATE model_calls SET model = $${HOSTILE}$$, cost_usd = 0.25"  # noqa: S608 - constants of the test
# A figure counts as drawn if its canvas is not empty.
DRAWN = """() => [...document.querySelectorAll("[data-plot] canvas")].filter(canvas => {
    const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    return data.some(each => each !== 0);
}).map(canvas => canvas.closest("section").querySelector("h2").id)"""
WITHOUT = ("savings", "failures")
FIGURES = ["throughput", "latency", "tokens", "cost", "quality", "evaluations", "reliability"]


@pytest.fixture
def pipeline(settings: Settings, tmp_path: Path) -> Pipeline:
    """Return a pipeline that has answered two documents, one of them wrongly."""
    pipeline = a_learner(settings)
    classified(pipeline, {"a.txt": ("letter", 0.75), "b.txt": ("report", 0.3)})
    truth = [{"document": name, "label": "letter"} for name in ("a.txt", "b.txt")]
    gold = written(tmp_path / "truth.jsonl", *truth)
    evaluate(pipeline.context.database, replace(a_scope(pipeline), gold=read(gold)))
    pipeline.execute(RENAMED)
    return pipeline


def drawn(page: Page) -> list[str]:
    """Return the figures that are drawn."""
    # Locators instead of `wait_for_function`, whose evaluated string the page's CSP forbids.
    expect(page.locator(".plot[aria-busy]")).to_have_count(0)
    expect(page.locator("[data-plot]:not(:has(canvas))")).to_have_count(0)
    keys: list[str] = page.evaluate(DRAWN)
    return [key for key in keys if key in FIGURES]


def box(page: Page, key: str) -> FloatRect:
    """Return the position of a figure on the page."""
    bounds = page.locator(f"#figure-{key}").bounding_box()
    assert bounds is not None
    return bounds


def test_the_page_draws_the_numbers_of_the_views(pipeline: Pipeline, visit: Visit) -> None:
    """The table below a plot has the numbers of the view."""
    page = visit.open("/insight?days=7")

    assert drawn(page) == FIGURES
    expect(page.locator("#total-calls")).to_have_text("2")
    tops = {key: box(page, key)["y"] for key in (*FIGURES, *WITHOUT)}
    assert min(tops[key] for key in WITHOUT) >= max(tops[key] for key in FIGURES)
    heights = {key: box(page, key)["height"] for key in (*FIGURES, *WITHOUT)}
    assert max(heights[key] for key in WITHOUT) < min(heights[key] for key in FIGURES) / 2
    page.locator("section[aria-labelledby=cost] summary").click()
    cells = page.locator("section[aria-labelledby=cost] tbody td").all_inner_texts()
    assert cells[2:] == [f"{HOSTILE[:-1]}\\u202e", "$0.5000", "0"]
    assert pipeline.rows("SELECT cost_usd FROM model_costs_by_day") == [(0.5,)]
    visit.look("insight")


def test_the_report_is_one_file(
    pipeline: Pipeline,
    settings: Settings,
    browser: Browser,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It opens without a server, draws its plots, makes no request, and runs no text as script."""
    assert pipeline.value("SELECT count(*) FROM results") == 2
    point_to(settings, monkeypatch)
    path = tmp_path / "report.html"

    printed = output_of("insight", "--out", str(path), "--json").out
    assert run(["insight", "--out", str(path)]) == ExitCode.USAGE

    assert json.loads(printed)["totals"]["cost_usd"] == 0.5
    addresses: list[str] = []
    complaints: list[str] = []
    context = browser.new_context()
    page = context.new_page()
    page.on("request", lambda request: addresses.append(request.url))
    page.on("console", lambda said: complaints.append(said.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path.as_uri())
    assert drawn(page) == FIGURES
    assert (addresses, complaints) == ([path.as_uri()], [])
    assert page.title() == "Report · Chordwise"
    context.close()
