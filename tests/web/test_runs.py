"""The list of runs, and one run."""

from __future__ import annotations

from chordwise.settings import Settings
from tests.fakes.pipeline import a_pipeline, a_summary
from tests.web.conftest import Visit


def test_the_runs_are_listed(settings: Settings, visit: Visit) -> None:
    """A run stands in the list with its account; the token has left the address."""
    pipeline = a_pipeline(settings, a_summary("The harbour"), repeat_last=True)
    pipeline.work(pipeline.submit("The harbour of Lindau was rebuilt in 1856."))

    page = visit.open("/runs")

    assert "token" not in page.url
    row = page.locator("tbody tr")
    assert row.count() == 1
    assert "finished" in row.inner_text()
    visit.look("runs")
