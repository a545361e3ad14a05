"""What a run found is stored before it is read, and one process at a time takes it in."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None
works_from = "0003"


def upgrade() -> None:
    """Apply."""
    _add_intake_leases()
    _add_listed_files()
    _replace("run_accounts@3")
    _replace("failures@2")


def downgrade() -> None:
    """Take back; what is listed and not taken in is forgotten."""
    _replace("failures@1")
    op.execute("DROP VIEW run_accounts")
    _replace("run_accounts@2")
    _grant("run_accounts")
    op.drop_table("listed_files")
    op.execute("DELETE FROM intakes WHERE outcome = 'not_taken'")
    op.drop_column("runs", "intake_until")
    op.drop_column("runs", "intake_token")


def _add_intake_leases() -> None:
    op.add_column("runs", sa.Column("intake_token", sa.Uuid(), nullable=True))
    op.add_column("runs", sa.Column("intake_until", sa.DateTime(timezone=True), nullable=True))


def _add_listed_files() -> None:
    op.create_table(
        "listed_files",
        sa.Column("intake_id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("raw_path", sa.LargeBinary(), nullable=True),
        sa.Column("follow_symlinks", sa.Boolean(), nullable=False),
        sa.Column("byte_count", sa.BigInteger(), nullable=True),
        sa.Column("modified_ns", sa.BigInteger(), nullable=True),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("documents_taken", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("intake_id", name="pk_listed_files"),
        sa.ForeignKeyConstraint(["intake_id"], ["intakes.id"], name="fk_listed_files_intake_id"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_listed_files_run_id"),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_listed_files_job_id", ondelete="SET NULL"
        ),
    )
    op.create_index(
        "ix_listed_files_run_id_position", "listed_files", ["run_id", "position"], unique=True
    )
    op.create_index("ix_listed_files_job_id", "listed_files", ["job_id"])


def _replace(view: str) -> None:
    folder = Path(__file__).resolve().parent.parent / "views"
    definition = (folder / f"{view}.sql").read_text("utf-8")
    op.execute(definition.replace("CREATE VIEW", "CREATE OR REPLACE VIEW"))


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
