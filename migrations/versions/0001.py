"""The first schema: tables and their indexes, a trigger, views, and the rights of readers."""

from pathlib import Path
from types import ModuleType

import sqlalchemy as sa
from alembic import op
from alembic.util import load_python_file

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None
works_from = "0001"

_FOLDER = Path(__file__).resolve().parent.parent

VIEWS = (
    "run_accounts@1",
    "run_costs@1",
    "document_results@1",
    "answer_trust@1",
    "fact_trust@1",
    "answer_jobs@1",
    "document_coverage@1",
    "document_places@1",
    "results_by_day@1",
    "fact_quotes@1",
    "contradictions@1",
    "absences@1",
    "failures@1",
    "stale_results@1",
    "model_costs_by_day@1",
    "model_quality_by_day@1",
    "slow_calls@1",
    "tier_statistics@1",
    "budget_accounts@1",
    "evaluation_history@1",
    "evaluation_changes@1",
    "judged_claims@1",
    "reliability_curve@1",
    "calibration_segments@1",
    "calibrated_results@1",
    "calibrated_facts@1",
    "certified_answers@1",
    "experiment_answers@1",
    "call_examples@1",
    "corrections@1",
    "review_queue@1",
    "savings_by_day@1",
    "failures_by_day@1",
    "audit_log@1",
)
# Views that the processes lock with LOCK TABLE; readers have no right to do so.
LOCKS = ("leader_lock", "last_attempt_lock", "reader_login_lock")
READABLE_TABLES = (
    "documents",
    "runs",
    "intakes",
    "listed_files",
    "jobs",
    "chunks",
    "results",
    "result_history",
    "facts",
    "answer_tables",
    "model_calls",
    "prompt_versions",
    "incidents",
    "budgets",
    "schedules",
    "schedule_runs",
    "inbox_files",
    "inbox_intakes",
    "batches",
    "batch_requests",
    "deliveries",
    "feedback",
    "learned_examples",
    "entity_values",
    "entity_decisions",
    "evaluations",
    "evaluation_measures",
    "judgments",
    "calibrations",
    "certifications",
    "erasures",
    "audit_events",
    "experiments",
    "experiment_variants",
    "experiment_documents",
)


def upgrade() -> None:
    """Create the schema."""
    _first_tables().create()
    _create_indexes()
    _create_statistics()
    _reserve_space_for_updates()
    _notify_of_outbox()
    _create_trust()
    _row_security().create()
    _create_views()
    op.execute("CREATE SCHEMA answers")
    _create_reader()
    _revoke_functions()


def downgrade() -> None:
    """Drop the schema. The role is kept, as other databases of the cluster may use it."""
    _for_functions("GRANT EXECUTE ON FUNCTION %1$s TO PUBLIC")
    op.execute("DROP SCHEMA answers CASCADE")
    for view in (*LOCKS, *map(_name_of, reversed(VIEWS))):
        op.execute(f"DROP VIEW {view}")
    _row_security().drop()
    for table in reversed(_first_tables().TABLES):
        op.drop_table(table)
    op.execute("DROP FUNCTION tell_of_outbox()")
    op.execute("DROP FUNCTION trust_of")
    op.execute("DROP TYPE trust")


def _first_tables() -> ModuleType:
    return load_python_file(str(_FOLDER), "first_tables.py")


def _row_security() -> ModuleType:
    return load_python_file(str(_FOLDER), "row_security.py")


# Indexes
#
# An update of a column that is part of an index, in its key or its condition, writes all indexes of
# the table. Therefore `last_progress_at`, `lease_until` and `started_at`, which change with every
# chunk, are part of none. A BRIN index does not have this effect.

