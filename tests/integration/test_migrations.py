"""The migrations make the tables that the code maps, and can be taken back."""

from __future__ import annotations

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from pydantic import SecretStr
from sqlalchemy import inspect

from chordwise.storage import migration, revisions
from chordwise.storage.database import open_engine
from chordwise.storage.tables import metadata


def test_migrated_tables_are_the_mapped_ones(database_url: SecretStr) -> None:
    """Alembic finds no difference between the database and the classes."""
    engine = open_engine(database_url)

    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)

    engine.dispose()
    assert differences == []


def test_migrating_again_changes_nothing(database_url: SecretStr) -> None:
    """The second migration finds the newest revision and leaves it."""
    engine = open_engine(database_url)

    before, after = migration.migrate(engine)

    engine.dispose()
    assert before == after == revisions.newest_revision()


def test_every_migration_can_be_taken_back(database_url: SecretStr) -> None:
    """Down to nothing and up again: no table or view is left behind or missing."""
    engine = open_engine(database_url)
    config = migration.configuration()
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        connection.commit()
        left = {*inspect(connection).get_table_names(), *inspect(connection).get_view_names()}
        connection.commit()

    migration.migrate(engine)

    with engine.connect() as connection:
        tables = set(inspect(connection).get_table_names())
    engine.dispose()
    assert left == {"alembic_version"}
    assert tables == {*metadata.tables, "alembic_version"}
