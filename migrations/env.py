"""Alembic's entry point: migrate over the given connection, or over the one in the settings."""

from alembic import context

from chordwise.settings import load
from chordwise.storage import metadata
from chordwise.storage.database import open_engine


def run() -> None:
    """Run each migration in its own transaction."""
    connection = context.config.attributes.get("connection")
    if connection is not None:
        _migrate(connection)
        return
    url = load().database_url
    if url is None:
        raise SystemExit("Set CHORDWISE_DATABASE_URL.")
    with open_engine(url).connect() as opened:
        _migrate(opened)
        opened.commit()


def _migrate(connection) -> None:  # noqa: ANN001 - Alembic's own type is not public
    context.configure(
        connection=connection,
        target_metadata=metadata.metadata,
        transaction_per_migration=True,
        on_version_apply=_note,
    )
    with context.begin_transaction():
        context.run_migrations()


def _note(*, ctx, step, **_) -> None:  # noqa: ANN001, ANN003 - Alembic's own types are not public
    """Record the code that a revision works with, in the same transaction (decision 0011)."""
    script = step.up_revision
    if step.is_upgrade:
        metadata.record(ctx.connection, script.revision, script.module.works_from)
    else:
        metadata.forget(ctx.connection, script.revision)


run()
