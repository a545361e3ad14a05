"""The check whether Chordwise can work with a database, made once at the start of a process."""

from __future__ import annotations

from itertools import groupby

from sqlalchemy import Connection, Engine, text

from chordwise.errors import ConfigurationError
from chordwise.storage import revisions
from chordwise.storage.database import driver, translate_errors
from chordwise.storage.metadata import metadata

_SETTING = "database_url (CHORDWISE_DATABASE_URL)"
_MAX_NAMED = 3
_WRITABLE = text(
    "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')::boolean"
)
_MISSING = text(
    """
    SELECT c.relname, p.privilege
    FROM unnest(CAST(:tables AS text[])) AS t (name)
    JOIN pg_class AS c ON c.oid = to_regclass(quote_ident(t.name))
    CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p (privilege)
    WHERE NOT has_table_privilege(c.oid, p.privilege)
        AND (p.privilege = 'SELECT' OR t.name <> ALL (CAST(:only_read AS text[])))
    ORDER BY c.relname, p.privilege
    """
)
_ONLY_READ = ["alembic_version", "schema_versions"]


def require_ready(engine: Engine) -> None:
    """Reject a database that is read-only, or whose tables the role may not use.

    Raises:
        ConfigurationError: It is read-only, a privilege is missing, or the schema is incompatible.
    """
    with translate_errors(), engine.connect() as connection:
        _require_writable(connection)
        _require_rights(connection)
        revisions.require_suitable(driver(connection))


def _require_writable(connection: Connection) -> None:
    is_replica, is_read_only = connection.execute(_WRITABLE).one()
    if is_replica:
        raise ConfigurationError(
            "This PostgreSQL server is a read-only replica.",
            f"Set {_SETTING} to the primary server.",
        )
    if is_read_only:
        raise ConfigurationError(
            "This database or role is read-only (default_transaction_read_only is on).",
            f"Turn that off for the role in {_SETTING}, or set another one.",
        )


def _require_rights(connection: Connection) -> None:
    if not connection.scalar(text("SELECT has_schema_privilege('public', 'USAGE')")):
        raise _missing_right(connection, "use the schema public")
    names = sorted({*_ONLY_READ, *metadata.tables})
    rows = connection.execute(_MISSING, {"tables": names, "only_read": _ONLY_READ}).all()
    missing = [
        f"{', '.join(row.privilege for row in rights)} on {table}"
        for table, rights in groupby(rows, key=lambda row: str(row.relname))
    ]
    if missing:
        more = len(missing) - _MAX_NAMED
        listing = "; ".join(missing[:_MAX_NAMED]) + (f"; and on {more} more" if more > 0 else "")
        raise _missing_right(connection, listing)


def _missing_right(connection: Connection, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"The database's role “{connection.scalar(text('SELECT current_user'))}” may not {what}.",
        f"Set another role in {_SETTING}, or let an administrator "
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO it.",
    )
