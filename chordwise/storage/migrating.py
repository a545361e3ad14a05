"""Bringing the database to the schema that this version needs."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from chordwise.errors import ConfigurationError

_PACKAGE = Path(__file__).resolve().parent.parent
_LOCK = 4_271_001  # any number will do, as long as it is always this one


def migrations_folder() -> Path:
    """Return where the migrations are: inside the wheel, or in the checkout."""
    packaged = _PACKAGE / "_packaged" / "migrations"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "migrations"


def configuration() -> Config:
    """Return Alembic's configuration without any file."""
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    return config


def newest_revision() -> str:
    """Return the revision that this version of Chordwise needs."""
    return str(ScriptDirectory.from_config(configuration()).get_current_head())


def revision_of(engine: Engine) -> str | None:
    """Return the revision that the database is at; `None` when it is empty."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def migrate(engine: Engine) -> tuple[str | None, str]:
    """Bring the database to the newest revision; return the revisions before and after.

    An advisory lock lets one migration run at a time; the others wait and find nothing to do.
    """
    config = configuration()
    with engine.connect() as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("SET lock_timeout = '60s'"))
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
        connection.commit()
        before = MigrationContext.configure(connection).get_current_revision()
        connection.commit()
        try:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
            connection.commit()
    return before, newest_revision()


def require_current(engine: Engine) -> None:
    """Refuse to work on another schema than this version's.

    Raises:
        ConfigurationError: The database is empty, older or newer.
    """
    found, wanted = revision_of(engine), newest_revision()
    if found != wanted:
        raise ConfigurationError(
            f"The database is at schema {found or 'none'}, this version needs {wanted}.",
            "Run `chordwise migrate`; if the database is newer, update Chordwise.",
        )
