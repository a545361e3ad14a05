"""Schema versions: which revisions this database has been through, and whom they still suit."""

from __future__ import annotations

from sqlalchemy import Connection, delete, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from chordwise.storage.record import CreatedAt, Record


class SchemaVersion(Record):
    """A revision; code that was written for `works_from` or a later one works with its tables."""

    __tablename__ = "schema_versions"

    revision: Mapped[str] = mapped_column(primary_key=True)
    works_from: Mapped[str]
    applied_at: Mapped[CreatedAt]


def note(connection: Connection, revision: str, oldest: str) -> None:
    """Record a revision that has just been applied."""
    row = insert(SchemaVersion).values(revision=revision, works_from=oldest)
    connection.execute(row.on_conflict_do_nothing())


def forget(connection: Connection, revision: str) -> None:
    """Delete a revision that has just been taken back, maybe together with this table."""
    if _exists(connection):
        connection.execute(delete(SchemaVersion).where(SchemaVersion.revision == revision))


def _exists(connection: Connection) -> bool:
    return connection.scalar(text("SELECT to_regclass('schema_versions')")) is not None
