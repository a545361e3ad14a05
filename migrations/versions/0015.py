"""Jobs count their open chunks, what is looked up has an index, and frequent updates change none.

A column that an index names, in its key or its condition, makes every update of that column write
all indexes of the table anew. So `last_progress_at`, `lease_until` and `started_at`, which change
with every chunk, are in none any more; a BRIN index does not count.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None
works_from = "0003"

_UNFINISHED = "status IN ('queued', 'running', 'waiting', 'synthesizing', 'paused')"
_RETRYABLE = "status IN ('paused', 'partial', 'failed', 'quarantined', 'cancelled')"
_FOLLOWING = "reused_from IS NOT NULL AND status IN ('queued', 'paused')"
_OPEN = "status IN ('pending', 'running', 'waiting')"
_BRIN = {
    "postgresql_using": "brin",
    "postgresql_with": {"autosummarize": True, "pages_per_range": 16},
}
# A ledger row is updated once or twice, and each page keeps room for that.
_FILLFACTORS = {"model_calls": 50, "jobs": 80}


def upgrade() -> None:
    """Apply."""
    op.add_column("jobs", sa.Column("open_chunks", sa.Integer(), nullable=True))
    _index_jobs()
    _index_chunks()
    _index_outbox()
    _leave_room()


def downgrade() -> None:
    """Take back."""
    for table in _FILLFACTORS:
        op.execute(f"ALTER TABLE {table} RESET (fillfactor)")
    op.drop_index("ix_outbox_promised", table_name="outbox")
    _restore_indexes_of_chunks()
    _restore_indexes_of_jobs()
    op.drop_column("jobs", "open_chunks")


# Jobs


def _index_jobs() -> None:
    op.create_index("ix_jobs_run_id_status", "jobs", ["run_id", "status"])
    op.create_index(
        "ix_jobs_unfinished_created_at",
        "jobs",
        ["status", "created_at", "id"],
        postgresql_where=sa.text(_UNFINISHED),
    )
    op.create_index(
        "ix_jobs_retryable", "jobs", ["run_id", "id"], postgresql_where=sa.text(_RETRYABLE)
    )
    op.create_index("ix_jobs_following", "jobs", ["id"], postgresql_where=sa.text(_FOLLOWING))
    for name in ("ix_jobs_run_id", "ix_jobs_unfinished", "ix_jobs_started_at"):
        op.drop_index(name, table_name="jobs")
    op.create_index("ix_jobs_started_at", "jobs", ["started_at"], **_BRIN)


def _restore_indexes_of_jobs() -> None:
    for name in ("run_id_status", "unfinished_created_at", "retryable", "following", "started_at"):
        op.drop_index(f"ix_jobs_{name}", table_name="jobs")
    op.create_index("ix_jobs_started_at", "jobs", ["started_at"])
    op.create_index("ix_jobs_run_id", "jobs", ["run_id"])
    op.create_index(
        "ix_jobs_unfinished",
        "jobs",
        ["status", "last_progress_at"],
        postgresql_where=sa.text(_UNFINISHED),
    )


# Chunks


def _index_chunks() -> None:
    for name in ("ix_chunks_open", "ix_chunks_started_at"):
        op.drop_index(name, table_name="chunks")
    op.create_index(
        "ix_chunks_open_sent_at", "chunks", ["status", "sent_at"], postgresql_where=sa.text(_OPEN)
    )
    op.create_index(
        "ix_chunks_waiting", "chunks", ["due_at"], postgresql_where=sa.text("status = 'waiting'")
    )
    op.create_index(
        "ix_chunks_claimed_before",
        "chunks",
        ["id"],
        postgresql_where=sa.text("status = 'pending' AND attempts > 0"),
    )
    op.create_index("ix_chunks_started_at", "chunks", ["started_at"], **_BRIN)


def _restore_indexes_of_chunks() -> None:
    for name in ("open_sent_at", "waiting", "claimed_before", "started_at"):
        op.drop_index(f"ix_chunks_{name}", table_name="chunks")
    op.create_index("ix_chunks_started_at", "chunks", ["started_at"])
    op.create_index(
        "ix_chunks_open", "chunks", ["status", "lease_until"], postgresql_where=sa.text(_OPEN)
    )


# Messages


def _index_outbox() -> None:
    op.create_index(
        "ix_outbox_promised",
        "outbox",
        [sa.text("(arguments ->> -1)")],
        postgresql_where=sa.text("sent_at IS NULL"),
    )


# Pages


def _leave_room() -> None:
    for table, percent in _FILLFACTORS.items():
        op.execute(f"ALTER TABLE {table} SET (fillfactor = {percent})")
