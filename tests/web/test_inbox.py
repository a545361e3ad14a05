"""Tests of the page of the inbox."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect

from chordwise.settings import Profile, Settings
from tests.fakes.inbox_watch import LETTER, watched
from tests.web.conftest import Visit, VisitWith


def test_files_are_listed_with_their_states(
    tmp_path: Path, settings: Settings, visit_with: VisitWith
) -> None:
    """A delivered file, a failed file with its reason, and a waiting file."""
    inbox = watched(tmp_path, settings, {"letters": Profile(instructions="who writes")})
    inbox.drop("letters/anna.txt", LETTER)
    inbox.drop("<b>note</b>.bin", "\0\1\2" * 300)
    inbox.deliver()
    inbox.drop("berta.txt", LETTER)

    with visit_with(inbox.pipeline.context.settings) as visit:
        page = visit.open("/inbox")
        figures = page.locator(".figures dd").all_inner_texts()
        assert [figure.split()[0] for figure in figures] == ["1", "0", "1", "1"]
        expect(page.locator("tbody tr", has_text="anna.txt")).to_contain_text("done")
        failed = page.locator("tbody tr", has_text="<b>note</b>.bin")
        expect(failed).to_contain_text("failed")
        expect(failed).to_contain_text("binary content")
        visit.look("inbox")
    inbox.close()


def test_an_empty_page_explains_what_to_add(visit: Visit) -> None:
    for path, said in (
        ("/inbox", 'folders = ["inbox"]'),
        ("/schedules", "chordwise schedules add"),
    ):
        expect(visit.open(path).locator(".empty")).to_contain_text(said)