_INDEXES = (
    ("ix_batch_requests_batch_id", "batch_requests", ["batch_id"]),
    ("ix_batch_requests_job_id", "batch_requests", ["job_id"]),
    ("ix_cached_completions_created_at", "cached_completions", ["created_at"]),
    (
        "ix_calibrations_key",
        "calibrations",
        ["analysis_type", "provider", "model", "part", "learnt_at"],
    ),
    ("ix_certifications_run_id", "certifications", ["run_id"]),
    ("ix_certifications_scope", "certifications", ["run", "profile", "certified_at"]),
    ("ix_deliveries_run_id", "deliveries", ["run_id"]),
    ("ix_entity_decisions_column_name", "entity_decisions", ["column_name"]),
    ("ix_evaluations_evaluated_at", "evaluations", ["evaluated_at"]),
    ("ix_evaluations_run_id", "evaluations", ["run_id"]),
    (
        "ix_experiment_documents_experiment_id",
        "experiment_documents",
        ["experiment_id", "document_id"],
    ),
    ("ix_experiments_run_id", "experiments", ["run_id"]),
    ("ix_facts_job_id_item", "facts", ["job_id", "item"]),
    ("ix_feedback_created_at", "feedback", ["created_at"]),
    ("ix_feedback_job_id", "feedback", ["job_id"]),
    ("ix_feedback_question", "feedback", ["document_id", "analysis_type"]),
    ("ix_inbox_files_run_id", "inbox_files", ["run_id"]),
    ("ix_inbox_intakes_inbox_file_id", "inbox_intakes", ["inbox_file_id"]),
    ("ix_intakes_document_id", "intakes", ["document_id"]),
    ("ix_intakes_run_id_outcome", "intakes", ["run_id", "outcome"]),
    # A document has few jobs, so an index on its id suffices, without the hash of the options.
    ("ix_jobs_document_id", "jobs", ["document_id"]),
    ("ix_jobs_intake_id", "jobs", ["intake_id"]),
    ("ix_jobs_run_id_status", "jobs", ["run_id", "status"]),
    ("ix_judgments_job_id", "judgments", ["job_id"]),
    ("ix_learned_examples_document_id", "learned_examples", ["document_id"]),
    ("ix_listed_files_job_id", "listed_files", ["job_id"]),
    ("ix_model_calls_chunk_id", "model_calls", ["chunk_id"]),
    ("ix_model_calls_job_id", "model_calls", ["job_id"]),
    ("ix_result_history_document_id", "result_history", ["document_id"]),
    ("ix_result_history_job_id", "result_history", ["job_id"]),
    ("ix_results_confidence_id", "results", ["confidence", "id"]),
    ("ix_results_document_id", "results", ["document_id"]),
    ("ix_runs_schedule_run_id", "runs", ["schedule_run_id"]),
)
_UNFINISHED_JOBS = "status IN ('queued', 'running', 'waiting', 'synthesizing', 'paused')"
_RETRYABLE_JOBS = "status IN ('paused', 'partial', 'failed', 'quarantined', 'cancelled')"
_FOLLOWING_JOBS = "reused_from IS NOT NULL AND status IN ('queued', 'paused')"
_OPEN_CHUNKS = "status IN ('pending', 'running', 'waiting')"
_RESERVED = "reserved_usd IS NOT NULL"
_OPEN_FILES = "status IN ('claimed', 'submitted', 'moving')"
_PARTIAL_INDEXES = (
    ("ix_batch_requests_following", "batch_requests", ["key"], "status = 'following'"),
    (
        "ix_batch_requests_pending",
        "batch_requests",
        ["model_name", "created_at"],
        "status = 'pending'",
    ),
    ("ix_batch_requests_reserved", "batch_requests", ["expires_at"], _RESERVED),
    ("ix_batches_open", "batches", ["poll_at"], "status IN ('preparing', 'running')"),
    ("ix_chunks_failed", "chunks", ["job_id"], "status IN ('failed', 'quarantined')"),
    ("ix_chunks_running", "chunks", ["id"], "status = 'running'"),
    ("ix_chunks_open_job_id", "chunks", ["job_id", "status"], _OPEN_CHUNKS),
    ("ix_chunks_waiting", "chunks", ["due_at"], "status = 'waiting'"),
    ("ix_deliveries_pending", "deliveries", ["due_at"], "status = 'pending'"),
    ("ix_facts_ungrounded", "facts", ["job_id"], "grounding = 'none'"),
    ("ix_intakes_told_of", "intakes", ["run_id", "id"], "message IS NOT NULL"),
    ("ix_jobs_following", "jobs", ["id"], _FOLLOWING_JOBS),
    ("ix_jobs_retryable", "jobs", ["run_id", "id"], _RETRYABLE_JOBS),
    ("ix_jobs_reused_from", "jobs", ["reused_from"], "reused_from IS NOT NULL"),
    ("ix_jobs_unfinished_created_at", "jobs", ["status", "created_at", "id"], _UNFINISHED_JOBS),
    ("ix_jobs_waiting", "jobs", ["due_at"], "status = 'waiting'"),
    (
        "ix_listed_files_for_readers",
        "listed_files",
        ["run_id", "position"],
        "status <> 'listed'",
    ),
    ("ix_model_calls_reserved", "model_calls", ["expires_at"], _RESERVED),
    ("ix_model_calls_run_id", "model_calls", ["run_id"], "run_id IS NOT NULL"),
    ("ix_outbox_sent", "outbox", ["due_at"], "sends > 0"),
    ("ix_outbox_unsent", "outbox", ["urgency", "due_at", "id"], "sends = 0"),
    ("ix_results_needing_review", "results", ["id"], "needs_review"),
)
_UNIQUE_INDEXES = (
    ("ix_listed_files_run_id_position", "listed_files", ["run_id", "position"], None),
    (
        "ix_schedule_runs_unfinished",
        "schedule_runs",
        ["schedule_id"],
        "status IN ('due', 'running', 'waiting')",
    ),
    ("ux_batch_requests_leading", "batch_requests", ["key"], "leads AND finished_at IS NULL"),
    ("ux_experiments_running", "experiments", ["profile"], "concluded_at IS NULL"),
    (
        "ux_inbox_files_open",
        "inbox_files",
        ["folder", sa.text("sha256(raw_name)"), "byte_count", "modified_ns"],
        _OPEN_FILES,
    ),
    ("ux_feedback_withdraws", "feedback", ["withdraws"], "withdraws IS NOT NULL"),
    ("ux_model_calls_question", "model_calls", ["question"], "question IS NOT NULL"),
)
# The words of documents and values, for full-text search. A row whose `tsvector` is longer than a
# megabyte would be refused; that of a hundred thousand characters is always shorter. New words are
# appended to a list that vacuum merges into the index.
_WORDS = "to_tsvector('simple', \"left\"({column}, 100000))"
_SEARCHED = {"documents": "text", "facts": "final_value"}
_GIN = {"postgresql_using": "gin", "postgresql_with": {"gin_pending_list_limit": 65_536}}
_BRIN = {
    "postgresql_using": "brin",
    "postgresql_with": {"autosummarize": True, "pages_per_range": 16},
}


