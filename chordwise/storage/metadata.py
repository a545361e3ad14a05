"""All tables together, for the migrations and their checks."""

from __future__ import annotations

from sqlalchemy.orm import configure_mappers

from chordwise.storage import (  # noqa: F401 - each module defines tables
    answer_tables,
    batch_requests,
    batches,
    budgets,
    cached_completions,
    calibrations,
    certifications,
    chunks,
    deliveries,
    documents,
    evaluations,
    experiments,
    feedback,
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
    """Resolve the references between the tables; fail at once if a table is missing."""
    configure_mappers()
