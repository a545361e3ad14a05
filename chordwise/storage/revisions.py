"""The schema revision that this version needs, and its compatibility with a database.

Commands that only read check it too, so this needs the driver alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import LiteralString

from psycopg import Connection

from chordwise.errors import ConfigurationError

_PACKAGE = Path(__file__).resolve().parent.parent


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
    return _first(connection, "alembic_version", "SELECT version_num FROM alembic_version")


def require_suitable(connection: Connection) -> None:
    """Reject a schema that is incompatible with the code of this version.

    A newer schema is accepted if it records that the code of this revision still works with it.

    Raises:
        ConfigurationError: The database is empty, older, or newer and incompatible.
    """
    present, newest = current(connection), newest_revision()
    require_released(connection, present)
    if present == newest:
        return
    if present is None or present in known():
        raise ConfigurationError(
            f"The database is at schema {present or 'none'}; this version needs {newest}.",
            "Run `chordwise migrate` with this version.",
        )
    oldest = _works_from(connection, present)
    if oldest is None or oldest > newest:
        raise ConfigurationError(
            f"The database is at schema {present}, which this version ({newest}) does not know.",
            f"Update Chordwise here to a version with schema {oldest or present} or newer.",
        )


def _works_from(connection: Connection, revision: str) -> str | None:
    """Return the oldest revision whose code works with a revision; `None` if none is recorded."""
    query = "SELECT works_from FROM schema_versions WHERE revision = %s"
    return _first(connection, "schema_versions", query, revision)


def _first(connection: Connection, table: str, query: LiteralString, *values: str) -> str | None:
    """Return the first value of a query; `None` if its table does not exist, or has no row."""
    exists = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()
    row = connection.execute(query, values).fetchone() if exists and exists[0] else None
    return str(row[0]) if row else None


def first_revision() -> str:
    """Return the first revision of every database."""
    return min(known())


def require_released(connection: Connection, present: str | None) -> None:
    """Reject a schema that was created before the first release; `present` is its revision.

    The revisions of such a schema have the same numbers as released ones, but the first revision is
    not recorded.

    Raises:
        ConfigurationError: The schema was created by an unreleased version.
    """
    if present is not None and _works_from(connection, first_revision()) is None:
        raise ConfigurationError(
            f"The database's schema ({present}) was made by an unreleased version of Chordwise, "
            "and there is no migration from it.",
            "The schema has to be created from scratch: use an empty database, or another home "
            "(CHORDWISE_HOME) for the embedded one, and run `chordwise migrate`.",
        )
