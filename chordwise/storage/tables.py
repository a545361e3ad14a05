"""All tables at once, for the migrations and the checks of them."""

from __future__ import annotations

from sqlalchemy.orm import configure_mappers

from chordwise.storage import (  # noqa: F401 - each has tables of its own
    answer_tables,
    batch_requests,
    batches,
    cached_completions,
    calibrations,
    certifications,
    chunks,
    deliveries,
    documents,
    experiments,
    inbox_files,
    incidents,
    intakes,
    jobs,
    judgments,
    learned_examples,
    model_calls,
    outbox,
    prompt_versions,
    results,
    revisions,
    runs,
    schedules,
)
from chordwise.storage.record import Record

metadata = Record.metadata


def configure() -> None:
    """Resolve the tables' references to each other: a process knows all of them, or fails now."""
    configure_mappers()
