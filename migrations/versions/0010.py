"""Votes and critique: the sample of a call, the agreement of samples, and what was objected to."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None
works_from = "0003"

RESULT_TABLES = ("results", "result_history")
JUDGED_TABLES = (*RESULT_TABLES, "chunks")
VIEW = "document_results@2"
VIEWS_BEFORE = ("document_results@1", "results_by_day@1", "stale_results@1")
READABLE_VIEWS = ("document_results", "results_by_day", "stale_results")


def upgrade() -> None:
    """Apply."""
    for table in JUDGED_TABLES:
        op.add_column(table, sa.Column("agreement", sa.Double(), nullable=True))
    for table in RESULT_TABLES:
        op.add_column(table, sa.Column("critique", JSONB(), nullable=True))
    op.add_column(
        "model_calls", sa.Column("sample", sa.Integer(), server_default="1", nullable=False)
    )
    _create(VIEW)


def downgrade() -> None:
    """Take back; a view that has lost a column is made anew, and so are those that read it."""
    for view in reversed(READABLE_VIEWS):
        op.execute(f"DROP VIEW {view}")
    for table in JUDGED_TABLES:
        op.drop_column(table, "agreement")
    for table in RESULT_TABLES:
        op.drop_column(table, "critique")
    op.drop_column("model_calls", "sample")
    for view in VIEWS_BEFORE:
        _create(view)
    _reader()


def _create(view: str) -> None:
    folder = Path(__file__).resolve().parent.parent / "views"
    op.execute((folder / f"{view}.sql").read_text("utf-8"))


def _reader() -> None:
    readable = ", ".join(READABLE_VIEWS)
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
