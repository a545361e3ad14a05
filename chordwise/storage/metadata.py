"""All tables together, for the migrations and their checks."""

from __future__ import annotations

from sqlalchemy import Connection, delete, inspect
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, configure_mappers, mapped_column

from chordwise.storage import (  # noqa: F401 - each module defines tables
    answer_tables,
    api_tokens,
    audit_events,
    batch_requests,
    batches,
    budgets,
    cached_completions,
    calibrations,
    certifications,
    chunks,
    closed_profiles,
    deliveries,
    documents,
    entities,
    erasures,
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
    runs,
    schedules,
)
from chordwise.storage.record import CreatedAt, Record


class SchemaVersion(Record):
    """A revision; code written for `works_from` or a later revision works with its tables."""

    __tablename__ = "schema_versions"

    revision: Mapped[str] = mapped_column(primary_key=True)
    works_from: Mapped[str]
    applied_at: Mapped[CreatedAt]


metadata = Record.metadata


def record(connection: Connection, revision: str, oldest: str) -> None:
    """Record a revision that has just been applied."""
    row = insert(SchemaVersion).values(revision=revision, works_from=oldest)
    connection.execute(row.on_conflict_do_nothing())


def forget(connection: Connection, revision: str) -> None:
    """Delete a revision that was just reverted; the table itself may be gone."""
    if inspect(connection).has_table(SchemaVersion.__tablename__):
        connection.execute(delete(SchemaVersion).where(SchemaVersion.revision == revision))


def configure() -> None:
    """Resolve the references between the tables; fail at once if a table is missing."""
    configure_mappers()
