"""What began lately is found by an index, and only answered jobs count as reused."""

from pathlib import Path

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None
works_from = "0003"

TABLES = ("chunks", "jobs")


def upgrade() -> None:
    """Apply."""
    for table in TABLES:
        op.create_index(f"ix_{table}_started_at", table, ["started_at"])
    _replace("run_accounts@2")


def downgrade() -> None:
    """Take back; the columns are the same, so the view needs no dropping."""
    _replace("run_accounts@1")
    for table in TABLES:
        op.drop_index(f"ix_{table}_started_at", table_name=table)


def _replace(view: str) -> None:
    folder = Path(__file__).resolve().parent.parent / "views"
    definition = (folder / f"{view}.sql").read_text("utf-8")
    op.execute(definition.replace("CREATE VIEW", "CREATE OR REPLACE VIEW"))
