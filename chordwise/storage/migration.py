"""Migration of the database to the schema that this version needs."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import tenacity
from alembic import command
from alembic.config import Config
from alembic.util import load_python_file
from psycopg import sql
from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from chordwise.errors import ServiceUnavailableError
from chordwise.storage import revisions
from chordwise.storage.database import driver, without_statement_timeout

_LOCK = 4_271_001  # an arbitrary number that must never change
_ALONE_SECONDS = 60
_LOCK_MILLISECONDS = 1_000
_ATTEMPTS = 20


def configuration() -> Config:
    """Return the configuration of Alembic, without a file."""
    config = Config()
    config.set_main_option("script_location", str(revisions.migrations_folder()))
    return config


def readable_names() -> list[str]:
    """Return the tables and views that the reader role may read after the migration."""
    folder = revisions.migrations_folder() / "versions"
    first = load_python_file(str(folder), f"{revisions.first_revision()}.py")
    views = [view.partition("@")[0] for view in first.VIEWS]
    return [*first.READABLE_TABLES, *views]


def migrate(engine: Engine) -> tuple[str | None, str]:
    """Upgrade the database to the newest revision; return the revisions before and after.

    A database that a newer version has migrated is not changed.

    Raises:
        ConfigurationError: A newer version has migrated the database in an incompatible way, or an
            unreleased version has created it.
        ServiceUnavailableError: Another session holds the lock of a table for too long.
    """
    with engine.connect() as connection, _exclusive(connection):
        raw = driver(connection)
        before = revisions.current(raw)
        revisions.require_released(raw, before)
        if before is not None and before not in revisions.known():
            revisions.require_suitable(raw)
            return before, before
        try:
            _upgrade(connection)
        except OperationalError as error:
            if not _is_lock_timeout(error):
                raise
            raise ServiceUnavailableError(
                f"The migration did not get a lock on a table in {_ATTEMPTS} attempts.",
                "pg_stat_activity shows the long transaction that holds it; "
                "run `chordwise migrate` again.",
            ) from error
    return before, revisions.newest_revision()


@contextmanager
def _exclusive(connection: Connection) -> Iterator[None]:
    with without_statement_timeout(connection):
        connection.execute(text(f"SET lock_timeout = '{_ALONE_SECONDS}s'"))
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
        connection.execute(text(f"SET lock_timeout = '{_LOCK_MILLISECONDS}ms'"))
        connection.commit()
        try:
            yield
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
            connection.execute(text("RESET lock_timeout"))
            connection.commit()


def _upgrade(connection: Connection) -> None:
    """Apply the missing revisions, each in a separate transaction.

    All statements queue behind one that waits for a lock, so each attempt waits only briefly.
    """
    config = configuration()
    config.attributes["connection"] = connection
    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_lock_timeout),
        wait=tenacity.wait_random(0.5, 1.5),
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        reraise=True,
    )
    for attempt in attempts:
        with attempt:
            connection.rollback()
            command.upgrade(config, "head")
            _comment(connection)
            connection.commit()


_COMMENTED = text(
    """
    SELECT c.relname, c.relkind, a.attname, d.description
    FROM pg_class AS c
    CROSS JOIN LATERAL (
        SELECT 0 AS attnum, NULL AS attname
        UNION ALL
        SELECT attnum, attname
        FROM pg_attribute
        WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
    ) AS a
    LEFT JOIN pg_description AS d
        ON d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY(:relations)
    """
)
_KINDS = {"r": sql.SQL("TABLE"), "v": sql.SQL("VIEW")}


def _comment(connection: Connection) -> None:
    """Apply the comments of `comments.toml` that the tables, views and columns do not have yet."""
    content = (revisions.migrations_folder() / "comments.toml").read_text("utf-8")
    comments: Mapping[str, Mapping[str, str]] = tomllib.loads(content)
    relations, columns = comments["relations"], comments["columns"]
    statements = []
    rows = connection.execute(_COMMENTED, {"relations": list(relations)})
    for relation, kind, column, present in rows:
        comment = relations.get(relation)
        what, place = _KINDS[kind], sql.Identifier("public", relation)
        if column is not None:
            comment = comments.get(relation, {}).get(column) or columns.get(column)
            what, place = sql.SQL("COLUMN"), sql.Identifier("public", relation, column)
        if comment not in {None, present}:
            statements.append(sql.SQL("COMMENT ON {} {} IS {}").format(what, place, comment))
    if statements:
        whole = sql.SQL("; ").join(statements).as_string(None)
        connection.exec_driver_sql(whole, execution_options={"no_parameters": True})


def _is_lock_timeout(error: BaseException) -> bool:
    return isinstance(error, OperationalError) and isinstance(error.orig, LockNotAvailable)
