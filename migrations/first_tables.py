"""The tables of the first migration, in the order of their dependencies.

The columns of a table are in the order of the class that maps it.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

_BIGINT, _BOOLEAN, _BYTES, _DATE = sa.BigInteger(), sa.Boolean(), sa.LargeBinary(), sa.Date()
_DOUBLE, _INTEGER, _JSON, _TEXT, _UUID = sa.Double(), sa.Integer(), JSONB(), sa.Text(), sa.Uuid()
_TIME = sa.DateTime(timezone=True)
_USD = sa.Numeric(14, 8)
_FINAL_VALUE = sa.Computed(
    "CASE WHEN verdict IN ('corrected', 'rejected') THEN corrected_value ELSE value END",
    persisted=True,
)
_GROUNDED = sa.Computed("grounding <> 'none'", persisted=True)


def _required(kind: sa.types.TypeEngine[object], *names: str) -> list[sa.Column[object]]:
    return [sa.Column(name, kind, nullable=False) for name in names]


def _nullable(kind: sa.types.TypeEngine[object], *names: str) -> list[sa.Column[object]]:
    return [sa.Column(name, kind, nullable=True) for name in names]


def _default(
    kind: sa.types.TypeEngine[object], name: str, value: str | sa.TextClause
) -> sa.Column[object]:
    return sa.Column(name, kind, server_default=value, nullable=False)


def _reference(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=f"fk_{table}_{column}")


def _transaction_time(name: str) -> sa.Column[object]:
    return _default(_TIME, name, sa.text("now()"))


def _clock_time(name: str) -> sa.Column[object]:
    return _default(_TIME, name, sa.text("clock_timestamp()"))


# Tables


def create() -> None:
    """Create all tables, without their indexes."""
    _create_schema_versions()
    _create_messages()
    _create_prompts()
    _create_schedules()
    _create_runs()
    _create_intakes()
    _create_jobs()
    _create_lists_of_files()
    _create_inbox()
    _create_chunks()
    _create_model_calls()
    _create_results()
    _create_result_history()
    _create_facts()
    _create_answer_tables()
    _create_budgets()
    _create_batches()
    _create_batch_requests()
    _create_deliveries()
    _create_feedback()
    _create_evaluations()
    _create_judgments()
    _create_calibrations()


def _create_schema_versions() -> None:
    op.create_table(
        "schema_versions",
        *_required(_TEXT, "revision", "works_from"),
        _transaction_time("applied_at"),
        sa.PrimaryKeyConstraint("revision", name="pk_schema_versions"),
    )


def _create_messages() -> None:
    op.create_table(
        "broker_markers",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        *_required(_TEXT, "marker"),
        _transaction_time("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_broker_markers"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        *_required(_TEXT, "task"),
        *_required(_JSON, "arguments"),
        *_required(_TEXT, "reason"),
        _transaction_time("created_at"),
        _transaction_time("due_at"),
        *_nullable(_TIME, "sent_at"),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
    )
    op.create_table(
        "incidents",
        *_required(_TEXT, "kind", "reason"),
        *_required(_BIGINT, "count"),
        _transaction_time("first_at"),
        _clock_time("last_at"),
        sa.PrimaryKeyConstraint("kind", "reason", name="pk_incidents"),
    )


def _create_prompts() -> None:
    op.create_table(
        "prompt_versions",
        *_required(_TEXT, "version", "sha256", "system", "user"),
        _transaction_time("created_at"),
        sa.PrimaryKeyConstraint("version", name="pk_prompt_versions"),
    )
    op.create_table(
        "cached_completions",
        *_required(_TEXT, "key", "provider", "model", "prompt_version"),
        *_nullable(_JSON, "completion"),
        *_nullable(_UUID, "claim_token"),
        *_nullable(_TIME, "claimed_until"),
        _clock_time("created_at"),
        *_nullable(_TIME, "used_at"),
        _default(_BIGINT, "uses", "0"),
        sa.PrimaryKeyConstraint("key", name="pk_cached_completions"),
    )


def _create_schedules() -> None:
    op.create_table(
        "schedules",
        *_required(_UUID, "id"),
        *_required(_TEXT, "name", "origin"),
        _default(_BOOLEAN, "enabled", sa.text("true")),
        *_required(_TEXT, "cron", "time_zone", "kind"),
        *_required(_JSON, "options"),
        *_nullable(_TIME, "next_due_at"),
        _transaction_time("created_at"),
        _transaction_time("changed_at"),
        sa.PrimaryKeyConstraint("id", name="pk_schedules"),
        sa.UniqueConstraint("name", name="uq_schedules_name"),
    )
    op.create_table(
        "schedule_runs",
        *_required(_UUID, "id", "schedule_id"),
        *_required(_TEXT, "schedule", "kind"),
        *_required(_TIME, "due_at"),
        *_required(_TEXT, "trigger", "status"),
        *_nullable(_JSON, "outcome"),
        *_nullable(_TEXT, "error_code", "error_message", "hint"),
        _default(_INTEGER, "attempts", "0"),
        *_nullable(_UUID, "lease_token"),
        *_nullable(_TIME, "lease_until"),
        *_required(_TIME, "expires_at"),
        _transaction_time("created_at"),
        *_nullable(_TIME, "started_at", "finished_at"),
        sa.PrimaryKeyConstraint("id", name="pk_schedule_runs"),
        _reference("schedule_runs", "schedule_id", "schedules"),
        sa.UniqueConstraint("schedule_id", "due_at", name="uq_schedule_runs_schedule_id_due_at"),
    )


def _create_runs() -> None:
    op.create_table(
        "runs",
        *_required(_UUID, "id"),
        *_required(_TEXT, "name", "status"),
        *_required(sa.JSON(), "options"),
        *_required(_INTEGER, "type_count"),
        _default(_TEXT, "priority", "interactive"),
        _default(_TEXT, "lane", "online"),
        _default(_BOOLEAN, "use_cache", sa.text("true")),
        *_nullable(_TEXT, "saved_as"),
        *_nullable(_INTEGER, "found_count"),
        *_nullable(_UUID, "schedule_run_id"),
        _transaction_time("created_at"),
        *_nullable(_TIME, "intake_finished_at"),
        *_nullable(_UUID, "intake_token"),
        *_nullable(_TIME, "intake_until", "finished_at"),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        _reference("runs", "schedule_run_id", "schedule_runs"),
        sa.UniqueConstraint("name", name="uq_runs_name"),
    )


def _create_intakes() -> None:
    op.create_table(
        "documents",
        *_required(_UUID, "id"),
        *_required(_TEXT, "sha256", "source", "media_type"),
        *_nullable(_TEXT, "title", "transcribed_by"),
        *_required(_TEXT, "text"),
        *_required(_INTEGER, "character_count"),
        *_required(_JSON, "normalization"),
        *_nullable(_JSON, "flags", "places"),
        *_nullable(sa.ARRAY(_BYTES), "layouts"),
        _transaction_time("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_documents"),
        sa.UniqueConstraint("sha256", name="uq_documents_sha256"),
    )
    op.create_table(
        "intakes",
        *_required(_UUID, "id", "run_id"),
        *_required(_TEXT, "source"),
        *_nullable(_TEXT, "sha256"),
        *_nullable(_BIGINT, "byte_count"),
        *_required(_TEXT, "outcome"),
        *_nullable(_TEXT, "reason", "message", "hint"),
        *_nullable(_UUID, "document_id"),
        _transaction_time("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_intakes"),
        _reference("intakes", "run_id", "runs"),
        _reference("intakes", "document_id", "documents"),
    )


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        *_required(_UUID, "id", "run_id", "intake_id", "document_id"),
        *_required(_TEXT, "analysis_type"),
        *_required(_JSON, "options"),
        *_required(_TEXT, "options_hash", "model", "status"),
        *_nullable(_TEXT, "error_code", "error_message", "hint"),
        *_nullable(_UUID, "reused_from"),
        *_nullable(_INTEGER, "chunk_count", "open_chunks"),
        *_required(_INTEGER, "attempts", "postponements"),
        *_nullable(_TIME, "due_at", "batch_until"),
        *_nullable(_UUID, "lease_token"),
        *_nullable(_TIME, "lease_until"),
        _transaction_time("created_at"),
        *_nullable(_TIME, "started_at"),
        _transaction_time("last_progress_at"),
        *_nullable(_TIME, "finished_at"),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        _reference("jobs", "run_id", "runs"),
        _reference("jobs", "intake_id", "intakes"),
        _reference("jobs", "document_id", "documents"),
        _reference("jobs", "reused_from", "jobs"),
    )


def _create_lists_of_files() -> None:
    op.create_table(
        "listed_files",
        *_required(_UUID, "intake_id", "run_id"),
        *_required(_INTEGER, "position"),
        *_required(_TEXT, "source"),
        *_nullable(_BYTES, "raw_path"),
        *_required(_BOOLEAN, "follow_symlinks"),
        *_nullable(_BIGINT, "byte_count", "modified_ns"),
        *_nullable(_UUID, "job_id"),
        _default(_INTEGER, "documents_taken", "0"),
        sa.PrimaryKeyConstraint("intake_id", name="pk_listed_files"),
        _reference("listed_files", "intake_id", "intakes"),
        _reference("listed_files", "run_id", "runs"),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_listed_files_job_id", ondelete="SET NULL"
        ),
    )


def _create_inbox() -> None:
    op.create_table(
        "inbox_files",
        *_required(_UUID, "id", "store_id"),
        *_required(_TEXT, "folder", "name"),
        *_required(_BYTES, "raw_name"),
        *_required(_TEXT, "profile", "status"),
        *_nullable(_TEXT, "sha256"),
        *_nullable(_BIGINT, "byte_count"),
        *_required(_TEXT, "stored_path"),
        *_nullable(_UUID, "run_id"),
        _default(_INTEGER, "attempts", "0"),
        *_nullable(_TEXT, "reason", "message", "hint", "delivered_path"),
        *_nullable(_BYTES, "raw_destination"),
        _transaction_time("created_at"),
        *_nullable(_TIME, "submitted_at", "delivered_at"),
        sa.PrimaryKeyConstraint("id", name="pk_inbox_files"),
        _reference("inbox_files", "run_id", "runs"),
    )
    op.create_table(
        "inbox_intakes",
        *_required(_UUID, "intake_id", "inbox_file_id"),
        *_required(_INTEGER, "position"),
        sa.PrimaryKeyConstraint("intake_id", name="pk_inbox_intakes"),
        _reference("inbox_intakes", "intake_id", "intakes"),
        _reference("inbox_intakes", "inbox_file_id", "inbox_files"),
    )


def _create_chunks() -> None:
    op.create_table(
        "chunks",
        *_required(_UUID, "id", "job_id"),
        *_required(_INTEGER, "position", "start_char", "end_char"),
        *_required(_TEXT, "status"),
        *_required(_INTEGER, "attempts", "postponements"),
        *_nullable(_TIME, "due_at"),
        *_nullable(_UUID, "lease_token"),
        *_nullable(_TIME, "lease_until"),
        *_nullable(_JSON, "answer"),
        *_nullable(_DOUBLE, "confidence", "quality", "agreement"),
        *_nullable(_JSON, "missing_rows"),
        *_nullable(_TEXT, "provider", "model", "prompt_version"),
        *_nullable(_TEXT, "error_code", "error_message", "hint"),
        *_nullable(_TIME, "sent_at", "started_at", "finished_at"),
        sa.PrimaryKeyConstraint("id", name="pk_chunks"),
        _reference("chunks", "job_id", "jobs"),
        sa.UniqueConstraint("job_id", "position", name="uq_chunks_job_id_position"),
    )


def _create_model_calls() -> None:
    op.create_table(
        "model_calls",
        *_required(_UUID, "id"),
        *_nullable(_TEXT, "run", "source"),
        *_nullable(_UUID, "run_id", "job_id", "chunk_id"),
        *_required(_TEXT, "stage", "provider", "model", "prompt_version"),
        *_required(_BOOLEAN, "language_model"),
        *_nullable(_TEXT, "tier"),
        *_nullable(_BOOLEAN, "escalated"),
        *_nullable(_TEXT, "service_tier"),
        *_required(_INTEGER, "attempt"),
        _default(_INTEGER, "sample", "1"),
        _transaction_time("started_at"),
        *_nullable(_TIME, "finished_at"),
        *_nullable(_BIGINT, "latency_ms", "input_tokens", "output_tokens"),
        *_nullable(_BIGINT, "cached_input_tokens", "cache_write_tokens"),
        *_nullable(_USD, "cost_usd"),
        *_nullable(_TEXT, "cost_basis"),
        *_nullable(_USD, "reference_cost_usd"),
        *_nullable(_BIGINT, "response_length"),
        *_nullable(_TEXT, "response_id", "finish_reason"),
        *_nullable(_BOOLEAN, "refused", "valid"),
        *_nullable(_DOUBLE, "quality"),
        *_required(_BOOLEAN, "cache_hit"),
        *_nullable(_TEXT, "error_code", "error_message"),
        sa.PrimaryKeyConstraint("id", name="pk_model_calls"),
        _reference("model_calls", "run_id", "runs"),
        _reference("model_calls", "job_id", "jobs"),
        _reference("model_calls", "chunk_id", "chunks"),
    )


def _columns_of_an_answer() -> list[sa.Column[object]]:
    return [
        *_required(_TEXT, "analysis_type"),
        *_required(_JSON, "output"),
        *_nullable(_JSON, "corrected_output"),
        _default(_BOOLEAN, "nothing_found", sa.text("false")),
        *_required(_DOUBLE, "confidence", "quality", "coverage"),
        *_nullable(_DOUBLE, "agreement"),
        *_nullable(_JSON, "critique"),
        *_required(_BOOLEAN, "needs_review"),
        *_required(_JSON, "failed_chunks"),
        *_nullable(_JSON, "missing_rows", "row_counts", "failed_checks"),
        *_required(_TEXT, "provider", "model", "prompt_version"),
        *_required(_BOOLEAN, "language_model"),
        *_nullable(_TEXT, "review_reason"),
    ]


def _create_results() -> None:
    op.create_table(
        "results",
        *_required(_UUID, "id", "job_id", "document_id"),
        _transaction_time("created_at"),
        *_columns_of_an_answer(),
        sa.PrimaryKeyConstraint("id", name="pk_results"),
        _reference("results", "job_id", "jobs"),
        _reference("results", "document_id", "documents"),
        sa.UniqueConstraint("job_id", name="uq_results_job_id"),
    )


def _create_result_history() -> None:
    op.create_table(
        "result_history",
        *_required(_UUID, "id", "job_id", "document_id"),
        *_required(_TIME, "created_at"),
        _transaction_time("replaced_at"),
        *_columns_of_an_answer(),
        sa.PrimaryKeyConstraint("id", name="pk_result_history"),
        _reference("result_history", "job_id", "jobs"),
        _reference("result_history", "document_id", "documents"),
    )


def _create_facts() -> None:
    op.create_table(
        "facts",
        *_required(_UUID, "id", "job_id"),
        *_required(_TEXT, "path", "item"),
        *_nullable(_TEXT, "parent"),
        *_nullable(_INTEGER, "row_index"),
        *_nullable(_TEXT, "value", "corrected_value", "verdict"),
        sa.Column("final_value", _TEXT, _FINAL_VALUE, nullable=True),
        *_nullable(sa.Numeric(), "number"),
        *_nullable(_TEXT, "currency", "unit"),
        *_nullable(_DATE, "date"),
        *_nullable(_DOUBLE, "confidence"),
        *_nullable(_TEXT, "quote"),
        *_nullable(_INTEGER, "start_char", "end_char"),
        *_nullable(_TEXT, "grounding"),
        sa.Column("grounded", _BOOLEAN, _GROUNDED, nullable=True),
        *_nullable(_BOOLEAN, "value_in_quote"),
        *_nullable(_INTEGER, "page"),
        *_nullable(_TEXT, "place"),
        *_nullable(_JSON, "boxes"),
        sa.PrimaryKeyConstraint("id", name="pk_facts"),
        _reference("facts", "job_id", "jobs"),
    )


def _create_answer_tables() -> None:
    op.create_table(
        "answer_tables",
        *_required(_TEXT, "name", "analysis_type"),
        *_required(_JSON, "columns"),
        _transaction_time("created_at"),
        _clock_time("changed_at"),
        sa.PrimaryKeyConstraint("name", name="pk_answer_tables"),
    )


def _create_budgets() -> None:
    op.create_table(
        "budgets",
        *_required(_TEXT, "scope"),
        *_nullable(_UUID, "run_id"),
        *_nullable(_USD, "cap_usd"),
        _default(_USD, "spent_usd", "0"),
        _default(_USD, "reserved_usd", "0"),
        sa.PrimaryKeyConstraint("scope", name="pk_budgets"),
        _reference("budgets", "run_id", "runs"),
    )
    op.create_table(
        "budget_reservations",
        *_required(_UUID, "id", "run_id"),
        *_required(_DATE, "day"),
        *_required(_USD, "amount_usd"),
        _clock_time("reserved_at"),
        *_required(_TIME, "expires_at"),
        *_nullable(_TIME, "settled_at"),
        *_nullable(_USD, "settled_usd"),
        sa.PrimaryKeyConstraint("id", name="pk_budget_reservations"),
        _reference("budget_reservations", "run_id", "runs"),
    )


def _create_batches() -> None:
    op.create_table(
        "batches",
        *_required(_UUID, "id"),
        *_required(_TEXT, "provider", "model", "model_name", "status"),
        *_nullable(_TEXT, "upload_id", "provider_id", "provider_status"),
        *_required(_INTEGER, "request_count"),
        *_nullable(_JSON, "counts"),
        _default(_INTEGER, "polls", "0"),
        *_nullable(_TEXT, "error_code", "error_message"),
        _clock_time("created_at"),
        *_nullable(_TIME, "attempted_at", "submitted_at"),
        _clock_time("poll_at"),
        *_nullable(_TIME, "expires_at", "cancel_asked_at", "ended_at"),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
    )


def _create_batch_requests() -> None:
    op.create_table(
        "batch_requests",
        *_required(_UUID, "id", "job_id"),
        *_nullable(_UUID, "chunk_id"),
        *_required(_UUID, "owner_id"),
        *_required(_TEXT, "key", "status", "model_name", "body"),
        *_required(_BIGINT, "body_bytes"),
        *_required(_JSON, "call"),
        *_required(_BOOLEAN, "is_compared"),
        _default(_BOOLEAN, "leads", sa.text("false")),
        *_nullable(_UUID, "reservation_id", "batch_id", "call_id"),
        *_required(_INTEGER, "attempts"),
        *_nullable(_TIME, "due_at"),
        *_nullable(_JSON, "answer"),
        *_nullable(_TEXT, "error_code", "error_message", "hint"),
        _clock_time("created_at"),
        *_nullable(_TIME, "finished_at"),
        sa.PrimaryKeyConstraint("id", name="pk_batch_requests"),
        _reference("batch_requests", "job_id", "jobs"),
        _reference("batch_requests", "chunk_id", "chunks"),
        _reference("batch_requests", "batch_id", "batches"),
        _reference("batch_requests", "call_id", "model_calls"),
        sa.UniqueConstraint("owner_id", "key", name="uq_batch_requests_owner_id_key"),
    )


def _create_deliveries() -> None:
    op.create_table(
        "deliveries",
        *_required(_UUID, "id", "run_id"),
        *_required(_TEXT, "kind", "event", "status"),
        *_required(_INTEGER, "attempts"),
        _clock_time("due_at"),
        *_nullable(_JSON, "content"),
        *_nullable(_TEXT, "last_error"),
        _transaction_time("created_at"),
        *_nullable(_TIME, "finished_at"),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        _reference("deliveries", "run_id", "runs"),
    )


def _create_feedback() -> None:
    op.create_table(
        "feedback",
        *_required(_UUID, "id", "job_id", "document_id", "result_id"),
        *_required(_TEXT, "analysis_type"),
        *_required(_JSON, "question"),
        *_required(_TEXT, "path"),
        *_nullable(_TEXT, "field"),
        *_required(_TEXT, "verdict"),
        *_nullable(_JSON, "judged", "corrected"),
        *_nullable(_DOUBLE, "confidence"),
        *_nullable(_TEXT, "note", "author"),
        _clock_time("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_feedback"),
        _reference("feedback", "job_id", "jobs"),
        _reference("feedback", "document_id", "documents"),
    )


def _create_evaluations() -> None:
    op.create_table(
        "evaluations",
        *_required(_UUID, "id"),
        *_nullable(_UUID, "run_id"),
        *_nullable(_TEXT, "run", "profile"),
        *_required(_TEXT, "analysis_type"),
        *_required(_BOOLEAN, "is_whole"),
        *_nullable(_TEXT, "provider", "model", "prompt_version", "gold_file", "gold_sha256"),
        *_required(_INTEGER, "judged", "unjudged", "missing"),
        _clock_time("evaluated_at"),
        sa.PrimaryKeyConstraint("id", name="pk_evaluations"),
        _reference("evaluations", "run_id", "runs"),
    )
    op.create_table(
        "evaluation_measures",
        *_required(_UUID, "evaluation_id"),
        *_required(_TEXT, "metric", "label", "found"),
        *_required(_DOUBLE, "value"),
        *_nullable(_DOUBLE, "low", "high"),
        *_required(_INTEGER, "count"),
        sa.PrimaryKeyConstraint(
            "evaluation_id", "metric", "label", "found", name="pk_evaluation_measures"
        ),
        _reference("evaluation_measures", "evaluation_id", "evaluations"),
    )


def _create_judgments() -> None:
    op.create_table(
        "judgments",
        *_required(_UUID, "id"),
        *_nullable(_UUID, "job_id", "evaluation_id"),
        *_required(_UUID, "document_id", "result_id"),
        *_required(_TEXT, "options_hash", "analysis_type", "provider", "model", "prompt_version"),
        *_required(_TEXT, "judged_by", "part", "path"),
        *_nullable(_DOUBLE, "confidence"),
        *_required(_BOOLEAN, "is_right"),
        *_nullable(_JSON, "expected", "found"),
        _clock_time("judged_at"),
        sa.PrimaryKeyConstraint("id", name="pk_judgments"),
        _reference("judgments", "job_id", "jobs"),
        _reference("judgments", "evaluation_id", "evaluations"),
        sa.UniqueConstraint(
            *("result_id", "judged_by", "part", "path"),
            name="uq_judgments_result_id_judged_by_part_path",
        ),
    )


def _create_calibrations() -> None:
    op.create_table(
        "calibrations",
        *_required(_UUID, "id"),
        *_required(_TEXT, "analysis_type", "provider", "model", "part", "method"),
        *_required(_JSON, "points"),
        *_required(_INTEGER, "judged", "judged_right"),
        *_required(_DOUBLE, "error_before", "error_after", "max_error_rate"),
        *_nullable(_DOUBLE, "accept_from", "accepted_share"),
        _clock_time("learnt_at"),
        sa.PrimaryKeyConstraint("id", name="pk_calibrations"),
    )
