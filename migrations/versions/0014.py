"""The lists that lack rows, in chunks and results."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None
works_from = "0003"

TABLES_WITH_MISSING_ROWS = ("results", "result_history", "chunks")
VIEWS_OF_RESULTS = (
    "document_results@2",
    "results_by_day@1",
    "stale_results@1",
    "calibrated_results@1",
    "calibrated_facts@1",
)


def upgrade() -> None:
    """Apply."""
    _add_missing_rows()


def downgrade() -> None:
    """Take back; views that lose a column are made anew, and so are those that read them."""
    for view in reversed(VIEWS_OF_RESULTS):
        op.execute(f"DROP VIEW {view.partition('@')[0]}")
    for table in TABLES_WITH_MISSING_ROWS:
        op.drop_column(table, "missing_rows")
    for view in VIEWS_OF_RESULTS:
        _create(view)
        _grant(view.partition("@")[0])


def _add_missing_rows() -> None:
    for table in TABLES_WITH_MISSING_ROWS:
        op.add_column(table, sa.Column("missing_rows", JSONB(), nullable=True))
    _create("document_results@3")


def _create(view: str) -> None:
    folder = Path(__file__).resolve().parent.parent / "views"
    op.execute((folder / f"{view}.sql").read_text("utf-8"))


def _grant(view: str) -> None:
    op.execute(
        f"""
        DO $$
        BEGIN
            IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'chordwise_reader') THEN
                GRANT SELECT ON {view} TO chordwise_reader;
            END IF;
        END $$
        """
    )
