"""A message may be promised for later: a synthesis that the body of a chord is to begin."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None
works_from = "0003"


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "outbox",
        sa.Column(
            "due_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
        ),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_column("outbox", "due_at")
