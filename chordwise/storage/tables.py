"""All tables at once, for the migrations and the checks of them."""

from __future__ import annotations

from sqlalchemy.orm import configure_mappers

from chordwise.storage import (
    batch_requests,
    batches,
    broker_marker,
    budget_accounts,
    budget_reservations,
    cached_completions,
    calibrations,
    chunks,
    deliveries,
    documents,
    evaluations,
    facts,
    feedback,
    inbox_files,
    incidents,
    intakes,
    jobs,
    judgments,
    listed_files,
    model_calls,
    outbox,
    prompt_versions,
    results,
    runs,
    schedule_runs,
    schedules,
    schema_versions,
)
from chordwise.storage.record import Record

modules = (
    batch_requests,
    batches,
    broker_marker,
    budget_accounts,
    budget_reservations,
    cached_completions,
    calibrations,
    chunks,
    deliveries,
    documents,
    evaluations,
    facts,
    feedback,
    inbox_files,
    incidents,
    intakes,
    jobs,
    judgments,
    listed_files,
    model_calls,
    outbox,
    prompt_versions,
    results,
    runs,
    schedule_runs,
    schedules,
    schema_versions,
)
metadata = Record.metadata


def configure() -> None:
    """Resolve the tables' references to each other: a process knows all of them, or fails now."""
    configure_mappers()
