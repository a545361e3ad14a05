"""Money and models: budgets and what is reserved of them, cached completions, tiers."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None
works_from = "0003"

TABLES = ("cached_completions", "budget_reservations", "budgets")
VIEWS = ("tier_statistics@1", "budget_accounts@1")
READABLE_TABLES = ("budgets", "budget_reservations")


def upgrade() -> None:
    """Apply."""
    _budgets()
    _cached_completions()
    _columns()
    _views()
    _reader()


def downgrade() -> None:
    """Take back."""
    for view in reversed(VIEWS):
        op.execute(f"DROP VIEW {view.partition('@')[0]}")
    for column in ("tier", "escalated", "service_tier", "reference_cost_usd", "cache_write_tokens"):
        op.drop_column("model_calls", column)
    op.drop_column("runs", "priority")
    op.drop_column("runs", "use_cache")
    for table in TABLES:
        op.drop_table(table)


def _budgets() -> None:
    op.create_table(
        "budgets",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("cap_usd", sa.Numeric(14, 8), nullable=True),
        sa.Column("spent_usd", sa.Numeric(14, 8), server_default="0", nullable=False),
        sa.Column("reserved_usd", sa.Numeric(14, 8), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("scope", name="pk_budgets"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_budgets_run_id"),
    )
    op.create_table(
        "budget_reservations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("amount_usd", sa.Numeric(14, 8), nullable=False),
        sa.Column(
            "reserved_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("settled_usd", sa.Numeric(14, 8), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_budget_reservations"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_budget_reservations_run_id"),
    )
    op.create_index("ix_budget_reservations_run_id", "budget_reservations", ["run_id"])
    op.create_index(
        "ix_budget_reservations_open",
        "budget_reservations",
        ["expires_at"],
        postgresql_where=sa.text("settled_at IS NULL"),
    )


def _cached_completions() -> None:
    op.create_table(
        "cached_completions",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("prompt_version", sa.Text(), nullable=False),
        sa.Column("completion", JSONB(), nullable=True),
        sa.Column("claim_token", sa.Uuid(), nullable=True),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("uses", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_cached_completions"),
    )
    op.create_index("ix_cached_completions_created_at", "cached_completions", ["created_at"])


def _columns() -> None:
    op.add_column("model_calls", sa.Column("tier", sa.Text(), nullable=True))
    op.add_column("model_calls", sa.Column("escalated", sa.Boolean(), nullable=True))
    op.add_column("model_calls", sa.Column("service_tier", sa.Text(), nullable=True))
    op.add_column("model_calls", sa.Column("reference_cost_usd", sa.Numeric(14, 8), nullable=True))
    op.add_column("model_calls", sa.Column("cache_write_tokens", sa.BigInteger(), nullable=True))
    op.add_column(
        "runs", sa.Column("priority", sa.Text(), server_default="interactive", nullable=False)
    )
    op.add_column(
        "runs", sa.Column("use_cache", sa.Boolean(), server_default=sa.true(), nullable=False)
    )


def _views() -> None:
    folder = Path(__file__).resolve().parent.parent / "views"
    for view in VIEWS:
        op.execute((folder / f"{view}.sql").read_text("utf-8"))


def _reader() -> None:
    readable = ", ".join((*READABLE_TABLES, *(view.partition("@")[0] for view in VIEWS)))
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
