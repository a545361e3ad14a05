"""The ledger: one row for each request to a model, written before the request is sent."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Date,
    ForeignKey,
    Index,
    Result,
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
from chordwise.errors import AlreadyAskedError, ChordwiseError, LeaseLostError
from chordwise.storage.database import Store
from chordwise.storage.record import CreatedAt, Identity, Record, block_range_index, rows_as_json
from chordwise.storage.sql_text import day_of

_HAS_QUESTION = "question IS NOT NULL"


class ModelCall(Record):
    """One request. `finished_at` is null while it runs, and stays null if its worker was killed.

    `question` is the key of a call in flight and of an answer in the cache: another call for it
    begins only after `expires_at`, or once the answer is gone. A call of a forgotten document has a
    `run_id`, but neither a job nor a `source`.
    """

    __tablename__ = "model_calls"
    __table_args__ = (
        Index("ix_model_calls_reserved", "expires_at", postgresql_where="reserved_usd IS NOT NULL"),
        Index("ix_model_calls_run_id", "run_id", postgresql_where="run_id IS NOT NULL"),
        Index("ux_model_calls_question", "question", unique=True, postgresql_where=_HAS_QUESTION),
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
    reserved_usd: Mapped[Decimal | None]
    charged_usd: Mapped[Decimal | None]
    expires_at: Mapped[datetime | None]
    question: Mapped[str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """What a call adds to the accounts of its run and its UTC day; a sample has no run."""

    run_id: uuid.UUID | None
    day: date
    spent_usd: Decimal = Decimal(0)
    reserved_usd: Decimal = Decimal(0)


def owner_of(call: str) -> str:
    """Return the SQL for the chunk, job or run of a call, which does not wait for its own calls."""
    return f"coalesce({call}.chunk_id, {call}.job_id, {call}.run_id)"


def amounts_of(table: str, run_id: str, day: str) -> str:
    """Return the SQL for the amounts in the accounts of the calls `:ids`, whose rows are locked."""
    return f"""
        SELECT c.id, c.reserved_usd, c.charged_usd, {run_id} AS run_id, {day} AS day
        FROM {table} c LEFT JOIN jobs j ON j.id = c.job_id
        WHERE c.id = ANY(CAST(:ids AS uuid[]))
            AND coalesce(c.reserved_usd, c.charged_usd) IS NOT NULL
        ORDER BY c.id FOR NO KEY UPDATE OF c"""


AMOUNTS = amounts_of("model_calls", "coalesce(c.run_id, j.run_id)", day_of("c.started_at"))
"""The SQL for the amounts of calls of the ledger."""
CHARGES = """
    SELECT amount.run_id, amount.day,
        coalesce(new.charged_usd, amount.reserved_usd, amount.charged_usd)
            - coalesce(amount.charged_usd, 0) AS spent_usd,
        -coalesce(amount.reserved_usd, 0) AS reserved_usd
    FROM amount JOIN new USING (id)"""
"""The SQL for the bookings of calls that end.

