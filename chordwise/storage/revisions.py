"""The schema revision that this version needs, and its compatibility with a database.

Alembic takes long to import and is used by `migration` only.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, delete, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from chordwise.errors import ConfigurationError
from chordwise.storage.record import CreatedAt, Record

_PACKAGE = Path(__file__).resolve().parent.parent
_EXISTS = text("SELECT to_regclass(:table) IS NOT NULL")
_CURRENT = text("SELECT version_num FROM alembic_version")
_WORKS_FROM = text("SELECT works_from FROM schema_versions WHERE revision = :revision")


def migrations_folder() -> Path:
    """Return the folder of the migrations: inside the wheel, or in the checkout."""
    packaged = _PACKAGE / "_packaged" / "migrations"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "migrations"


def known() -> set[str]:
    """Return the revisions that this version has migrations for, by their file names."""
    return {file.stem for file in (migrations_folder() / "versions").glob("[0-9]*.py")}


def newest_revision() -> str:
    """Return the revision that this version of Chordwise needs."""
    return max(known())


def current(connection: Connection) -> str | None:
    """Return the revision of the database; `None` if it is empty."""
    if not connection.scalar(_EXISTS, {"table": "alembic_version"}):
        return None
    found: str | None = connection.scalar(_CURRENT)
    return found


def require_compatible(engine: Engine) -> None:
    """Call `require_suitable` on a separate connection.

    Raises:
        ConfigurationError: The schema is incompatible.
    """
    with engine.connect() as connection:
        require_suitable(connection)


def require_suitable(connection: Connection) -> None:
    """Reject a schema that is incompatible with the code of this version.

    A newer schema is accepted if it records that the code of this revision still works with it.

    Raises:
        ConfigurationError: The database is empty, older, or newer and incompatible.
    """
    found, wanted = current(connection), newest_revision()
    require_released(connection, found)
    if found == wanted:
        return
    if found is None or found in known():
        raise ConfigurationError(
            f"The database is at schema {found or 'none'}; this version needs {wanted}.",
            "Run `chordwise migrate` with this version.",
        )
    oldest = _works_from(connection, found)
    if oldest is None or oldest > wanted:
        raise ConfigurationError(
            f"The database is at schema {found}, which this version ({wanted}) does not know.",
            f"Update Chordwise here to a version with schema {oldest or found} or newer.",
        )


def _works_from(connection: Connection, revision: str) -> str | None:
    """Return the oldest revision whose code works with a revision; `None` if none is recorded."""
    if not connection.scalar(_EXISTS, {"table": "schema_versions"}):
        return None
    oldest: str | None = connection.scalar(_WORKS_FROM, {"revision": revision})
    return oldest


class SchemaVersion(Record):
    """A revision; code written for `works_from` or a later revision works with its tables."""

    __tablename__ = "schema_versions"

    revision: Mapped[str] = mapped_column(primary_key=True)
    works_from: Mapped[str]
    applied_at: Mapped[CreatedAt]


def record(connection: Connection, revision: str, oldest: str) -> None:
    """Record a revision that has just been applied."""
    row = insert(SchemaVersion).values(revision=revision, works_from=oldest)
    connection.execute(row.on_conflict_do_nothing())


def forget(connection: Connection, revision: str) -> None:
    """Delete a revision that was just reverted; the table itself may be gone."""
    if connection.scalar(_EXISTS, {"table": "schema_versions"}):
        connection.execute(delete(SchemaVersion).where(SchemaVersion.revision == revision))


def first_revision() -> str:
    """Return the first revision of every database."""
    return min(known())


def require_released(connection: Connection, found: str | None) -> None:
    """Reject a schema that was created before the first release; `found` is its revision.

    The revisions of such a schema have the same numbers as released ones, but the first revision is
    not recorded.

    Raises:
        ConfigurationError: The schema was created by an unreleased version.
    """
    if found is not None and _works_from(connection, first_revision()) is None:
        raise ConfigurationError(
            f"The database's schema ({found}) was made by an unreleased version of Chordwise, and "
            "there is no migration from it.",
            "The schema has to be created from scratch: use an empty database, or another home "
            "(CHORDWISE_HOME) for the embedded one, and run `chordwise migrate`.",
        )
