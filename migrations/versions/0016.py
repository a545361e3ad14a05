"""Jobs count their open chunks."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0014"
branch_labels = None
depends_on = None
works_from = "0003"


def upgrade() -> None:
    """Apply."""
    op.add_column("jobs", sa.Column("open_chunks", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("jobs", "open_chunks")
