"""The ledger says how each cost is known, and sums of costs say what they leave out."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None
works_from = "0003"

COST_VIEWS = ("tier_statistics", "budget_accounts")


def upgrade() -> None:
    """Apply."""
    _add_costs()


def downgrade() -> None:
    """Take back."""
    _restore_cost_views()
    op.drop_column("model_calls", "cost_basis")


def _add_costs() -> None:
    """Add the column and the counts of the views; rows from before have no basis."""
    op.add_column("model_calls", sa.Column("cost_basis", sa.Text(), nullable=True))
    for view in COST_VIEWS:
        op.execute(_definition(f"{view}@2").replace("CREATE VIEW", "CREATE OR REPLACE VIEW"))
    op.execute(_definition("run_costs@1"))
    _let_read("run_costs")


def _restore_cost_views() -> None:
    op.execute("DROP VIEW run_costs")
    for view in COST_VIEWS:
        op.execute(f"DROP VIEW {view}")
        op.execute(_definition(f"{view}@1"))
        _let_read(view)


def _definition(view: str) -> str:
    folder = Path(__file__).resolve().parent.parent / "views"
    return (folder / f"{view}.sql").read_text("utf-8")


def _let_read(view: str) -> None:
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
