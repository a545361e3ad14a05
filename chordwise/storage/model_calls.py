"""The ledger: one row for each request to a model, written before the request is sent."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Date,
    ForeignKey,
    Index,
    func,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.analysis_tasks import AnalysisType, Stage
from chordwise.domain.json_values import JsonValue
from chordwise.storage.database import Store
from chordwise.storage.record import CreatedAt, Identity, Record, block_range_index, rows_as_json
from chordwise.storage.sql_text import day_of


class ModelCall(Record):
    """One request. `finished_at` is null while it runs, and stays null if its worker was killed.

    `run` is the name of the run, which is kept when its jobs are pruned. A call that reads a page
    has no job, but the `source` of the document and `run_id`. `cost_basis` says how the cost is
    known: `free`, `settings`, `price_list`, `reported` by the server, or `not_billed`. `valid` and
    `quality` are set once the answer is checked. `reference_cost_usd` is the cost at the largest
    tier; one answered request of each routed question has it. `sample` counts the repetitions of a
    vote from 1.
    """

    __tablename__ = "model_calls"
    __table_args__ = (
        Index("ix_model_calls_run_id", "run_id", postgresql_where="run_id IS NOT NULL"),
        block_range_index("ix_model_calls_day", text(day_of("started_at"))),
    )

    id: Mapped[Identity]
    run: Mapped[str | None]
    source: Mapped[str | None]
    run_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("runs.id"))
    job_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    chunk_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("chunks.id"), index=True)
    stage: Mapped[str]
    provider: Mapped[str]
    model: Mapped[str]
    language_model: Mapped[bool]
    prompt_version: Mapped[str]
    tier: Mapped[str | None]
    escalated: Mapped[bool | None]
    service_tier: Mapped[str | None]
    attempt: Mapped[int]
    sample: Mapped[int] = mapped_column(server_default="1")
    examples: Mapped[JsonValue | None]
    started_at: Mapped[CreatedAt]
    finished_at: Mapped[datetime | None]
    latency_ms: Mapped[int | None] = mapped_column(BigInteger)
    input_tokens: Mapped[int | None] = mapped_column(BigInteger)
    output_tokens: Mapped[int | None] = mapped_column(BigInteger)
    cached_input_tokens: Mapped[int | None] = mapped_column(BigInteger)
    cache_write_tokens: Mapped[int | None] = mapped_column(BigInteger)
    cost_usd: Mapped[Decimal | None]
    cost_basis: Mapped[str | None]
    reference_cost_usd: Mapped[Decimal | None]
    response_length: Mapped[int | None] = mapped_column(BigInteger)
    response_id: Mapped[str | None]
    finish_reason: Mapped[str | None]
    refused: Mapped[bool | None]
    valid: Mapped[bool | None]
    quality: Mapped[float | None]
    cache_hit: Mapped[bool] = mapped_column(default=False)
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]


_BEGUN = (
    *("id", "source", "run_id", "job_id", "chunk_id", "stage", "provider", "model"),
    *("language_model", "prompt_version", "tier", "escalated", "attempt", "sample", "examples"),
    "cache_hit",
)
_ENDED = (
    *("latency_ms", "input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens"),
    *("cost_usd", "cost_basis", "reference_cost_usd", "response_length", "response_id"),
    *("service_tier", "finish_reason", "refused", "error_code", "error_message"),
)
_CHECKED = ("valid", "quality")
_RUN = """(SELECT r.name FROM runs r WHERE r.id =
    coalesce(new.run_id, (SELECT j.run_id FROM jobs j WHERE j.id = new.job_id)))"""
# Leased jobs, then leased chunks, are locked, so that no lease is taken over before the commit.
_BEGIN = text(f"""
    WITH new AS MATERIALIZED (
        SELECT call.*, wanted.token
        FROM json_populate_recordset(NULL::model_calls, CAST(:rows AS json)) AS call
        LEFT JOIN unnest(CAST(:ids AS uuid[]), CAST(:tokens AS uuid[])) AS wanted (id, token)
            ON wanted.id = call.id
    ), syntheses AS MATERIALIZED (
        SELECT j.lease_token AS token FROM jobs j JOIN runs r ON r.id = j.run_id
        WHERE j.id = ANY(CAST(:jobs AS uuid[]))
            AND j.status = 'synthesizing' AND r.status <> 'cancelled'
        ORDER BY j.id FOR SHARE OF j
    ), analyses AS MATERIALIZED (
        SELECT c.lease_token AS token
        FROM chunks c JOIN jobs j ON j.id = c.job_id JOIN runs r ON r.id = j.run_id
        WHERE c.id = ANY(CAST(:chunks AS uuid[]))
            AND c.status = 'running' AND r.status <> 'cancelled'
        ORDER BY c.id FOR SHARE OF c
    ), held AS (
        SELECT token FROM syntheses UNION ALL SELECT token FROM analyses
    ), begun AS (
        INSERT INTO model_calls ({", ".join(_BEGUN)}, run, started_at)
        SELECT {", ".join(_BEGUN)}, {_RUN}, clock_timestamp() FROM new
        WHERE token IS NULL OR token IN (SELECT token FROM held)
        ON CONFLICT DO NOTHING
    )
    SELECT token FROM held""")  # noqa: S608 - fixed names
# The end is written shortly after the call ended; the call began when its row was committed.
_END = text(f"""
    UPDATE model_calls SET {", ".join(f"{name} = new.{name}" for name in (*_ENDED, *_CHECKED))},
        finished_at = least(clock_timestamp(),
            model_calls.started_at + new.latency_ms * interval '1 millisecond')
    FROM json_populate_recordset(NULL::model_calls, CAST(:rows AS json)) AS new
    WHERE model_calls.id = new.id""")  # noqa: S608 - fixed names
_CHECK = text("""
    UPDATE model_calls SET valid = new.valid, quality = new.quality
    FROM json_populate_recordset(NULL::model_calls, CAST(:rows AS json)) AS new
    WHERE model_calls.id = new.id""")

_DELETE = text(
    "DELETE FROM model_calls WHERE id = ANY(CAST(:ids AS uuid[])) AND finished_at IS NULL"
)
_NAME_RUNS = text("""
    UPDATE model_calls SET run = r.name FROM jobs AS j INNER JOIN runs AS r ON r.id = j.run_id
    WHERE j.id = model_calls.job_id AND model_calls.id = ANY(:ids)""")


def day_of_call() -> ColumnElement[date]:
    """Return the UTC day on which a call began, by the expression of the index on days."""
    return literal_column(day_of("model_calls.started_at"), Date())


def begin_all(
    store: Store,
    rows: Sequence[Mapping[str, object]],
    tokens: Mapping[str, uuid.UUID] | None = None,
) -> set[uuid.UUID]:
    """Insert calls that are about to be made, each once; return the tokens that are held.

    `tokens` maps ids of calls to the tokens of their leases. Such a call is inserted only while its
    lease is held and the run is not cancelled.
    """
    if not rows:
        return set()
    of_leases = [row for row in rows if row["id"] in tokens] if tokens else []
    parameters = {
        "rows": rows_as_json(rows),
        "ids": [row["id"] for row in of_leases],
        "tokens": list((tokens or {}).values()),
        "jobs": [row["job_id"] for row in of_leases if not row["chunk_id"]],
        "chunks": [row["chunk_id"] for row in of_leases if row["chunk_id"]],
    }
    return {row[0] for row in store.execute(_BEGIN, parameters)}


def end_all(store: Store, rows: Sequence[Mapping[str, object]]) -> None:
    """Record the ends of calls, and the checks of their answers."""
    if rows:
        store.execute(_END, {"rows": rows_as_json(rows)})


def check_all(store: Store, rows: Sequence[Mapping[str, object]]) -> None:
    """Record the checks of the answers to calls whose ends are already stored."""
    if rows:
        store.execute(_CHECK, {"rows": rows_as_json(rows)})


def delete_all(store: Store, call_ids: Sequence[uuid.UUID]) -> None:
    """Delete the unfinished rows of calls that were not made."""
    if call_ids:
        store.execute(_DELETE, {"ids": list(call_ids)})


def add_all(session: Session, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert completed calls in few statements, whatever their number."""
    if rows:
        session.execute(insert(ModelCall), rows)
        session.execute(_NAME_RUNS, {"ids": [row["id"] for row in rows]})


