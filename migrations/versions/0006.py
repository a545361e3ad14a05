"""Schedules and what became of each of their due times."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None
works_from = "0003"

UNFINISHED = "status IN ('due', 'running', 'waiting')"
READABLE_TABLES = ("schedules", "schedule_runs")


def upgrade() -> None:
    """Apply."""
    _schedules()
    _schedule_runs()
    _references()
    _reader()


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_result_history_document_id", "result_history")
    op.drop_index("ix_jobs_reused_from", "jobs")
    op.drop_column("runs", "schedule_run_id")
    op.drop_table("schedule_runs")
    op.drop_table("schedules")


def _time(name: str, *, nullable: bool = True) -> sa.Column:
    default = None if nullable else sa.text("now()")
    return sa.Column(name, sa.DateTime(timezone=True), server_default=default, nullable=nullable)


def _schedules() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("cron", sa.Text(), nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("options", JSONB(), nullable=False),
        _time("next_due_at"),
        _time("created_at", nullable=False),
        _time("changed_at", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_schedules"),
        sa.UniqueConstraint("name", name="uq_schedules_name"),
    )


def _schedule_runs() -> None:
    op.create_table(
        "schedule_runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("schedule_id", sa.Uuid(), nullable=False),
        sa.Column("schedule", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("trigger", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("outcome", JSONB(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("hint", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_token", sa.Uuid(), nullable=True),
        _time("lease_until"),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        _time("created_at", nullable=False),
        _time("started_at"),
        _time("finished_at"),
        sa.PrimaryKeyConstraint("id", name="pk_schedule_runs"),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["schedules.id"], name="fk_schedule_runs_schedule_id"
        ),
        sa.UniqueConstraint("schedule_id", "due_at", name="uq_schedule_runs_schedule_id_due_at"),
    )
    op.create_index(
        "ix_schedule_runs_unfinished",
        "schedule_runs",
        ["schedule_id"],
        unique=True,
        postgresql_where=sa.text(UNFINISHED),
    )


def _references() -> None:
    """Let runs name what started them, and let what is pruned be found without reading tables."""
    op.add_column("runs", sa.Column("schedule_run_id", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        "fk_runs_schedule_run_id", "runs", "schedule_runs", ["schedule_run_id"], ["id"]
    )
    op.create_index("ix_runs_schedule_run_id", "runs", ["schedule_run_id"])
    op.create_index(
        "ix_jobs_reused_from",
        "jobs",
        ["reused_from"],
        postgresql_where=sa.text("reused_from IS NOT NULL"),
    )
    op.create_index("ix_result_history_document_id", "result_history", ["document_id"])


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
