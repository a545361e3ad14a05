"""The uncalibrated confidence of the built-in model is no reason for a review."""

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None
works_from = "0001"

_VIEWS = Path(__file__).resolve().parent.parent / "views"


def upgrade() -> None:
    """Replace the view; readers keep their access."""
    _replace("review_queue@2")


def downgrade() -> None:
    """Restore the view."""
    _replace("review_queue@1")


def _replace(view: str) -> None:
    statement = (_VIEWS / f"{view}.sql").read_text("utf-8")
    op.execute(statement.replace("CREATE VIEW", "CREATE OR REPLACE VIEW"))