def change(session: Session, call_id: uuid.UUID, **values: object) -> None:
    """Update columns of a call."""
    session.execute(update(ModelCall).where(ModelCall.id == call_id).values(**values))


_NEWEST = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CallHistory:
    """The output tokens of one kind of question to one model, and the number of repetitions."""

    output_tokens: Sequence[int] = ()
    questions: int = 0
    repeated: int = 0


def read(
    session: Session, analysis_type: AnalysisType, stage: Stage, provider: str, model: str
) -> CallHistory:
    """Return the history of the newest answers to such questions."""
    version = ModelCall.prompt_version
    template = func.split_part(version, "@", 1, type_=version.type)  # without its version number
    kind = (
        template.in_((f"{analysis_type}.{stage}", f"{analysis_type}.schema.{stage}")),
        ModelCall.provider == provider,
        ModelCall.model == model,
        ModelCall.output_tokens.is_not(None),
        ~ModelCall.cache_hit,
        ModelCall.error_code.is_(None),
    )
    newest = (
        select(ModelCall.stage, ModelCall.output_tokens)
        .where(*kind)
        .order_by(ModelCall.id.desc())
        .limit(_NEWEST)
    )
    rows = session.execute(newest).all()
    first = [row.output_tokens for row in rows if row.stage == stage]
    repeated = sum(row.stage == Stage.REPAIR for row in rows)
    return CallHistory(output_tokens=first, questions=len(first), repeated=repeated)
