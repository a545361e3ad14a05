"""Recovery: finds work that has stopped, and sends it again.

Messages that were lost need no rule: `jobs.dispatch` sends a message again until its work begins.
Every rule is one transaction that locks a bounded number of rows; concurrent recoveries are safe.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import structlog
from sqlalchemy import ColumnElement, Select, exists, or_, select, text, update
from sqlalchemy.orm import Session

from chordwise.domain.states import (
    OPEN_CHUNKS,
    UNASKED_REQUESTS,
    UNFINISHED_JOBS,
    BatchRequestStatus,
    ChunkStatus,
    JobStatus,
    RunStatus,
)
from chordwise.errors import AwaitingBatchError, ServiceUnavailableError
from chordwise.pipeline.jobs import shared_jobs
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.messages import ANALYZE_SLICE, FAN_OUT, SYNTHESIZE
from chordwise.storage import (
    batches,
    budgets,
    claims,
    clock,
    deliveries,
    incidents,
    intakes,
    jobs,
    outbox,
    runs,
    schedules,
)
from chordwise.storage.batches import BatchRequest
from chordwise.storage.chunks import Chunk
from chordwise.storage.incidents import IncidentKind
from chordwise.storage.jobs import Job
from chordwise.storage.record import in_ids
from chordwise.storage.runs import Run

BATCH = 500
ANALYZING = (JobStatus.RUNNING, JobStatus.WAITING)
"""Jobs whose chunks are to be analyzed."""


def resend_answered(context: Context, session: Session) -> int:  # noqa: ARG001 - one shape for all rules
    """Send chunks and syntheses again when none of their batch requests is awaited any more.

    The rule reads their own rows, so it does not matter whether the answer arrived before or after
    the work was postponed.
    """
    now, count = clock.database_now(), 0
    for table, task, ready, progress in (
        (Chunk, ANALYZE_SLICE, Chunk.status == ChunkStatus.WAITING, {}),
        (Job, SYNTHESIZE, Job.status == JobStatus.WAITING, {"last_progress_at": now}),
    ):
        query = select(table.id).where(
            ready,
            table.error_code == AwaitingBatchError.code,
            table.due_at > now,
            ~batches.is_awaited(table.id),
        )
        if table is Chunk:
            query = query.join(Job, Job.id == Chunk.job_id).where(Job.status.in_(ANALYZING))
        ids = _lock_some(session, query.order_by(table.id), table)
        session.execute(update(table).where(table.id.in_(ids)).values(due_at=now, **progress))
        outbox.promise(session, task, ids, reason="batch answered")
        count += len(ids)
    return count


def delete_unwanted(context: Context, session: Session) -> int:  # noqa: ARG001 - one shape for all rules
    """Delete questions not yet sent to a provider that are not needed or cannot be answered.

    These are questions of cancelled jobs, questions of paused jobs that other jobs follow, and
    questions that follow a job which no longer asks them.
    """
    dropped = batches.drop_obsolete(session, BATCH)
    dropped += batches.drop_idle_leaders(session, BATCH)
    return dropped + batches.drop_lost(session, BATCH)


def _lock_some(
    session: Session, query: Select[uuid.UUID], of: type[Chunk | Job]
) -> Sequence[uuid.UUID]:
    """Lock some of the rows that a query selects, without those that others have locked."""
    locking = query.limit(BATCH).with_for_update(key_share=True, skip_locked=True, of=of)
    return session.scalars(locking).all()


def reopen_expired(context: Context, session: Session) -> int:
    """Promise messages for work whose lease has expired; quarantine chunks without attempts left.

    The attempt remains counted.
    """
    return _reopen_chunks(context, session) + _reopen_syntheses(session)


def _reopen_chunks(context: Context, session: Session) -> int:
    rows = session.execute(
        select(Chunk.id, Chunk.job_id, Chunk.attempts)
        .where(Chunk.has_expired())
        .order_by(Chunk.job_id, Chunk.id)
        .limit(BATCH)
    ).all()
    # The usual lock order: the job before its chunk.
    jobs.lock_all(session, {job_id for _, job_id, _ in rows})
    max_attempts = context.settings.pipeline.max_attempts
    for chunk_id, job_id, attempts in rows:
        if attempts >= max_attempts and claims.quarantine(session, chunk_id, max_attempts):
            jobs.count_down(session, [job_id], SYNTHESIZE)
    unleased = {"lease_token": None, "lease_until": None, "finished_at": None}
    reopened = session.execute(
        update(Chunk)
        .where(in_ids(Chunk.id, [row[0] for row in rows]), Chunk.has_expired())
        .values(status=ChunkStatus.PENDING, **unleased)
        .returning(Chunk.id, Chunk.attempts)
    ).all()
    last = {id_ for id_, attempts in reopened if claims.is_last(attempts, max_attempts)}
    outbox.promise(session, ANALYZE_SLICE, last, reason=outbox.LAST_ATTEMPT)
    others = {id_ for id_, _ in reopened} - last
    outbox.promise(session, ANALYZE_SLICE, others, reason="lease expired")
    return len(rows)


def _reopen_syntheses(session: Session) -> int:
    ids = _lock_some(session, select(Job.id).where(Job.has_expired()).order_by(Job.id), Job)
    unleased = {"lease_token": None, "lease_until": None}
    session.execute(
        update(Job).where(in_ids(Job.id, ids)).values(status=JobStatus.RUNNING, **unleased)
    )
    outbox.promise(session, SYNTHESIZE, ids, reason="lease expired")
    return len(ids)


def promise_missing(context: Context) -> int:
    """Promise the messages of waiting work that has none, which only a defect can cause.

    Returns their number.
    """
    with context.database.write() as session:
        missing = session.execute(_WITHOUT_MESSAGE, {"limit": _MAX_MISSING}).all()
        for task in (FAN_OUT, ANALYZE_SLICE, SYNTHESIZE):
            ids = [id_ for id_, kind in missing if kind == task]
            outbox.promise(session, task, ids, reason="no message")
        incidents.count(session, IncidentKind.RESCUE, "no_message", len(missing))
    if missing:
        log.error("recovery.no_message", count=len(missing))
    return len(missing)


_MAX_MISSING = 100_000
_WITHOUT_MESSAGE = text(f"""
    SELECT id, task FROM (
        SELECT j.id, '{FAN_OUT}' AS task FROM jobs j
        WHERE j.status = 'queued' AND j.reused_from IS NULL
        UNION ALL
        SELECT c.id, '{ANALYZE_SLICE}' FROM chunks c JOIN jobs j ON j.id = c.job_id
        WHERE c.status IN ('pending', 'waiting') AND j.status IN ('running', 'waiting')
        UNION ALL
        SELECT j.id, '{SYNTHESIZE}' FROM jobs j
        WHERE j.status IN ('running', 'waiting') AND j.chunk_count IS NOT NULL AND NOT EXISTS (
            SELECT FROM chunks c
            WHERE c.job_id = j.id AND c.status IN ('pending', 'running', 'waiting')
        )
    ) AS waiting
    WHERE NOT EXISTS (SELECT FROM outbox WHERE outbox.id = waiting.id)
    LIMIT :limit""")  # noqa: S608 - fixed names


def finish_cancellations(context: Context, session: Session) -> int:  # noqa: ARG001 - one shape for all
    """Cancel the jobs of runs that a killed `cancel` left unfinished; return their number."""
    ids = session.scalars(
        select(Run.id)
        .where(Run.status == RunStatus.CANCELLED, or_(Run.finished_at.is_(None), _has_jobs_left()))
        .order_by(Run.id)
    ).all()
    return sum(runs.cancel_jobs(session, run_id, BATCH) for run_id in ids)


def finish_runs(context: Context, session: Session) -> int:  # noqa: ARG001 - one shape for all
    """Finish runs whose jobs have all ended; the last job does this unless its worker is killed."""
    ids = session.scalars(
        select(Run.id).where(
            Run.status == RunStatus.OPEN, Run.intake_finished_at.is_not(None), ~_has_jobs_left()
        )
    ).all()
    for run_id in ids:
        runs.settle(session, run_id)
    return len(ids)


def _has_jobs_left() -> ColumnElement[bool]:
    return exists().where(Job.run_id == Run.id, Job.status.in_(UNFINISHED_JOBS))


log = structlog.get_logger(__name__)

Rule: TypeAlias = Callable[[Context, Session], int]
"""Sends work again that stopped for one reason; returns the number of its items."""


RULES: tuple[tuple[str, Rule], ...] = (
    ("run_cancelled", finish_cancellations),
    ("lease_expired", reopen_expired),
    ("batch_answered", resend_answered),
    ("batch_unwanted", delete_unwanted),
    ("followed", shared_jobs.end_followers),
    ("intake_abandoned", lambda _, session: intakes.finish_all(session)),
    ("run_unsettled", finish_runs),
    ("reservation_abandoned", lambda _, session: budgets.settle_abandoned(session, BATCH)),
)
PLANNED = ("run_cancelled", "batch_answered", "batch_unwanted", "followed")
"""The rules for work that was postponed on purpose, which is not counted as an incident."""


def recover(context: Context) -> dict[str, int]:
    """Apply every rule once; return the number of rescues of each rule that made any.

    If no work is unfinished, no rule is applied. Each rescue is logged, and unplanned ones are
    counted in `incidents`.
    """
    rescues: dict[str, int] = {}
    with context.database.read() as session:
        may_find_something = has_unfinished_work(session)
    for reason, rule in RULES if may_find_something else ():
        try:
            with context.database.write() as session:
                count = rule(context, session)
                if reason not in PLANNED:
                    incidents.count(session, IncidentKind.RESCUE, reason, count)
        except ServiceUnavailableError:
            raise
        except Exception:  # a defect in one rule must not block the others
            log.exception("recovery.defect", reason=reason)
            continue
        if count:
            rescues[reason] = count
            log.warning("recovery.rescued", reason=reason, count=count)
    return rescues


@dataclass(frozen=True, slots=True)
class Waiting:
    """Whether deliveries, batches, and occurrences of schedules wait for a scheduler."""

    deliveries: bool = False
    batches: bool = False
    schedules: bool = False


def waiting(session: Session) -> Waiting:
    """Return whether work waits for each of these parts of a scheduler."""
    row = session.execute(
        select(
            deliveries.is_pending(),
            or_(_in(BatchRequest, (BatchRequestStatus.PENDING,)), batches.is_any_open()),
            schedules.is_any_free(),
        )
    ).one()
    return Waiting(*row)


def has_unfinished_work(session: Session) -> bool:
    """Return whether there is any unfinished work that a rule of recovery could find.

    This is an unfinished job, chunk, run, batch request or reservation.
    """
    is_open = or_(Run.status == RunStatus.OPEN, Run.finished_at.is_(None))
    return bool(
        session.scalar(
            select(
                or_(
                    _in(Job, UNFINISHED_JOBS),
                    _in(Chunk, OPEN_CHUNKS),
                    exists().where(or_(is_open, Run.intake_finished_at.is_(None))),
                    _in(BatchRequest, UNASKED_REQUESTS),
                    budgets.is_any_reserved(),
                )
            )
        )
    )


def _in(table: type[Job | Chunk | BatchRequest], states: Collection[str]) -> ColumnElement[bool]:
    return exists().where(table.status.in_(states))
