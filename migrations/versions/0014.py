"""Losses that were hidden are stored, costs say how they are known, and readers do no harm."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None
works_from = "0003"

_FOR_EACH_FUNCTION = """
DO $$
DECLARE
    f regprocedure;
    owner text := (SELECT pg_get_userbyid(datdba) FROM pg_database
                   WHERE datname = current_database());
BEGIN
    FOR f IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace
            AND pg_has_role(proowner, 'USAGE')
            AND (proname LIKE 'pg%advisory%' OR proname IN
                ('set_config', 'pg_logical_emit_message', 'pg_notify',
                 'pg_cancel_backend', 'pg_terminate_backend'))
    LOOP
        STATEMENTS
    END LOOP;
END $$
"""
LOCKS = ("leader_lock", "last_attempt_lock", "reader_login_lock")
TABLES_WITH_MISSING_ROWS = ("results", "result_history", "chunks")
VIEWS_OF_RESULTS = (
    "document_results@2",
    "results_by_day@1",
    "stale_results@1",
    "calibrated_results@1",
    "calibrated_facts@1",
)
VIEWS_OF_INTAKES = ("failures@1", "run_accounts@2")
COST_VIEWS = ("tier_statistics", "budget_accounts")


def upgrade() -> None:
    """Apply."""
    _add_costs()
    _add_missing_rows()
    _count_attempts_at_inbox_files()
    _add_intake_leases()
    _add_listed_files()
    _create("run_accounts@3")
    _create("failures@2")
    _make_locks()
    _close_functions()


def downgrade() -> None:
    """Take back; views that lose a column are made anew, and so are those that read them.

    What is listed and not taken in is forgotten.
    """
    _open_functions()
    for lock in LOCKS:
        op.execute(f"DROP VIEW {lock}")
    for view in reversed(VIEWS_OF_RESULTS):
        op.execute(f"DROP VIEW {view.partition('@')[0]}")
    for table in TABLES_WITH_MISSING_ROWS:
        op.drop_column(table, "missing_rows")
    op.execute("DROP VIEW run_costs")
    for view in COST_VIEWS:
        op.execute(f"DROP VIEW {view}")
    op.drop_column("model_calls", "cost_basis")
    op.drop_column("inbox_files", "attempts")
    for view in VIEWS_OF_INTAKES:
        op.execute(f"DROP VIEW {view.partition('@')[0]}")
    op.drop_table("listed_files")
    op.execute("DELETE FROM intakes WHERE outcome = 'not_taken'")
    op.drop_column("runs", "intake_until")
    op.drop_column("runs", "intake_token")
    restored = (*VIEWS_OF_RESULTS, *VIEWS_OF_INTAKES, *(f"{view}@1" for view in COST_VIEWS))
    for view in restored:
        _create(view)
        _let_read(view.partition("@")[0])


def _add_costs() -> None:
    """Add the column and the counts of the views; rows from before have no basis."""
    op.add_column("model_calls", sa.Column("cost_basis", sa.Text(), nullable=True))
    for view in COST_VIEWS:
        _create(f"{view}@2")
    _create("run_costs@1")
    _let_read("run_costs")


def _add_missing_rows() -> None:
    for table in TABLES_WITH_MISSING_ROWS:
        op.add_column(table, sa.Column("missing_rows", JSONB(), nullable=True))
    _create("document_results@3")


def _count_attempts_at_inbox_files() -> None:
    op.add_column(
        "inbox_files",
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
    )


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


def _make_locks() -> None:
    for lock in LOCKS:
        op.execute(f"CREATE VIEW {lock} AS SELECT 'locked by LOCK TABLE' AS purpose")


def _close_functions() -> None:
    """Only a superuser can; `deploy/create-role.sh` has the same, and `doctor` tells of the rest.

    The owner of the database keeps the right, and so do roles that may read all data: `pg_dump`
    calls `set_config`.
    """
    _for_functions(
        "REVOKE EXECUTE ON FUNCTION %1$s FROM PUBLIC",
        "GRANT EXECUTE ON FUNCTION %1$s TO %2$I, pg_read_all_data",
    )


def _open_functions() -> None:
    _for_functions("GRANT EXECUTE ON FUNCTION %1$s TO PUBLIC")


def _for_functions(*statements: str) -> None:
    executed = "\n".join(f"EXECUTE format('{each}', f, owner);" for each in statements)
    op.execute(_FOR_EACH_FUNCTION.replace("STATEMENTS", executed))


def _create(view: str) -> None:
    """Create a view, or replace it by one with further columns at its end."""
    folder = Path(__file__).resolve().parent.parent / "views"
    definition = (folder / f"{view}.sql").read_text("utf-8")
    op.execute(definition.replace("CREATE VIEW", "CREATE OR REPLACE VIEW"))


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
