"""A database for each test; it is emptied and reused for a later test if possible."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress

import psycopg
from psycopg import sql

from chordwise.embedded.postgres import EmbeddedPostgres

# The catalogs that a test may change besides rows; rewritten entries have another `xmin`.
_SCHEMA = " UNION ALL ".join(
    f"SELECT '{catalog}', count(*)::text || ' ' || max(xmin::text::bigint) FROM {catalog}"  # noqa: S608 - constants
    for catalog in (
        "pg_attribute",
        "pg_attrdef",
        "pg_constraint",
        "pg_depend",
        "pg_index",
        "pg_namespace",
        "pg_proc",
        "pg_rewrite",
        "pg_trigger",
        "pg_type",
    )
)
_RELATIONS = """
SELECT 'pg_class', md5(string_agg(
    concat(relname, relkind, relacl, reloptions, relrowsecurity), ' ' ORDER BY oid))
FROM pg_class
UNION ALL
SELECT 'pg_statistic', count(*)::text FROM pg_statistic
UNION ALL
SELECT 'pg_database', concat(datconnlimit, datacl, s.setconfig)
FROM pg_database AS d LEFT JOIN pg_db_role_setting AS s ON s.setdatabase = d.oid
WHERE datname = current_database()
"""
_FILLED = """
SELECT relname, pg_relation_size(oid) FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND pg_relation_size(oid) > 0
ORDER BY relname
"""
# Deleting few rows is faster than truncating; foreign keys need no check.
_SMALL_BYTES = 65_536
_UNCHECKED = "SET session_replication_role = replica"
_DROP = sql.SQL("DROP DATABASE {} WITH (FORCE)")
_DISCONNECTION = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s"


def _renaming(name: str, other: str) -> sql.Composed:
    rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
    return rename.format(sql.Identifier(name), sql.Identifier(other))


class Databases:
    """Lends migrated, empty databases of a server; used by one thread at a time."""

    def __init__(self, postgres: EmbeddedPostgres, template: str) -> None:
        self._postgres = postgres
        self._template = template
        self._numbers = itertools.count(1)
        self._empty: list[str] = []
        self._filled_by: dict[Hashable, str] = {}
        with self._connected(template) as connection:
            self._filled = frozenset(self._filled_tables(connection))
            self._whole = self._state(connection)
        self._server = self._connected()

    def close(self) -> None:
        """Close the connection that creates and drops databases."""
        self._server.close()

    @contextmanager
    def lend(self) -> Iterator[str]:
        """Lend an empty database with a new name."""
        name = f"test_{next(self._numbers)}"
        self._server.execute(self._making(name))
        yield name
        self._server.execute(_DISCONNECTION, [name])
        spare = f"spare_{name}"
        with suppress(psycopg.errors.ObjectInUse):  # a process keeps reconnecting
            self._server.execute(_renaming(name, spare))
            name = spare
        if name == spare and self._is_emptied(name):
            self._empty.append(name)
            return
        self._server.execute(_DROP.format(sql.Identifier(name)))

    @contextmanager
    def lend_copy(self, key: Hashable, fill: Callable[[str], None]) -> Iterator[str]:
        """Lend a copy of the database for `key`, which is filled once."""
        if key not in self._filled_by:
            filled = f"filled_{next(self._numbers)}"
            self._server.execute(self._copying(filled, self._template))
            fill(filled)
            self._server.execute(_DISCONNECTION, [filled])
            self._filled_by[key] = filled
        name = f"test_{next(self._numbers)}"
        self._server.execute(self._copying(name, self._filled_by[key]))
        yield name
        self._server.execute(_DROP.format(sql.Identifier(name)))

    def _making(self, name: str) -> sql.Composed:
        """Return the statement that makes an empty database, by renaming or copying one."""
        if self._empty:
            return _renaming(self._empty.pop(), name)
        return self._copying(name, self._template)

    def _copying(self, name: str, template: str) -> sql.Composed:
        # Copying files takes half as long as logging each page.
        copy = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
        return copy.format(sql.Identifier(name), sql.Identifier(template))

    def _is_emptied(self, name: str) -> bool:
        """Delete all rows; return false if the test has changed more than rows."""
        try:
            with self._connected(name) as connection:
                if self._state(connection) != self._whole:
                    return False
                self._empty_tables(connection)
                connection.execute("SELECT pg_stat_reset()")
        except psycopg.Error:  # it is unreachable, or lacks a table
            return False
        return True

    def _state(self, connection: psycopg.Connection[tuple[object, ...]]) -> list[object]:
        """Return a state that differs if anything but the rows of emptied tables has changed."""
        state: list[object] = [*connection.execute(f"{_SCHEMA} UNION ALL {_RELATIONS}")]
        for name in sorted(self._filled):
            rows = sql.SQL("SELECT md5(string_agg(t::text, ' ' ORDER BY t::text)) FROM {} AS t")
            state += connection.execute(rows.format(sql.Identifier(name)))
        return state

    def _empty_tables(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        """Delete the rows of small tables, and truncate large ones."""
        statements: list[sql.Composable] = [sql.SQL(_UNCHECKED)]
        for name, size in self._filled_tables(connection).items():
            if name not in self._filled:
                emptying = "TRUNCATE {} CASCADE" if size > _SMALL_BYTES else "DELETE FROM {}"
                statements.append(sql.SQL(emptying).format(sql.Identifier(name)))
        connection.execute(sql.SQL("; ").join(statements))

    @staticmethod
    def _filled_tables(connection: psycopg.Connection[tuple[object, ...]]) -> dict[str, int]:
        """Return the size in bytes of each table that is not empty."""
        return {str(name): int(str(size)) for name, size in connection.execute(_FILLED)}

    def _connected(self, name: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        """Return a connection of the owner in autocommit mode."""
        return psycopg.connect(self._postgres.url(name), autocommit=True)
