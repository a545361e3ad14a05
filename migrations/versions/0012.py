"""The same question of several waits for one answer: who leads, and who follows."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None
works_from = "0003"


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "batch_requests",
        sa.Column("leads", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.create_index(
        "ux_batch_requests_leading",
        "batch_requests",
        ["key"],
        unique=True,
        postgresql_where=sa.text("leads AND finished_at IS NULL"),
    )
    op.create_index(
        "ix_batch_requests_following",
        "batch_requests",
        ["key"],
        postgresql_where=sa.text("status = 'following'"),
    )


def downgrade() -> None:
    """Take back."""
    op.execute("DELETE FROM batch_requests WHERE status = 'following'")
    op.drop_index("ix_batch_requests_following", table_name="batch_requests")
    op.drop_column("batch_requests", "leads")