def _create_indexes() -> None:
    for name, table, columns in _INDEXES:
        op.create_index(name, table, columns)
    for name, table, columns, condition in _PARTIAL_INDEXES:
        op.create_index(name, table, columns, postgresql_where=sa.text(condition))
    for name, table, columns, condition in _UNIQUE_INDEXES:
        where = None if condition is None else sa.text(condition)
        op.create_index(name, table, columns, unique=True, postgresql_where=where)
    for table, column in _SEARCHED.items():
        name, words = f"ix_{table}_words", sa.text(_WORDS.format(column=column))
        op.create_index(name, table, [words], **_GIN)
        # ANALYZE would take long to count the words of a sample.
        op.execute(f"ALTER INDEX {name} ALTER COLUMN 1 SET STATISTICS 0")
    for table in ("chunks", "jobs"):
        op.create_index(f"ix_{table}_started_at", table, ["started_at"], **_BRIN)
    op.create_index("ix_jobs_finished_at", "jobs", ["finished_at"], **_BRIN)  # for traces
    # The views by day read the calls of a few days only.
    day = sa.text("((started_at AT TIME ZONE 'UTC')::date)")
    op.create_index("ix_model_calls_day", "model_calls", [day], **_BRIN)


# Without these statistics the planner overestimates the number of days, and sorts all rows instead
# of aggregating them by hash in parallel.
_STATISTICS = {
    "st_model_calls_day": (
        "((started_at AT TIME ZONE 'UTC')::date), provider, model FROM model_calls"
    ),
    "st_results_day": "((created_at AT TIME ZONE 'UTC')::date), analysis_type FROM results",
}
# A row of the ledger is updated once or twice; each page reserves space for the new versions.
_FILLFACTORS = {"model_calls": 50, "jobs": 80}


def _create_statistics() -> None:
    for name, counted in _STATISTICS.items():
        op.execute(f"CREATE STATISTICS {name} ON {counted}")


def _reserve_space_for_updates() -> None:
    for table, percent in _FILLFACTORS.items():
        op.execute(f"ALTER TABLE {table} SET (fillfactor = {percent})")


