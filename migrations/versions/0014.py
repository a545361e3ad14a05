"""Results tell why a document should be looked at: what was invisible in it."""

from pathlib import Path

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None
works_from = "0003"

VIEW = "document_results@3"
VIEWS_BEFORE = (
    "document_results@2",
    "results_by_day@1",
    "stale_results@1",
    "calibrated_results@1",
    "calibrated_facts@1",
)


def upgrade() -> None:
    """Apply."""
    _tell_review_reasons()


def downgrade() -> None:
    """Take back."""
    _tell_no_review_reasons()


def _tell_review_reasons() -> None:
    _create(VIEW)


def _tell_no_review_reasons() -> None:
    """Make a view that has lost a column anew, with those that read it."""
    names = [view.partition("@")[0] for view in VIEWS_BEFORE]
    for name in reversed(names):
        op.execute(f"DROP VIEW {name}")
    for view in VIEWS_BEFORE:
        _create(view)
    op.execute(
        f"""
        DO $$
        BEGIN
            IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'chordwise_reader') THEN
                GRANT SELECT ON {", ".join(names)} TO chordwise_reader;
            END IF;
        END $$
        """
    )


def _create(view: str) -> None:
    folder = Path(__file__).resolve().parent.parent / "views"
    op.execute((folder / f"{view}.sql").read_text("utf-8"))
