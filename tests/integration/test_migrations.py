"""Tests that migrations create the mapped tables, and that versions share a schema or refuse it."""

from __future__ import annotations

import threading
import tomllib
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import OperationalError

from chordwise.errors import ConfigurationError, ServiceUnavailableError
from chordwise.storage import database, migration, revisions
from chordwise.storage.database import driver
from chordwise.storage.metadata import metadata
from tests.fakes.later_migrations import LATER, NEWEST, newer_version, take_back
from tests.fakes.processes import wait_until


def test_migrated_tables_are_equal_to_the_mapped_tables(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comments are not compared: those of the database are defined in a file."""
    monkeypatch.setattr(engine.dialect, "supports_comments", False)
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)

    assert differences == []


_COMMENTS = text(
    """
    SELECT c.relname, a.attname,
        obj_description(c.oid, 'pg_class') AS of_relation,
        col_description(c.oid, a.attnum) AS of_column
    FROM pg_class AS c
    INNER JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v')
    """
)


def test_every_table_view_and_column_has_a_comment(engine: Engine) -> None:
    """Every comment in the file is that of a relation or column, and none repeats a default."""
    file = revisions.migrations_folder() / "comments.toml"
    comments = tomllib.loads(file.read_text("utf-8"))
    relations, defaults = comments.pop("relations"), comments.pop("columns")
    with engine.connect() as connection:
        rows = connection.execute(_COMMENTS).all()

    columns = {(row.relname, row.attname) for row in rows}
    special = {(relation, name) for relation, names in comments.items() for name in names}
    repeated = [at for at in special if comments[at[0]][at[1]] == defaults.get(at[1])]
    assert [tuple(row) for row in rows if not (row.of_relation and row.of_column)] == []
    assert set(relations) == {row.relname for row in rows}
    assert special - columns == set()
    assert set(defaults) == {name for _, name in columns - special}
    assert repeated == []


def test_migrating_again_restores_only_comments(engine: Engine) -> None:
    with engine.begin() as connection:
        comments = connection.execute(_COMMENTS).all()
        connection.execute(text("COMMENT ON TABLE jobs IS NULL"))
        connection.execute(text("COMMENT ON COLUMN run_costs.cost_usd IS 'as in an older version'"))

    before, after = migration.migrate(engine)

    with engine.connect() as connection:
        restored = connection.execute(_COMMENTS).all()
    assert before == after == revisions.newest_revision()
    assert sorted(map(tuple, restored)) == sorted(map(tuple, comments))


def test_every_migration_can_be_reverted(engine: Engine) -> None:
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
    assert left == {"alembic_version"}
    assert tables == {*metadata.tables, "alembic_version"}


@pytest.mark.parametrize(("works_from", "suits"), [(NEWEST, True), (LATER, False)])
def test_an_old_version_works_on_a_newer_schema_that_permits_it(
    tmp_path: Path, engine: Engine, works_from: str, *, suits: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        newer_version(tmp_path, patch, works_from)
        migration.migrate(engine)

    if suits:
        database.require_compatible(engine)
        assert migration.migrate(engine) == (LATER, LATER)
    else:
        with pytest.raises(ConfigurationError, match="does not know") as caught:
            database.require_compatible(engine)
        assert LATER in caught.value.hint
        with pytest.raises(ConfigurationError, match="does not know"):
            migration.migrate(engine)


def test_a_newer_schema_without_a_note_is_refused(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(ConfigurationError, match="9999"):
        database.require_compatible(engine)


@pytest.mark.parametrize(
    ("revision", "noted"),
    [
        ("0001", "DROP TABLE schema_versions"),
        ("0017", "UPDATE schema_versions SET revision = '0017' WHERE revision = '0001'"),
    ],
)
def test_an_unreleased_schema_is_refused(engine: Engine, revision: str, noted: str) -> None:
    """Its migrations no longer exist: the schema has to be created from scratch."""
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE alembic_version SET version_num = '{revision}'"))  # noqa: S608
        connection.execute(text(noted))

    for refuse in (database.require_compatible, migration.migrate):
        with pytest.raises(ConfigurationError, match=f"{revision}.*unreleased") as caught:
            refuse(engine)
        assert "from scratch" in caught.value.hint


def test_a_new_version_on_an_older_schema_requires_a_migration(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its code may use tables or columns that do not exist yet."""
    newer_version(tmp_path, monkeypatch, NEWEST)

    with pytest.raises(ConfigurationError, match=f"needs {LATER}") as caught:
        database.require_compatible(engine)

    assert "chordwise migrate" in caught.value.hint


def test_a_reverted_revision_is_removed_from_the_list(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer_version(tmp_path, monkeypatch, NEWEST)
    migration.migrate(engine)
    query = text("SELECT string_agg(revision, ' ' ORDER BY revision) FROM schema_versions")

    with engine.connect() as connection:
        after_up = str(connection.scalar(query)).split()
    take_back(engine, NEWEST)
    with engine.connect() as connection:
        after_down = str(connection.scalar(query)).split()

    assert [*after_down, LATER] == after_up
    assert after_down[-1] == NEWEST


def test_a_migration_never_blocks_work_for_long(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer_version(tmp_path, monkeypatch, NEWEST)
    blocker = engine.connect()
    blocker.execute(text("SELECT count(*) FROM jobs"))
    thread = threading.Thread(target=migration.migrate, args=[engine])
    thread.start()
    query = text("SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")

    def waits() -> bool:
        with engine.connect() as connection:
            return connection.scalar(query) is True

    wait_until(waits, 10, "the migration waits for the table")
    with engine.connect() as reader:
        reader.execute(text("SET statement_timeout = '2500ms'"))
        reader.execute(text("SELECT count(*) FROM jobs"))  # queues behind the migration's lock
    blocker.close()
    thread.join(timeout=30)

    columns = {column["name"] for column in inspect(engine).get_columns("jobs")}
    assert "priority" in columns


def test_a_migration_gives_up_after_several_attempts(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer_version(tmp_path, monkeypatch, NEWEST)
    monkeypatch.setattr(migration, "_ATTEMPTS", 2)
    monkeypatch.setattr(migration, "_LOCK_MILLISECONDS", 50)
    with engine.connect() as blocker:
        blocker.execute(text("SELECT count(*) FROM jobs"))

        with pytest.raises(ServiceUnavailableError, match="2 attempts") as caught:
            migration.migrate(engine)

    with engine.connect() as connection:
        revision = revisions.current(driver(connection))
        bounds = connection.scalar(text("SELECT current_setting('lock_timeout')"))
        locks = connection.scalar(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"))
    assert isinstance(caught.value.__cause__, OperationalError)
    assert (revision, bounds, locks) == (NEWEST, "30s", 0)
