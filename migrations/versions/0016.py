"""Messages of the outbox wake the schedulers and may be due later; due jobs have an index."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None
works_from = "0003"


def upgrade() -> None:
    """Apply."""
    op.execute(
        """
        CREATE FUNCTION tell_of_outbox() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NOTIFY chordwise_outbox; RETURN NULL; END $$
        """
    )
    op.execute("REVOKE EXECUTE ON FUNCTION tell_of_outbox() FROM PUBLIC")
    op.execute(
        "CREATE TRIGGER tell_of_outbox AFTER INSERT ON outbox "
        "FOR EACH STATEMENT EXECUTE FUNCTION tell_of_outbox()"
    )
    op.add_column(
        "outbox",
        sa.Column(
            "due_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
        ),
    )
    is_waiting = sa.text("status = 'waiting'")
    op.create_index("ix_jobs_waiting", "jobs", ["due_at"], postgresql_where=is_waiting)


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_jobs_waiting", table_name="jobs")
    op.drop_column("outbox", "due_at")
    op.execute("DROP TRIGGER tell_of_outbox ON outbox")
    op.execute("DROP FUNCTION tell_of_outbox()")
