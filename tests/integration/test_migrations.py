"""The migrations make the tables that the code maps, and can be taken back."""

from __future__ import annotations

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from pydantic import SecretStr
from sqlalchemy import Connection, inspect, text

from chordwise.settings import Settings
from chordwise.storage import migrating, revisions
from chordwise.storage.database import open_engine
from chordwise.storage.tables import metadata
from tests.fakes.learning import a_learner, classified

VIEWS_OF_RESULTS = ("document_results", "results_by_day", "stale_results")


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

    before, after = migrating.migrate(engine)

    engine.dispose()
    assert before == after == revisions.newest_revision()


def test_every_migration_can_be_taken_back(database_url: SecretStr) -> None:
    """Down to nothing and up again: no table or view is left behind or missing."""
    engine = open_engine(database_url)
    config = migrating.configuration()
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        connection.commit()
        left = {*inspect(connection).get_table_names(), *inspect(connection).get_view_names()}
        connection.commit()

    migrating.migrate(engine)

    with engine.connect() as connection:
        tables = set(inspect(connection).get_table_names())
    engine.dispose()
    assert left == {"alembic_version"}
    assert tables == {*metadata.tables, "alembic_version"}


def test_results_outlive_what_votes_and_learning_added(
    settings: Settings, database_url: SecretStr
) -> None:
    """Without it and with it again: the rows are there, and readers may look at them."""
    classified(a_learner(settings), {"a.txt": ("letter", 0.7), "b.txt": ("report", 0.4)})
    engine = open_engine(database_url)
    config = migrating.configuration()

    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0009")
        connection.commit()
        without = {view: seen_by_readers(connection, view) for view in VIEWS_OF_RESULTS}

    migrating.migrate(engine)

    with engine.connect() as connection:
        again = {view: seen_by_readers(connection, view) for view in VIEWS_OF_RESULTS}
        claims = seen_by_readers(connection, "calibrated_results")
        judged = seen_by_readers(connection, "judgments")
    engine.dispose()
    assert without == again == {"document_results": 2, "results_by_day": 1, "stale_results": 0}
    assert (claims, judged) == (2, 0)


def seen_by_readers(connection: Connection, view: str) -> object:
    """Return how many rows of a view the role of readers sees."""
    connection.execute(text("SET LOCAL ROLE chordwise_reader"))
    count: object = connection.scalar(text(f"SELECT count(*) FROM {view}"))  # noqa: S608 - ours
    connection.rollback()
    return count
