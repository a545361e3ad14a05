"""Uploaded files are rendered on the page of their document, and deleted with their run."""

from __future__ import annotations

import uuid
from datetime import timedelta
from pathlib import Path

from playwright.sync_api import expect

from chordwise.embedded.home import home_at
from chordwise.settings import Settings
from chordwise.web import uploads
from tests.fakes.office_files import pdf, shown
from tests.fakes.pipeline import a_pipeline, a_summary
from tests.fakes.processes import wait_until
from tests.web.conftest import Visit


def test_an_uploaded_pdf_is_shown_until_its_run_is_deleted(
    settings: Settings, visit: Visit, tmp_path: Path
) -> None:
    """Its pages are rendered from the uploaded file; other files remain."""
    pipeline = a_pipeline(settings, a_summary("Lease of a house"), repeat_last=True)
    folder = settings.home / "web" / "uploads"
    for name in ("lease.pdf", "other.pdf"):
        path = tmp_path / name
        path.write_bytes(pdf([shown(f"Lease of a house, {name}")]))
        page = visit.open("/runs")
        page.get_by_label("Files").set_input_files(path)
        page.get_by_role("button", name="Start run").click()
        expect(page.locator("#notice")).to_have_text("1 file sent.")
    wait_until(lambda: pipeline.value("SELECT count(*) FROM jobs") == 2, 60, "taken in")
    documents = "SELECT j.run_id, j.document_id FROM jobs AS j ORDER BY j.id"
    (run_id, document_id), (other_run_id, _) = pipeline.rows(documents)

    page = visit.open(f"/documents/{document_id}")
    expect(page.locator("#page-1 img")).to_have_js_property("naturalWidth", 600)
    pipeline.execute("DELETE FROM outbox")
    for table in ("chunks", "jobs"):
        of_run = "job_id IN (SELECT id FROM jobs WHERE run_id = :id)"
        condition = "run_id = :id" if table == "jobs" else of_run
        pipeline.execute(f"DELETE FROM {table} WHERE {condition}", id=run_id)  # noqa: S608 - constants of the test
    pipeline.execute("DELETE FROM intakes WHERE run_id = :id", id=run_id)
    pipeline.execute("DELETE FROM runs WHERE id = :id", id=run_id)
    uploads.forget(home_at(settings.home), pipeline.context.database)
    assert len(list(folder.iterdir())) == 2  # files are stored before their run
    uploads.forget(home_at(settings.home), pipeline.context.database, timedelta(0))

    assert [path.name for path in folder.iterdir()] == [uuid.UUID(str(other_run_id)).hex]
