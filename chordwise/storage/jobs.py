"""Jobs: one analysis of one document each, from queued to an end state."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import (
    JSON,
    ColumnElement,
    ForeignKey,
    Index,
    bindparam,
    exists,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.orm import Mapped, Session, aliased, mapped_column

from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.states import (
    FOLLOWING_JOBS,
    RETRYABLE_JOBS,
    UNFINISHED_JOBS,
    JobStatus,
    RunStatus,
)
from chordwise.storage import clock, outbox
from chordwise.storage.database import Store
from chordwise.storage.documents import Document
from chordwise.storage.leases import StepRecord
from chordwise.storage.model_calls import ModelCall
from chordwise.storage.record import (
    CreatedAt,
    Record,
    block_range_index,
    in_ids,
)
from chordwise.storage.sql_text import status_in

STEP_CHUNKS = 20_000
"""The maximum number of chunks in a transaction that changes many jobs."""


class Job(StepRecord):
    """One analysis of one document; the lease belongs to its synthesis.

    `open_chunks` counts chunks that have not ended; the chunks are authoritative.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_run_id_status", "run_id", "status"),
        block_range_index("ix_jobs_started_at", "started_at"),
        block_range_index("ix_jobs_finished_at", "finished_at"),
        Index("ix_jobs_reused_from", "reused_from", postgresql_where="reused_from IS NOT NULL"),
        Index(
            "ix_jobs_following",
            "id",
            postgresql_where=f"reused_from IS NOT NULL AND {status_in(FOLLOWING_JOBS)}",
        ),
        Index("ix_jobs_retryable", "run_id", "id", postgresql_where=status_in(RETRYABLE_JOBS)),
        Index(
            "ix_jobs_waiting", "due_at", postgresql_where=f"status = '{JobStatus.WAITING.value}'"
        ),
        Index(
            "ix_jobs_unfinished_created_at",
            "status",
            "created_at",
            "id",
            postgresql_where=status_in(UNFINISHED_JOBS),
        ),
    )

    AT_WORK = (JobStatus.SYNTHESIZING,)
    FREE = JobStatus.RUNNING

    run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("runs.id"))
    intake_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("intakes.id"), index=True)
    document_id: Mapped[uuid.UUID] = mapped_column(ForeignKey(Document.id), index=True)
    analysis_type: Mapped[str]
    options: Mapped[JsonObject] = mapped_column(JSON)  # keeps the order of the members of a schema
    options_hash: Mapped[str]
    examples: Mapped[JsonValue | None]
    model: Mapped[str]
    status: Mapped[str] = mapped_column(default=JobStatus.QUEUED)
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    hint: Mapped[str | None]
    reused_from: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("jobs.id"))
    chunk_count: Mapped[int | None]
    open_chunks: Mapped[int | None]
    attempts: Mapped[int] = mapped_column(default=0)
    postponements: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime | None]
    batch_until: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]
    started_at: Mapped[datetime | None]
    last_progress_at: Mapped[CreatedAt]
    finished_at: Mapped[datetime | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailure:
    """Why a job did not succeed: a stable code, a message, and a hint."""

    code: str
    message: str
    hint: str = ""


def get(session: Session, job_id: uuid.UUID) -> Job | None:
    """Return the current state of a job."""
    return session.get(Job, job_id, populate_existing=True)


def lock_existing(session: Session, job_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Return those of the jobs that exist, protected from pruning until the commit."""
    statement = select(Job.id).where(Job.id.in_(job_ids))
    return set(session.scalars(statement.with_for_update(read=True, key_share=True)))


def of_one_step(rows: Iterable[tuple[uuid.UUID, int | None]]) -> list[uuid.UUID]:
    """Return the first of these jobs, by id and chunk count, that one transaction may change."""
    ids: list[uuid.UUID] = []
    total = 0
    for job_id, chunk_count in rows:
        total += chunk_count or 0
        if ids and total > STEP_CHUNKS:
            break
        ids.append(job_id)
    return ids


def hashes(session: Session, job_ids: Collection[uuid.UUID]) -> Mapping[uuid.UUID, str]:
    """Return the `options_hash` of each job."""
    rows = session.execute(select(Job.id, Job.options_hash).where(in_ids(Job.id, job_ids)))
    return {job_id: options_hash for job_id, options_hash in rows}  # noqa: C416 - rows are no pairs to mypy


def status_of(session: Session, job_id: uuid.UUID) -> str | None:
    """Return the status of a job without a lock; `None` if the job does not exist."""
    return session.scalar(_STATUS, {"id": job_id})


def lock(session: Session, job_id: uuid.UUID) -> Job | None:
    """Return a job with its row locked until the transaction ends."""
    return session.scalars(_LOCK, {"id": job_id}).one_or_none()


def lock_all(store: Store, job_ids: Collection[uuid.UUID]) -> None:
    """Lock these jobs against changes by other transactions, in the order of their ids."""
    store.execute(_LOCK_ALL, {"ids": list(job_ids)}).all()


def of_cancelled_run() -> ColumnElement[bool]:
    """Return the condition that the run of a job is cancelled."""
    runs = Record.metadata.tables["runs"]
    return exists().where(runs.c.id == Job.run_id, runs.c.status == RunStatus.CANCELLED)


_LOCK_ALL = text("SELECT id FROM jobs WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE")


# Every job uses these statements, so they are built once.
_STATUS = select(Job.status).where(Job.id == bindparam("id"))
_LOCK = select(Job).where(Job.id == bindparam("id")).with_for_update(key_share=True)


def calls_of(run_id: uuid.UUID) -> type[ModelCall]:
    """Return the calls of a run: those of its jobs, and those that read pages during its intake."""
    of_jobs = select(ModelCall).join(Job, Job.id == ModelCall.job_id).where(Job.run_id == run_id)
    of_intake = select(ModelCall).where(ModelCall.run_id == run_id)
    return aliased(ModelCall, union_all(of_jobs, of_intake).subquery())


def record_progress(session: Session, job_ids: Collection[uuid.UUID]) -> None:
    """Record that jobs have made progress, except for a synthesis, which has a lease for that."""
    lock_all(session, job_ids)
    progressed = Job.id.in_(job_ids), Job.status != JobStatus.SYNTHESIZING
    session.execute(update(Job).where(*progressed).values(last_progress_at=clock.database_now()))


def mark_waiting(session: Session, job_id: uuid.UUID) -> None:
    """Set a locked, running job to waiting if it has no pending or running chunk."""
    session.execute(_MARK_WAITING, {"ids": [job_id]})


_BUSY = """EXISTS (
    SELECT FROM chunks c WHERE c.job_id = jobs.id AND c.status IN ('pending', 'running')
)"""
_MARK_WAITING = text(f"""
    UPDATE jobs SET status = 'waiting'
    WHERE id = ANY(:ids) AND status = 'running' AND NOT {_BUSY}""")
_COUNT_DOWN = text(f"""
    UPDATE jobs SET open_chunks = greatest(0, open_chunks - ended.number),
        last_progress_at = clock_timestamp(),
        status = CASE WHEN status = 'running' AND open_chunks > ended.number
            AND EXISTS (SELECT FROM chunks c WHERE c.job_id = jobs.id AND c.status = 'waiting')
            AND NOT {_BUSY}
            THEN 'waiting' ELSE status END
    FROM (
        SELECT id AS ended_id, count(*) AS number
        FROM unnest(CAST(:ids AS uuid[])) AS id GROUP BY id
    ) AS ended
    WHERE jobs.id = ended.ended_id
    RETURNING jobs.id, jobs.open_chunks""")
_WITHOUT_OPEN_CHUNKS = text("""
    SELECT id FROM jobs WHERE id = ANY(CAST(:ids AS uuid[])) AND NOT EXISTS (
        SELECT FROM chunks c
        WHERE c.job_id = jobs.id AND c.job_id = ANY(CAST(:ids AS uuid[]))
            AND c.status IN ('pending', 'running', 'waiting')
    )""")


def count_down(
    store: Store, job_ids: Sequence[uuid.UUID], synthesis: str, delay: timedelta = timedelta()
) -> set[uuid.UUID]:
    """Decrement the open chunks of locked jobs; a job is listed once for each ended chunk.

    If a job has no open chunks left, the task `synthesis` is promised for it, due after `delay`;
    return these jobs. A running job whose open chunks all wait for a due time is set to waiting.
    """
    rows = store.execute(_COUNT_DOWN, {"ids": list(job_ids)}).all()
    over = [row[0] for row in rows if not row[1]]
    if not over:
        return set()
    ended = {row[0] for row in store.execute(_WITHOUT_OPEN_CHUNKS, {"ids": over})}
    outbox.promise(store, synthesis, ended, reason="last chunk ended", delay=delay)
    return ended


def ended_by(store: Store, claims: Sequence[tuple[uuid.UUID, uuid.UUID | None]]) -> set[uuid.UUID]:
    """Return those of the jobs that were ended by the synthesis with the given token."""
    ids, tokens = zip(*claims, strict=True)
    return {row[0] for row in store.execute(_ENDED_BY, {"ids": list(ids), "tokens": list(tokens)})}


_ENDED_BY = text("""
    SELECT jobs.id
    FROM unnest(CAST(:ids AS uuid[]), CAST(:tokens AS uuid[])) AS claim (id, token)
    JOIN jobs ON jobs.id = claim.id AND jobs.lease_token = claim.token
    WHERE jobs.status <> 'synthesizing'""")
_END = text("""
    UPDATE jobs SET status = new.status, error_code = new.error_code,
        error_message = new.error_message, hint = new.hint,
        open_chunks = 0, due_at = NULL, lease_until = NULL,
        started_at = coalesce(jobs.started_at, (
            SELECT min(chunks.started_at) FROM chunks WHERE chunks.job_id = jobs.id
        )),
        finished_at = clock_timestamp(), last_progress_at = clock_timestamp()
    FROM json_populate_recordset(NULL::jobs, CAST(:rows AS json)) AS new, runs
    WHERE jobs.id = new.id AND runs.id = jobs.run_id AND CASE
        WHEN new.lease_token IS NOT NULL
            THEN jobs.status = 'synthesizing' AND jobs.lease_token = new.lease_token
        ELSE jobs.status IN ('running', 'waiting') AND jobs.chunk_count = 1
            AND runs.status <> 'cancelled'
    END
    RETURNING jobs.id, jobs.run_id""")


def end_all(
    session: Session, rows: Sequence[Mapping[str, JsonValue]]
) -> dict[uuid.UUID, uuid.UUID]:
    """Set locked jobs to end states; return the jobs that were changed, with their runs.

    A row holds `id`, `status`, the error, and the `lease_token` of the synthesis, which is kept; if
    it is null, the job ends with its only chunk.
    """
    changed = session.execute(_END, {"rows": json.dumps(rows)})
    return {row[0]: row[1] for row in changed}


def end(job: Job, status: JobStatus, failure: JobFailure | None = None) -> None:
    """Set a locked job to an end state; its token is kept and identifies the synthesis."""
    job.status = status
    job.error_code = failure.code if failure else None
    job.error_message = failure.message if failure else None
    job.hint = (failure.hint or None) if failure else None
    job.lease_until = job.due_at = None
    job.finished_at = job.last_progress_at = clock.database_now()
