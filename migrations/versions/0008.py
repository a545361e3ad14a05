"""The batch lane: batches, the questions that wait for them, and until when."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
works_from = "0003"

TABLES = ("batch_requests", "batches")
READABLE_TABLES = ("batches", "batch_requests")


def upgrade() -> None:
    """Apply."""
    _batches()
    _batch_requests()
    op.add_column("runs", sa.Column("lane", sa.Text(), server_default="online", nullable=False))
    op.add_column("jobs", sa.Column("batch_until", sa.DateTime(timezone=True), nullable=True))
    _reader()


def downgrade() -> None:
    """Take back."""
    op.drop_column("jobs", "batch_until")
    op.drop_column("runs", "lane")
    for table in TABLES:
        op.drop_table(table)


def _now(name: str) -> sa.Column[object]:
    return sa.Column(
        name,
        sa.DateTime(timezone=True),
        server_default=sa.text("clock_timestamp()"),
        nullable=False,
    )


def _batches() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("upload_id", sa.Text(), nullable=True),
        sa.Column("provider_id", sa.Text(), nullable=True),
        sa.Column("provider_status", sa.Text(), nullable=True),
        sa.Column("request_count", sa.Integer(), nullable=False),
        sa.Column("counts", JSONB(), nullable=True),
        sa.Column("polls", sa.Integer(), server_default="0", nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        _now("created_at"),
        sa.Column("attempted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=True),
        _now("poll_at"),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
    )
    op.create_index(
        "ix_batches_open",
        "batches",
        ["poll_at"],
        postgresql_where=sa.text("status IN ('preparing', 'running')"),
    )


def _batch_requests() -> None:
    op.create_table(
        "batch_requests",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("chunk_id", sa.Uuid(), nullable=True),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("body_bytes", sa.BigInteger(), nullable=False),
        sa.Column("call", JSONB(), nullable=False),
        sa.Column("is_compared", sa.Boolean(), nullable=False),
        sa.Column("reservation_id", sa.Uuid(), nullable=True),
        sa.Column("batch_id", sa.Uuid(), nullable=True),
        sa.Column("call_id", sa.Uuid(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("answer", JSONB(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("hint", sa.Text(), nullable=True),
        _now("created_at"),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_batch_requests"),
        sa.UniqueConstraint("owner_id", "key", name="uq_batch_requests_owner_id_key"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_batch_requests_job_id"),
        sa.ForeignKeyConstraint(["chunk_id"], ["chunks.id"], name="fk_batch_requests_chunk_id"),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_batch_requests_batch_id"),
        sa.ForeignKeyConstraint(["call_id"], ["model_calls.id"], name="fk_batch_requests_call_id"),
    )
    op.create_index("ix_batch_requests_job_id", "batch_requests", ["job_id"])
    op.create_index("ix_batch_requests_batch_id", "batch_requests", ["batch_id"])
    op.create_index(
        "ix_batch_requests_pending",
        "batch_requests",
        ["model_name", "created_at"],
        postgresql_where=sa.text("status = 'pending'"),
    )


def _reader() -> None:
    readable = ", ".join(READABLE_TABLES)
    op.execute(
        f"""
        DO $$
        BEGIN
            IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'chordwise_reader') THEN
                GRANT SELECT ON {readable} TO chordwise_reader;
            END IF;
        END $$
        """
    )
