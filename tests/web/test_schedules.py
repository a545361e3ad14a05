"""Tests of the page of schedules."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect

from chordwise.settings import Settings
from tests.fakes.pipeline import a_pipeline
from tests.fakes.scheduling import nightly
from tests.web.conftest import VisitWith


def test_a_schedule_is_started_from_the_page(
    tmp_path: Path, settings: Settings, visit_with: VisitWith
) -> None:
    """A configured schedule that no scheduler has loaded starts once; a second start is refused."""
    known = settings.model_copy(update={"schedules": {"nightly": nightly(tmp_path)}})
    pipeline = a_pipeline(known)

    with visit_with(known) as visit:
        page = visit.open("/schedules")
        expect(page.locator("tbody tr")).to_contain_text("Not loaded by a scheduler yet")
        visit.confirm("Run nightly now")
        expect(page.locator("#notice")).to_contain_text("A scheduler will start nightly")
        visit.look("schedules")
        history = page.locator("section", has_text="Recent runs").locator("tbody tr")
        expect(history).to_contain_text("due")
        visit.confirm("Run nightly now")
        expect(page.locator("main")).to_contain_text("is running")

    assert pipeline.rows("SELECT schedule, trigger, status FROM schedule_runs") == [
        ("nightly", "command", "due")
    ]
