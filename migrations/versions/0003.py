"""The questions: views for users, and the role that may read them and nothing else."""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

VIEWS = (
    "run_accounts@1",
    "document_results@1",
    "results_by_day@1",
    "fact_quotes@1",
    "model_costs_by_day@1",
    "model_quality_by_day@1",
    "slow_calls@1",
    "failures@1",
    "document_coverage@1",
    "stale_results@1",
)
READABLE_TABLES = (
    "documents",
    "runs",
    "intakes",
    "jobs",
    "chunks",
    "results",
    "result_history",
    "facts",
    "model_calls",
    "prompt_versions",
)


def upgrade() -> None:
    """Apply."""
    _views()
    _reader()


def downgrade() -> None:
    """Take back. The role stays: it may serve other databases of the cluster."""
    for view in reversed(VIEWS):
        op.execute(f"DROP VIEW {view.partition('@')[0]}")


def _views() -> None:
    folder = Path(__file__).resolve().parent.parent / "views"
    for view in VIEWS:
        op.execute((folder / f"{view}.sql").read_text("utf-8"))


def _reader() -> None:
    """Make the role that may read what users ask for, and nothing else.

    Where the migrating role may not create roles, an administrator creates it beforehand; without
    it everything works but `chordwise sql`.
    """
    op.execute(
        """
        DO $$
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'chordwise_reader') THEN
                CREATE ROLE chordwise_reader NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;
            END IF;
        EXCEPTION
            WHEN insufficient_privilege THEN
                RAISE NOTICE 'chordwise_reader is missing, and this role may not create it';
            WHEN duplicate_object OR unique_violation THEN
                NULL;  -- another database of the cluster is being migrated right now
        END $$
        """
    )
    readable = ", ".join([*READABLE_TABLES, *(view.partition("@")[0] for view in VIEWS)])
    op.execute(
        f"""
        DO $$
        BEGIN
            IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'chordwise_reader') THEN
                GRANT USAGE ON SCHEMA public TO chordwise_reader;
                GRANT SELECT ON {readable} TO chordwise_reader;
            END IF;
        END $$
        """
    )
