"""The files of the inbox, and the intakes that came of them."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None
works_from = "0003"

TABLES = ("inbox_intakes", "inbox_files")


def upgrade() -> None:
    """Apply."""
    _inbox_files()
    _inbox_intakes()
    _reader()


def downgrade() -> None:
    """Take back."""
    for table in TABLES:
        op.drop_table(table)


def _inbox_files() -> None:
    op.create_table(
        "inbox_files",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("raw_name", sa.LargeBinary(), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("byte_count", sa.BigInteger(), nullable=True),
        sa.Column("stored_path", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("hint", sa.Text(), nullable=True),
        sa.Column("delivered_path", sa.Text(), nullable=True),
        sa.Column("raw_destination", sa.LargeBinary(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_inbox_files"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_inbox_files_run_id"),
    )
    op.create_index("ix_inbox_files_run_id", "inbox_files", ["run_id"])
    op.create_index(
        "ix_inbox_files_undelivered",
        "inbox_files",
        ["store_id", "status"],
        postgresql_where=sa.text("status IN ('taking', 'taken', 'submitted', 'delivering')"),
    )


def _inbox_intakes() -> None:
    op.create_table(
        "inbox_intakes",
        sa.Column("intake_id", sa.Uuid(), nullable=False),
        sa.Column("inbox_file_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("intake_id", name="pk_inbox_intakes"),
        sa.ForeignKeyConstraint(["intake_id"], ["intakes.id"], name="fk_inbox_intakes_intake_id"),
        sa.ForeignKeyConstraint(
            ["inbox_file_id"], ["inbox_files.id"], name="fk_inbox_intakes_inbox_file_id"
        ),
    )
    op.create_index("ix_inbox_intakes_inbox_file_id", "inbox_intakes", ["inbox_file_id"])


def _reader() -> None:
    op.execute(
        f"""
        DO $$
        BEGIN
            IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'chordwise_reader') THEN
                GRANT SELECT ON {", ".join(TABLES)} TO chordwise_reader;
            END IF;
        END $$
        """
    )
