"""All tables together: for the migrations, and to check whether Chordwise can work with them."""

from __future__ import annotations

from itertools import groupby

from sqlalchemy import Connection, Engine, delete, inspect, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, configure_mappers, mapped_column

from chordwise.errors import ConfigurationError
from chordwise.storage import (  # noqa: F401 - each module defines tables
    answer_tables,
    api_tokens,
    audit_events,
    batches,
    budgets,
    cached_completions,
    calibrations,
    certifications,
    chunks,
    closed_profiles,
    deliveries,
    documents,
    entities,
    erasures,
    experiments,
    feedback,
    inbox_files,
    incidents,
    intakes,
    jobs,
    judgments,
    learned_examples,
    model_calls,
    outbox,
    prompt_versions,
    results,
    revisions,
    runs,
    schedules,
)
from chordwise.storage.database import driver, translate_errors
from chordwise.storage.record import CreatedAt, Record


class SchemaVersion(Record):
    """A revision; code written for `works_from` or a later revision works with its tables."""

    __tablename__ = "schema_versions"

    revision: Mapped[str] = mapped_column(primary_key=True)
    works_from: Mapped[str]
    applied_at: Mapped[CreatedAt]


metadata = Record.metadata


def record(connection: Connection, revision: str, oldest: str) -> None:
    """Record a revision that has just been applied."""
    row = insert(SchemaVersion).values(revision=revision, works_from=oldest)
    connection.execute(row.on_conflict_do_nothing())


def forget(connection: Connection, revision: str) -> None:
    """Delete a revision that was just reverted; the table itself may be gone."""
    if inspect(connection).has_table(SchemaVersion.__tablename__):
        connection.execute(delete(SchemaVersion).where(SchemaVersion.revision == revision))


def configure() -> None:
    """Resolve the references between the tables; fail at once if a table is missing."""
    configure_mappers()


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