An unknown cost is the reserved amount; a later end replaces an earlier one.
"""


def charging(table: str) -> str:
    """Return the SQL of the columns that end a reservation."""
    return f"""reserved_usd = NULL, charged_usd = CASE
        WHEN coalesce({table}.reserved_usd, {table}.charged_usd) IS NOT NULL
        THEN coalesce(new.charged_usd, {table}.reserved_usd, {table}.charged_usd) END"""


_BEGUN = (
    *("id", "source", "run_id", "job_id", "chunk_id", "stage", "provider", "model"),
    *("language_model", "prompt_version", "tier", "escalated", "attempt", "sample", "examples"),
    *("cache_hit", "reserved_usd", "question"),
)
_ENDED = (
    *("latency_ms", "input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens"),
    *("cost_usd", "cost_basis", "reference_cost_usd", "response_length", "response_id"),
    *("service_tier", "finish_reason", "refused", "error_code"),
)
_CHECKED = ("valid", "quality")
_RUN = """(SELECT r.name FROM runs r WHERE r.id =
    coalesce(new.run_id, (SELECT j.run_id FROM jobs j WHERE j.id = new.job_id)))"""
_IS_HELD = "(token IS NULL OR token IN (SELECT token FROM held))"
# Leased jobs, then leased chunks, are locked, so that no lease is taken over before the commit.
_BEGIN = text(f"""
    WITH new AS MATERIALIZED (
        SELECT call.*, lease.token, lease.seconds
        FROM json_populate_recordset(NULL::model_calls, CAST(:rows AS json)) AS call
        JOIN unnest(CAST(:ids AS uuid[]), CAST(:tokens AS uuid[]), CAST(:seconds AS float8[]))
            AS lease (id, token, seconds) ON lease.id = call.id
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
    ), free AS MATERIALIZED (
        SELECT old.id FROM new JOIN model_calls old ON old.question = new.question
        WHERE old.question = ANY(CAST(:questions AS text[])) AND old.{_HAS_QUESTION}
            AND old.id <> new.id AND CASE WHEN old.finished_at IS NULL
                THEN old.expires_at < clock_timestamp() OR {owner_of("old")} = {owner_of("new")}
                ELSE NOT EXISTS (SELECT FROM cached_completions c WHERE c.key = old.question) END
        FOR NO KEY UPDATE OF old SKIP LOCKED
    ), freed AS (
        UPDATE model_calls SET question = NULL FROM free WHERE model_calls.id = free.id
        RETURNING free.id
    ), begun AS (
        INSERT INTO model_calls ({", ".join(_BEGUN)}, run, started_at, expires_at)
        SELECT {", ".join(_BEGUN)}, {_RUN}, clock_timestamp(),
            clock_timestamp() + seconds * interval '1 second'
        FROM new WHERE {_IS_HELD} AND (SELECT count(*) >= 0 FROM freed)
        ORDER BY question
        ON CONFLICT DO NOTHING
        RETURNING id, run_id, job_id, reserved_usd, {day_of("started_at")} AS day
    )
    SELECT new.id, begun.id IS NOT NULL AS is_new, begun.day, begun.reserved_usd,
        coalesce(begun.run_id, j.run_id) AS run_id
    FROM new LEFT JOIN begun ON begun.id = new.id LEFT JOIN jobs j ON j.id = begun.job_id
    WHERE {_IS_HELD}""")
# The end is written shortly after the call ended; the call began when its row was committed. If its
# document is forgotten meanwhile, its text is not stored: no answer, and no message of an error.
_END = text(f"""
    WITH new AS MATERIALIZED (
        SELECT * FROM json_populate_recordset(NULL::model_calls, CAST(:rows AS json))
    ), amount AS MATERIALIZED ({AMOUNTS}
    ), ended AS (
        UPDATE model_calls SET {", ".join(f"{name} = new.{name}" for name in (*_ENDED, *_CHECKED))},
            error_message = CASE WHEN model_calls.run_id IS NULL OR model_calls.job_id IS NOT NULL
                OR model_calls.source IS NOT NULL THEN new.error_message END,
            {charging("model_calls")},
            question = CASE WHEN new.question IS NOT NULL THEN model_calls.question END,
            finished_at = least(clock_timestamp(),
                model_calls.started_at + new.latency_ms * interval '1 millisecond')
        FROM new WHERE model_calls.id = new.id AND (SELECT count(*) >= 0 FROM amount)
        RETURNING model_calls.id, model_calls.question
    ), answered AS (
        INSERT INTO cached_completions (key, completion) SELECT c.question, answer.completion
        FROM json_to_recordset(CAST(:answers AS json)) AS answer (id uuid, completion jsonb)
        JOIN ended c ON c.id = answer.id WHERE c.{_HAS_QUESTION} ORDER BY c.question
        ON CONFLICT (key) DO UPDATE
        SET completion = excluded.completion, created_at = clock_timestamp()
    )
    {CHARGES}""")
_STORED = text("SELECT id FROM model_calls WHERE id = ANY(CAST(:ids AS uuid[]))")
_CHECK = text("""
    UPDATE model_calls SET valid = new.valid, quality = new.quality
    FROM json_populate_recordset(NULL::model_calls, CAST(:rows AS json)) AS new
    WHERE model_calls.id = new.id""")

_DELETE = text(f"""
    WITH deleted AS (
        DELETE FROM model_calls
        WHERE id = ANY(CAST(:ids AS uuid[])) AND finished_at IS NULL RETURNING *
    )
    SELECT coalesce(c.run_id, j.run_id) AS run_id, {day_of("c.started_at")} AS day,
        -coalesce(c.charged_usd, 0) AS spent_usd, -coalesce(c.reserved_usd, 0) AS reserved_usd
    FROM deleted c LEFT JOIN jobs j ON j.id = c.job_id
    WHERE coalesce(c.reserved_usd, c.charged_usd) IS NOT NULL""")
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
    seconds: Mapping[str, float] | None = None,
) -> tuple[dict[str, Booking], dict[str, ChordwiseError]]:
    """Insert calls that are about to be made, each once.

    `tokens` maps ids of calls to the tokens of their leases. Such a call is inserted only while its
    lease is held and the run is not cancelled. `seconds` is how long a call may take.

    Returns:
        The bookings of the reservations, and the refusals of calls that may not begin, by id.
    """
    if not rows:
        return {}, {}
    ids = [str(row["id"]) for row in rows]
    tokens, seconds = tokens or {}, seconds or {}
    of_leases = [row for row in rows if row["id"] in tokens]
    parameters = {
        "rows": rows_as_json(rows),
        "ids": ids,
        "tokens": [tokens.get(id_) for id_ in ids],
        "seconds": [seconds.get(id_) for id_ in ids],
        "questions": [row["question"] for row in rows if row.get("question")],
        "jobs": [row["job_id"] for row in of_leases if not row["chunk_id"]],
        "chunks": [row["chunk_id"] for row in of_leases if row["chunk_id"]],
    }
    reserved: dict[str, Booking] = {}
    duplicates: set[str] = set()
    lost = set(ids)
    for row in store.execute(_BEGIN, parameters):
        lost.discard(str(row.id))
        if not row.is_new:
            duplicates.add(str(row.id))
        elif row.reserved_usd is not None:
            booking = Booking(run_id=row.run_id, day=row.day, reserved_usd=row.reserved_usd)
            reserved[str(row.id)] = booking
    if duplicates:  # unless the row is there already, because the reply to a commit was lost
        duplicates -= {str(id_) for (id_,) in store.execute(_STORED, {"ids": list(duplicates)})}
    refusals: dict[str, ChordwiseError] = {
        id_: AlreadyAskedError("Another call asks the same question.") for id_ in duplicates
    }
    for id_ in lost:
        refusals[id_] = LeaseLostError("The run was cancelled, or the work was taken over.")
    return reserved, refusals


def end_all(store: Store, rows: Sequence[Mapping[str, object]]) -> list[Booking]:
    """Record the ends of calls, and the checks of their answers; return their bookings.

    Only a row with the key `charged_usd`, the cost or `None`, can end a reservation. The
    `completion` of a row is stored in the cache if the call still has its question.
    """
    if not rows:
        return []
    answers = [
        {"id": row["id"], "completion": row["completion"]} for row in rows if "completion" in row
    ]
    values = {
        "rows": rows_as_json([{**row, "completion": None} for row in rows]),
        "ids": [row["id"] for row in rows if "charged_usd" in row],
        "answers": rows_as_json(answers),
    }
    return bookings_of(store.execute(_END, values))


def bookings_of(rows: Result[*tuple[object, ...]]) -> list[Booking]:
    """Return the bookings in the rows of a statement."""
    return [Booking(**row) for row in rows.mappings()]


def check_all(store: Store, rows: Sequence[Mapping[str, object]]) -> None:
    """Record the checks of the answers to calls whose ends are already stored."""
    if rows:
        store.execute(_CHECK, {"rows": rows_as_json(rows)})


def delete_all(store: Store, call_ids: Collection[uuid.UUID] | Collection[str]) -> list[Booking]:
    """Delete the unfinished rows of calls that were not made; return their bookings."""
    if not call_ids:
        return []
    return bookings_of(store.execute(_DELETE, {"ids": list(call_ids)}))


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
