"""How many processes began to read a file of an inbox."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None
works_from = "0003"


def upgrade() -> None:
    """Apply."""
    _count_attempts_at_inbox_files()


def downgrade() -> None:
    """Take back."""
    op.drop_column("inbox_files", "attempts")


def _count_attempts_at_inbox_files() -> None:
    op.add_column(
        "inbox_files",
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
    )
