"""The tables of the first migration.

The columns of a table are in the order of the class that maps it.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

_BIGINT, _BOOLEAN, _BYTES, _DATE = sa.BigInteger(), sa.Boolean(), sa.LargeBinary(), sa.Date()
_DOUBLE, _INTEGER, _JSON, _TEXT, _UUID = sa.Double(), sa.Integer(), JSONB(), sa.Text(), sa.Uuid()
_TEXTS = ARRAY(sa.Text())
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


def _references(table: str, **others: str) -> list[sa.ForeignKeyConstraint]:
    return [
        sa.ForeignKeyConstraint([column], [f"{other}.id"], name=f"fk_{table}_{column}")
        for column, other in others.items()
    ]


def _transaction_time(name: str) -> sa.Column[object]:
    return _default(_TIME, name, sa.text("now()"))


def _clock_time(name: str) -> sa.Column[object]:
    return _default(_TIME, name, sa.text("clock_timestamp()"))


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
        *_nullable(_JSON, "missing_rows", "row_counts", "failed_checks", "contradictions"),
        *_required(_TEXT, "provider", "model", "prompt_version"),
        *_required(_BOOLEAN, "language_model"),
        *_nullable(_TEXT, "review_reason"),
        *_nullable(_JSON, "doubts"),
    ]


# In the order of their dependencies. The primary key is `id` unless there is another one.
TABLES: dict[str, list[sa.schema.SchemaItem]] = {
    "schema_versions": [
        *_required(_TEXT, "revision", "works_from"),
        _transaction_time("applied_at"),
        sa.PrimaryKeyConstraint("revision", name="pk_schema_versions"),
    ],
    "outbox": [
        *_required(_UUID, "id"),
        *_required(_TEXT, "task", "reason"),
        *_required(sa.SmallInteger(), "urgency"),
        *_required(_INTEGER, "sends"),
        _transaction_time("created_at"),
        _transaction_time("due_at"),
    ],
    "incidents": [
        *_required(_TEXT, "kind", "reason"),
        *_required(_BIGINT, "count"),
        _transaction_time("first_at"),
        _clock_time("last_at"),
        sa.PrimaryKeyConstraint("kind", "reason", name="pk_incidents"),
    ],
    "prompt_versions": [
        *_required(_TEXT, "version", "sha256", "system", "user"),
        _transaction_time("created_at"),
        sa.PrimaryKeyConstraint("version", name="pk_prompt_versions"),
    ],
    "cached_completions": [
        *_required(_TEXT, "key"),
        *_required(_JSON, "completion"),
        _clock_time("created_at"),
        sa.PrimaryKeyConstraint("key", name="pk_cached_completions"),
    ],
    "api_tokens": [
        *_required(_TEXT, "name", "token_hash", "scopes"),
        _transaction_time("created_at"),
        sa.PrimaryKeyConstraint("name", name="pk_api_tokens"),
        sa.UniqueConstraint("token_hash", name="uq_api_tokens_token_hash"),
    ],
    "closed_profiles": [
        *_required(_TEXT, "profile"),
        *_required(_TEXTS, "readers"),
        sa.PrimaryKeyConstraint("profile", name="pk_closed_profiles"),
    ],
    "reader_keys": [
        *_required(_TEXT, "name", "key"),
        sa.PrimaryKeyConstraint("name", name="pk_reader_keys"),
        sa.UniqueConstraint("key", name="uq_reader_keys_key"),
    ],
    "reader_logins": [
        *_required(_TEXT, "role", "name"),
        sa.PrimaryKeyConstraint("role", name="pk_reader_logins"),
    ],
    "audit_events": [
        *_required(_UUID, "id"),
        _clock_time("occurred_at"),
        *_required(_TEXT, "actor", "action", "subject"),
    ],
    "schedules": [
        *_required(_UUID, "id"),
        *_required(_TEXT, "name", "origin"),
        _default(_BOOLEAN, "enabled", sa.text("true")),
        *_required(_TEXT, "cron", "time_zone", "run", "folder", "catch_up"),
        *_required(_DOUBLE, "expires_after_hours"),
        *_nullable(_TIME, "next_due_at"),
        _transaction_time("created_at"),
        _transaction_time("changed_at"),
        sa.UniqueConstraint("name", name="uq_schedules_name"),
    ],
    "schedule_runs": [
        *_required(_UUID, "id", "schedule_id"),
        *_required(_TEXT, "schedule", "run"),
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
        *_references("schedule_runs", schedule_id="schedules"),
        sa.UniqueConstraint("schedule_id", "due_at", name="uq_schedule_runs_schedule_id_due_at"),
    ],
    "runs": [
        *_required(_UUID, "id"),
        *_required(_TEXT, "name", "status"),
        *_required(sa.JSON(), "options"),
        *_required(_INTEGER, "type_count"),
        _default(_TEXT, "priority", "interactive"),
        _default(_TEXT, "lane", "online"),
        _default(_BOOLEAN, "use_cache", sa.text("true")),
        *_nullable(_TEXT, "saved_as", "request_key", "request_hash"),
        *_nullable(_INTEGER, "found_count"),
        *_nullable(_UUID, "schedule_run_id"),
        _transaction_time("created_at"),
        *_nullable(_TIME, "intake_finished_at"),
        *_nullable(_UUID, "lease_token"),
        *_nullable(_TIME, "lease_until", "finished_at"),
        *_references("runs", schedule_run_id="schedule_runs"),
        sa.UniqueConstraint("name", name="uq_runs_name"),
        sa.UniqueConstraint("request_key", name="uq_runs_request_key"),
    ],
    "documents": [
        *_required(_UUID, "id"),
        *_required(_TEXT, "sha256", "source", "media_type"),
        *_nullable(_TEXT, "title", "transcribed_by"),
        *_required(_TEXT, "text"),
        *_required(_INTEGER, "character_count"),
        *_required(_JSON, "normalization"),
        *_nullable(_JSON, "flags", "places"),
        *_nullable(sa.ARRAY(_BYTES), "layouts"),
        _transaction_time("created_at"),
        sa.UniqueConstraint("sha256", name="uq_documents_sha256"),
    ],
    "learned_examples": [
        *_required(_UUID, "id", "document_id"),
        *_required(_TEXT, "analysis_type"),
        *_required(_INTEGER, "version"),
        *_required(sa.ARRAY(_UUID), "feedback_ids"),
        *_required(_TEXT, "text"),
        *_required(_JSON, "answer"),
        _transaction_time("created_at"),
        *_references("learned_examples", document_id="documents"),
    ],
    "intakes": [
        *_required(_UUID, "id", "run_id"),
        *_required(_TEXT, "source"),
        *_nullable(_TEXT, "sha256"),
        *_nullable(_BIGINT, "byte_count"),
        *_required(_TEXT, "outcome"),
        *_nullable(_TEXT, "reason", "message", "hint"),
        *_nullable(_UUID, "document_id"),
        *_nullable(_BYTES, "raw_path"),
        _transaction_time("created_at"),
        *_references("intakes", run_id="runs", document_id="documents"),
    ],
    "jobs": [
        *_required(_UUID, "id", "run_id", "intake_id", "document_id"),
        *_required(_TEXT, "analysis_type"),
        *_required(sa.JSON(), "options"),
        *_required(_TEXT, "options_hash"),
        *_nullable(_JSON, "examples"),
        *_required(_TEXT, "model", "status"),
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
        *_references(
            "jobs", run_id="runs", intake_id="intakes", document_id="documents", reused_from="jobs"
        ),
    ],
    "listed_files": [
        *_required(_UUID, "id", "run_id"),
        *_required(_INTEGER, "position"),
        *_required(_TEXT, "source"),
        *_nullable(_BYTES, "raw_path"),
        *_required(_BOOLEAN, "follow_symlinks"),
        *_nullable(_BIGINT, "byte_count", "modified_ns"),
        *_nullable(_UUID, "job_id"),
        _default(_INTEGER, "documents_taken", "0"),
        _default(_TEXT, "status", "listed"),
        _default(_INTEGER, "attempts", "0"),
        *_nullable(_UUID, "lease_token"),
        *_nullable(_TIME, "lease_until"),
        *_references("listed_files", id="intakes", run_id="runs"),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_listed_files_job_id", ondelete="SET NULL"
        ),
    ],
    "inbox_files": [
        *_required(_UUID, "id"),
        *_required(_TEXT, "folder", "name"),
        *_required(_BYTES, "raw_name"),
        *_required(_BIGINT, "byte_count", "modified_ns"),
        *_required(_TEXT, "profile", "status"),
        *_nullable(_TEXT, "sha256"),
        *_nullable(_UUID, "run_id"),
        _default(_INTEGER, "attempts", "0"),
        *_nullable(_UUID, "lease_token"),
        *_nullable(_TIME, "lease_until"),
        *_nullable(_TEXT, "reason", "message", "hint", "delivered_path"),
        *_nullable(_BYTES, "raw_destination"),
        _transaction_time("created_at"),
        *_nullable(_TIME, "submitted_at", "delivered_at"),
        *_references("inbox_files", run_id="runs"),
    ],
    "inbox_intakes": [
        *_required(_UUID, "intake_id", "inbox_file_id"),
        *_required(_INTEGER, "position"),
        sa.PrimaryKeyConstraint("intake_id", name="pk_inbox_intakes"),
        *_references("inbox_intakes", intake_id="intakes", inbox_file_id="inbox_files"),
    ],
    "chunks": [
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
        *_nullable(_TIME, "started_at", "finished_at"),
        *_references("chunks", job_id="jobs"),
        sa.UniqueConstraint("job_id", "position", name="uq_chunks_job_id_position"),
    ],
    "model_calls": [
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
        *_nullable(_JSON, "examples"),
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
        *_nullable(_USD, "reserved_usd", "charged_usd"),
        *_nullable(_TIME, "expires_at"),
        *_nullable(_TEXT, "question"),
        *_references("model_calls", run_id="runs", job_id="jobs", chunk_id="chunks"),
    ],
    "results": [
        *_required(_UUID, "id", "job_id", "document_id"),
        *_nullable(_TEXT, "verdict"),
        _default(_BOOLEAN, "accepted", sa.text("false")),
        _transaction_time("created_at"),
        *_columns_of_an_answer(),
        *_references("results", job_id="jobs", document_id="documents"),
        sa.UniqueConstraint("job_id", name="uq_results_job_id"),
    ],
    "result_history": [
        *_required(_UUID, "id", "job_id", "document_id"),
        *_required(_TIME, "created_at"),
        _transaction_time("replaced_at"),
        *_columns_of_an_answer(),
        *_references("result_history", job_id="jobs", document_id="documents"),
    ],
    "facts": [
        *_required(_UUID, "id", "job_id"),
        *_required(_TEXT, "path", "item"),
        *_nullable(_TEXT, "parent"),
        *_nullable(_INTEGER, "row_index"),
        _default(_INTEGER, "mentions", "1"),
        *_nullable(_TEXT, "value", "corrected_value", "verdict"),
        sa.Column("final_value", _TEXT, _FINAL_VALUE, nullable=True),
        *_nullable(sa.Numeric(), "number"),
        *_nullable(_TEXT, "currency", "unit"),
        *_nullable(_BIGINT, "scale"),
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
        *_nullable(_TEXTS, "doubts"),
        _default(_BOOLEAN, "accepted", sa.text("false")),
        *_references("facts", job_id="jobs"),
    ],
    "answer_tables": [
        *_required(_TEXT, "name", "analysis_type"),
        *_required(_JSON, "columns"),
        _default(_TEXT, "family", sa.text("''")),
        _transaction_time("created_at"),
        _clock_time("changed_at"),
        sa.PrimaryKeyConstraint("name", name="pk_answer_tables"),
    ],
    "budgets": [
        *_required(_TEXT, "scope"),
        *_nullable(_UUID, "run_id"),
        *_nullable(_USD, "cap_usd"),
        _default(_USD, "spent_usd", "0"),
        _default(_USD, "reserved_usd", "0"),
        sa.PrimaryKeyConstraint("scope", name="pk_budgets"),
        *_references("budgets", run_id="runs"),
    ],
    "batches": [
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
    ],
    "batch_requests": [
        *_required(_UUID, "id", "job_id"),
        *_nullable(_UUID, "chunk_id"),
        *_required(_UUID, "owner_id"),
        *_required(_TEXT, "key", "status", "model_name", "body"),
        *_required(_BIGINT, "body_bytes"),
        *_required(_JSON, "call"),
        *_required(_BOOLEAN, "is_compared"),
        _default(_BOOLEAN, "leads", sa.text("false")),
        *_nullable(_USD, "reserved_usd", "charged_usd"),
        *_nullable(_DATE, "reserved_on"),
        *_nullable(_TIME, "expires_at"),
        *_nullable(_UUID, "batch_id", "call_id"),
        *_required(_INTEGER, "attempts"),
        *_nullable(_TIME, "due_at"),
        *_nullable(_JSON, "answer"),
        *_nullable(_TEXT, "error_code", "error_message", "hint"),
        _clock_time("created_at"),
        *_nullable(_TIME, "finished_at"),
        *_references(
            "batch_requests",
            job_id="jobs",
            chunk_id="chunks",
            batch_id="batches",
            call_id="model_calls",
        ),
        sa.UniqueConstraint("owner_id", "key", name="uq_batch_requests_owner_id_key"),
    ],
    "deliveries": [
        *_required(_UUID, "id"),
        *_nullable(_UUID, "run_id"),
        *_required(_TEXT, "kind", "event", "status"),
        *_required(_INTEGER, "attempts"),
        _clock_time("due_at"),
        *_nullable(_JSON, "content"),
        *_nullable(_TEXT, "last_error"),
        _transaction_time("created_at"),
        *_nullable(_TIME, "finished_at"),
        *_references("deliveries", run_id="runs"),
    ],
    "feedback": [
        *_required(_UUID, "id", "job_id", "document_id", "result_id"),
        *_nullable(_UUID, "withdraws"),
        *_required(_TEXT, "analysis_type", "path", "verdict"),
        *_nullable(_TEXT, "field", "note", "author", "quote"),
        *_nullable(_INTEGER, "start_char", "end_char"),
        *_required(_JSON, "question"),
        *_nullable(_JSON, "judged", "corrected"),
        *_nullable(_DOUBLE, "confidence"),
        _clock_time("created_at"),
        *_references("feedback", job_id="jobs", document_id="documents", withdraws="feedback"),
    ],
    "entity_values": [
        *_required(_TEXT, "column_name", "value"),
        *_required(_UUID, "id", "entity_id"),
        *_required(_TEXT, "joins", "joined_by", "entity"),
        *_nullable(_JSON, "doubts"),
        sa.PrimaryKeyConstraint("column_name", "value", name="pk_entity_values"),
    ],
    "entity_decisions": [
        *_required(_UUID, "id"),
        *_required(_TEXT, "column_name", "action"),
        *_required(_TEXTS, "names"),
        *_nullable(_TEXT, "author"),
        *_nullable(_UUID, "withdraws"),
        _clock_time("created_at"),
        *_references("entity_decisions", withdraws="entity_decisions"),
    ],
    "evaluations": [
        *_required(_UUID, "id"),
        *_nullable(_UUID, "run_id"),
        *_nullable(_TEXT, "run", "profile"),
        *_required(_TEXT, "analysis_type"),
        *_required(_BOOLEAN, "is_whole"),
        _default(_BOOLEAN, "is_held_out", sa.text("false")),
        *_nullable(_TEXT, "provider", "model", "prompt_version", "gold_file", "gold_sha256"),
        *_required(_INTEGER, "judged", "unjudged", "missing"),
        _clock_time("evaluated_at"),
        *_references("evaluations", run_id="runs"),
    ],
    "evaluation_measures": [
        *_required(_UUID, "evaluation_id"),
        *_required(_TEXT, "metric", "label", "found"),
        *_required(_DOUBLE, "value"),
        *_nullable(_DOUBLE, "low", "high"),
        *_required(_INTEGER, "count"),
        sa.PrimaryKeyConstraint(
            "evaluation_id", "metric", "label", "found", name="pk_evaluation_measures"
        ),
        *_references("evaluation_measures", evaluation_id="evaluations"),
    ],
    "judgments": [
        *_required(_UUID, "id"),
        *_nullable(_UUID, "job_id", "evaluation_id"),
        *_required(_UUID, "document_id", "result_id"),
        *_required(_TEXT, "options_hash", "analysis_type", "provider", "model", "prompt_version"),
        *_required(_TEXT, "judged_by", "part", "path"),
        *_nullable(_DOUBLE, "confidence"),
        *_required(_BOOLEAN, "is_right"),
        *_nullable(_JSON, "expected", "found"),
        _clock_time("judged_at"),
        *_references("judgments", job_id="jobs", evaluation_id="evaluations"),
        sa.UniqueConstraint(
            *("result_id", "judged_by", "part", "path"),
            name="uq_judgments_result_id_judged_by_part_path",
        ),
    ],
    "calibrations": [
        *_required(_UUID, "id"),
        *_required(_TEXT, "analysis_type", "provider", "model", "part", "method"),
        *_required(_JSON, "points"),
        *_required(_INTEGER, "judged", "judged_right"),
        *_required(_DOUBLE, "error_before", "error_after", "max_error_rate"),
        *_nullable(_DOUBLE, "accept_from", "accepted_share"),
        _clock_time("learnt_at"),
    ],
    "certifications": [
        *_required(_UUID, "id"),
        *_nullable(_UUID, "run_id"),
        *_required(_TEXT, "run", "profile", "analysis_type", "name", "question", "seed", "verdict"),
        *_required(_DOUBLE, "max_error", "risk", "error_bound", "must_review"),
        *_required(_INTEGER, "population", "accepted", "acceptable", "checks", "wrong"),
        *_required(_INTEGER, "expected_checks", "expected_free"),
        *_nullable(_DOUBLE, "accept_from", "check_from"),
        *_nullable(_INTEGER, "more_checks"),
        *_required(_JSON, "to_check"),
        _clock_time("certified_at"),
        *_references("certifications", run_id="runs"),
    ],
    "erasures": [
        *_required(_UUID, "id", "document_id"),
        *_required(_TEXT, "sha256", "selected_by", "requested_by"),
        *_required(_JSON, "removed", "remaining"),
        *_required(_INTEGER, "copies_kept"),
        *_nullable(_JSON, "shared_with"),
        *_nullable(_INTEGER, "passages"),
        _clock_time("erased_at"),
        *_nullable(_TIME, "verified_at"),
        sa.PrimaryKeyConstraint("id", name="pk_erasures"),
    ],
    "experiments": [
        *_required(_UUID, "id"),
        *_required(_TEXT, "name", "profile", "outcome"),
        *_required(sa.JSON(), "control"),
        *_nullable(_UUID, "run_id"),
        *_required(_DOUBLE, "share", "paired", "risk", "max_invalid", "max_cost", "max_latency"),
        *_nullable(_TEXT, "promoted"),
        *_nullable(_JSON, "conclusion"),
        _transaction_time("created_at"),
        *_nullable(_TIME, "checked_at", "concluded_at"),
        sa.UniqueConstraint("name", name="uq_experiments_name"),
        *_references("experiments", run_id="runs"),
    ],
    "experiment_variants": [
        *_required(_UUID, "experiment_id"),
        *_required(_TEXT, "name"),
        *_required(_INTEGER, "position"),
        *_required(_JSON, "changes"),
        *_required(sa.JSON(), "options"),
        *_nullable(_TIME, "stopped_at"),
        *_nullable(_TEXT, "stopped_because"),
        sa.PrimaryKeyConstraint("experiment_id", "name", name="pk_experiment_variants"),
        *_references("experiment_variants", experiment_id="experiments"),
    ],
    "experiment_documents": [
        *_required(_UUID, "intake_id", "experiment_id", "document_id"),
        *_required(_TEXT, "variant"),
        *_required(_BOOLEAN, "paired"),
        sa.PrimaryKeyConstraint("intake_id", name="pk_experiment_documents"),
        *_references(
            "experiment_documents",
            intake_id="intakes",
            experiment_id="experiments",
            document_id="documents",
        ),
    ],
}


def create() -> None:
    """Create all tables, without their indexes."""
    for name, items in TABLES.items():
        has_key = any(isinstance(item, sa.PrimaryKeyConstraint) for item in items)
        key = [] if has_key else [sa.PrimaryKeyConstraint("id", name=f"pk_{name}")]
        op.create_table(name, *items, *key)
