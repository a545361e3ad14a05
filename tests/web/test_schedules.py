"""Tests of the page of schedules."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from chordwise.settings import Settings
from tests.fakes.pipeline import a_pipeline
from tests.fakes.scheduling import nightly
from tests.web.conftest import Visit, serving, visiting


def test_a_schedule_is_started_from_the_page(
    request: pytest.FixtureRequest, tmp_path: Path, settings: Settings, browser: Browser
) -> None:
    """A configured schedule that no scheduler has loaded starts once; a second start is refused."""
    known = settings.model_copy(update={"schedules": {"nightly": nightly(tmp_path)}})
    pipeline = a_pipeline(known)
    pictures = request.config.getoption("--screenshots")

    with serving(known) as served, visiting(browser, served, pictures) as visit:
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


def test_without_a_schedule_the_page_shows_the_command(visit: Visit) -> None:
    """Without schedules the page shows the command that adds one."""
    page = visit.open("/schedules")

    expect(page.locator(".empty")).to_contain_text("chordwise schedules add")