# Functions and triggers


def _notify_of_outbox() -> None:
    """Notify the schedulers of messages in the outbox; those due later are found by polling."""
    op.execute(
        """
        CREATE FUNCTION tell_of_outbox() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN
            IF EXISTS (SELECT FROM added WHERE due_at <= clock_timestamp()) THEN
                NOTIFY chordwise_outbox;
            END IF;
            RETURN NULL;
        END $$
        """
    )
    op.execute("REVOKE EXECUTE ON FUNCTION tell_of_outbox() FROM PUBLIC")
    op.execute(
        "CREATE TRIGGER tell_of_outbox AFTER INSERT ON outbox REFERENCING NEW TABLE AS added "
        "FOR EACH STATEMENT EXECUTE FUNCTION tell_of_outbox()"
    )


def _create_trust() -> None:
    """Create the states of values, and the function that computes them.

    A cell with several values has the first state of any of them, which `min` returns.
    """
    op.execute(
        "CREATE TYPE trust AS ENUM ('check', 'unread', 'silent', 'supported', 'certified',"
        " 'corrected', 'confirmed')"
    )
    op.execute(
        """
        CREATE FUNCTION trust_of(
            value text, verdict text, accepted boolean, doubts text[],
            confidence double precision, accept_from double precision, is_read boolean
        ) RETURNS trust LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
        $$ SELECT CASE
            WHEN verdict IN ('approved', 'seen') THEN 'confirmed'::trust
            WHEN verdict IN ('corrected', 'rejected') THEN 'corrected'::trust
            WHEN accepted AND (value IS NOT NULL OR is_read) THEN 'certified'::trust
            WHEN value IS NULL AND doubts = '{not supported}' THEN 'unread'::trust
            WHEN doubts IS NOT NULL THEN 'check'::trust
            WHEN value IS NOT NULL AND confidence < accept_from THEN 'check'::trust
            WHEN value IS NOT NULL THEN 'supported'::trust
            WHEN is_read THEN 'silent'::trust
            ELSE 'unread'::trust
        END $$
        """
    )


# Views


def _create_views() -> None:
    for view in VIEWS:
        op.execute((_FOLDER / "views" / f"{view}.sql").read_text("utf-8"))
        # So that the policies of a reader apply, not those of the view's owner.
        op.execute(f"ALTER VIEW {_name_of(view)} SET (security_invoker = true)")
    for lock in LOCKS:
        op.execute(f"CREATE VIEW {lock} AS SELECT 'locked by LOCK TABLE' AS purpose")


def _name_of(view: str) -> str:
    return view.partition("@")[0]


# Readers


def _create_reader() -> None:
    """Create the role that may only read the tables and views for users.

    If the migrating role may not create roles, an administrator has to create it beforehand.
    Without the role, only `chordwise sql` does not work.
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
    readable = ", ".join([*READABLE_TABLES, *map(_name_of, VIEWS)])
    op.execute(
        f"""
        DO $$
        BEGIN
            IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'chordwise_reader') THEN
                GRANT USAGE ON SCHEMA public, answers TO chordwise_reader;
                GRANT SELECT ON {readable} TO chordwise_reader;
            END IF;
        END $$
        """
    )


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
            AND (proname ~ '^(pg_.*advisory|lo_|lowrite)' OR proname IN
                ('set_config', 'pg_logical_emit_message', 'pg_notify',
                 'pg_cancel_backend', 'pg_terminate_backend'))
    LOOP
        STATEMENTS
    END LOOP;
END $$
"""


def _revoke_functions() -> None:
    """Revoke the functions that readers must not call; this has an effect for a superuser only.

    Otherwise `deploy/create-role.sh` revokes them, and `doctor` reports those that are left. The
    owner of the database keeps the right, and so do roles that may read all data: `pg_dump` calls
    `set_config`.
    """
    _for_functions(
        "REVOKE EXECUTE ON FUNCTION %1$s FROM PUBLIC",
        "GRANT EXECUTE ON FUNCTION %1$s TO %2$I, pg_read_all_data",
    )


def _for_functions(*statements: str) -> None:
    executed = "\n".join(f"EXECUTE format('{statement}', f, owner);" for statement in statements)
    op.execute(_FOR_EACH_FUNCTION.replace("STATEMENTS", executed))
