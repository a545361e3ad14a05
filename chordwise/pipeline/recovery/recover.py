"""Recovery: finds work that has stopped, and sends it again.

Every rule is one transaction that locks a bounded number of rows. Concurrent recoveries are safe,
and so are premature messages: a message for finished work costs one query.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

import structlog
from sqlalchemy import ColumnElement, case, exists, func, or_, select, update
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
from chordwise.pipeline.recovery import chunks
from chordwise.pipeline.recovery.chunks import (
    ANALYZING,
    BATCH,
    OVERTAKEN,
    lock_some,
    lost_since,
    queue_is_empty,
    queue_is_long,
    send_again,
    send_everything,
    worker_is_active,
)
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.messages import CONTROL_QUEUE, FAN_OUT, SYNTHESIZE
from chordwise.storage import (
    batch_requests,
    batches,
    budgets,
    clock,
    deliveries,
    incidents,
    intakes,
    outbox,
    runs,
    schedules,
)
from chordwise.storage.batch_requests import BatchRequest
from chordwise.storage.budgets import BudgetReservation
from chordwise.storage.chunks import Chunk
from chordwise.storage.incidents import IncidentKind
from chordwise.storage.jobs import Job
from chordwise.storage.record import in_ids, new_id
from chordwise.storage.runs import Run

_STEP = 400
"""The number of jobs that each walk checks in one call."""


def resend_answered(context: Context, session: Session) -> int:  # noqa: ARG001 - one shape for all rules
    """Send chunks and syntheses again when none of their batch requests is awaited any more.

    The rule reads their own rows, so it does not matter whether the answer arrived before or after
    the work was postponed.
    """
    return _chunks(session) + _syntheses(session)


def delete_unwanted(context: Context, session: Session) -> int:  # noqa: ARG001 - one shape for all rules
    """Delete questions not yet sent to a provider that are not needed or cannot be answered.

    These are questions of cancelled jobs, questions of paused jobs that other jobs follow, and
    questions that follow a job which no longer asks them.
    """
    dropped = batch_requests.drop_obsolete(session, BATCH)
    dropped += batch_requests.drop_idle_leaders(session, BATCH)
    return dropped + batch_requests.drop_lost(session, BATCH)


def _chunks(session: Session) -> int:
    wanted = (
        select(Chunk.id)
        .join(Job, Job.id == Chunk.job_id)
        .where(
            Chunk.status == ChunkStatus.WAITING,
            Chunk.error_code == AwaitingBatchError.code,
            Chunk.due_at > clock.database_now(),
            Job.status.in_(ANALYZING),
            ~batch_requests.is_awaited(Chunk.id),
        )
        .order_by(Chunk.id)
    )
    ids = lock_some(session, wanted, Chunk)
    session.execute(update(Chunk).where(Chunk.id.in_(ids)).values(due_at=clock.database_now()))
    return send_again(session, ids, "batch answered")


def _syntheses(session: Session) -> int:
    wanted = select(Job.id).where(
        Job.status == JobStatus.WAITING,
        Job.error_code == AwaitingBatchError.code,
        Job.due_at > clock.database_now(),
        ~batch_requests.is_awaited(Job.id),
    )
    ids = lock_some(session, wanted.order_by(Job.id), Job)
    outbox.add_all(session, SYNTHESIZE, ((job_id,) for job_id in ids), reason="batch answered")
    now = clock.database_now()
    session.execute(update(Job).where(Job.id.in_(ids)).values(due_at=now, last_progress_at=now))
    return len(ids)


def resend_lost_fan_outs(context: Context, session: Session) -> int:
    """Send queued jobs again whose fan-out message was overtaken, or is in no queue any more."""
    stalled = timedelta(seconds=context.settings.pipeline.stalled_seconds)
    newest_begun = (
        select(func.max(Job.created_at))
        # A job with a single chunk may have been sent without a fan-out.
        .where(Job.started_at > clock.statement_start() - stalled * 2, Job.chunk_count > 1)
        .scalar_subquery()
    )
    sent_before = lost_since(context, session, newest_begun - OVERTAKEN, CONTROL_QUEUE)
    if sent_before is None:
        return 0
    now = clock.database_now()
    # Dated back if a worker has begun: its attempt is over, and the next one counts.
    is_begun, attempt_ended_at = Job.attempts > 0, now - min(context.lease, stalled)
    return _send_jobs(
        session,
        FAN_OUT,
        (Job.status == JobStatus.QUEUED)
        & Job.reused_from.is_(None)
        & (Job.created_at < sent_before)  # implied by the next line, but uses the index
        & (Job.last_progress_at < sent_before),
        progress_at=case((is_begun, attempt_ended_at), else_=now),
    )


def send_missing_syntheses(context: Context, session: Session) -> int:
    """Send the synthesis of jobs whose chunks have all ended and that no worker is finishing.

    A job that became due, or was abandoned, after it was last sent has no message and gets one at
    once. For any other job the message may still be waiting while the queue is not empty: the job
    gets more time, and is not sent at all while the queue is long. No index contains whether all
    chunks of a job have ended, so each call checks only the next few hundred of these other jobs.
    """
    settings = context.settings.pipeline
    now = clock.database_now()
    long_idle = Job.last_progress_at < now - timedelta(seconds=settings.stalled_seconds)
    idle_since = Job.last_progress_at < now - timedelta(seconds=settings.recovery_interval_seconds)
    overdue = (idle_since & queue_is_empty(context, CONTROL_QUEUE)) | (
        long_idle & worker_is_active() & ~queue_is_long(context, CONTROL_QUEUE)
    )
    # A subquery per job: the planner could turn another condition into a join over all chunks.
    open_chunk = select(Chunk.id).where(Chunk.job_id == Job.id, Chunk.status.in_(OPEN_CHUNKS))
    has_ended = open_chunk.limit(1).scalar_subquery().is_(None)
    waiting = (Job.status == JobStatus.WAITING) & or_(
        Job.due_at.is_(None), Job.due_at <= clock.database_now()
    )
    ran_out = (Job.lease_until < clock.database_now()) & clock.leases_may_expire()
    abandoned = (Job.status == JobStatus.SYNTHESIZING) & ran_out
    idle = (Job.status == JobStatus.RUNNING) & Job.chunk_count.is_not(None)
    looked_at = [job_id for walk in context.walks for job_id in walk.step(session, _STEP)]
    wanted = (
        waiting & (Job.last_progress_at < Job.due_at),
        abandoned & (Job.last_progress_at < Job.lease_until),
        in_ids(Job.id, looked_at) & or_(waiting, abandoned, idle) & overdue,
    )
    return sum(_send_jobs(session, SYNTHESIZE, each & has_ended) for each in wanted)


def finish_abandoned_intakes(context: Context, session: Session) -> int:  # noqa: ARG001 - one shape for all
    """Finish the intake of runs whose submitter was lost after everything was taken in.

    A run with entries left on its list stays interrupted: `chordwise continue` continues it.
    """
    return intakes.finish_all(session, intakes.is_interrupted())


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


def _send_jobs(
    session: Session,
    task: str,
    condition: ColumnElement[bool],
    progress_at: ColumnElement[datetime] | None = None,
) -> int:
    """Put a message into the outbox for each job that has none in it.

    Its progress is dated now, or `progress_at`.
    """
    wanted = select(Job.id).where(condition, ~outbox.is_promised(task, of=Job.id))
    ids = lock_some(session, wanted, Job)
    if not ids:
        return 0
    outbox.add_all(session, task, ((job_id,) for job_id in ids), reason="recovery")
    session.execute(
        update(Job)
        .where(Job.id.in_(ids))
        .values(last_progress_at=clock.database_now() if progress_at is None else progress_at)
    )
    return len(ids)


log = structlog.get_logger(__name__)

Rule: TypeAlias = Callable[[Context, Session], int]
"""Sends work again that stopped for one reason; returns the number of its items."""


def settle_abandoned_reservations(context: Context, session: Session) -> int:  # noqa: ARG001 - one shape for all
    """Settle the reservations of requests that were not settled in time as spent."""
    return budgets.settle_abandoned(session, BATCH)


RULES: tuple[tuple[str, Rule], ...] = (
    ("run_cancelled", finish_cancellations),
    ("lease_expired", chunks.resend_expired),
    ("last_attempt", chunks.send_last_attempts),
    ("due", chunks.send_due),
    ("batch_answered", resend_answered),
    ("batch_unwanted", delete_unwanted),
    ("chunk_never_sent", chunks.send_unsent),
    ("chunk_message_lost", chunks.resend_lost),
    ("job_message_lost", resend_lost_fan_outs),
    ("synthesis_missing", send_missing_syntheses),
    ("followed", shared_jobs.end_followers),
    ("intake_abandoned", finish_abandoned_intakes),
    ("run_unsettled", finish_runs),
    ("reservation_abandoned", settle_abandoned_reservations),
)
# Work that was postponed on purpose is not counted as an incident.
_PLANNED = ("run_cancelled", "due", "batch_answered", "batch_unwanted", "followed")


def recover(context: Context) -> dict[str, int]:
    """Apply every rule once; return the number of rescues of each rule that made any.

    If no work is unfinished, no rule is applied. Each rescue is logged, and unplanned ones are
    counted in `incidents`.
    """
    rescues = {"broker_data_lost": _broker_data_lost(context)}
    with context.database.read() as session:
        may_find_something = has_unfinished_work(session)
    for reason, rule in RULES if may_find_something else ():
        rescues[reason] = _in_transaction(context, reason, rule)
    found = {reason: count for reason, count in rescues.items() if count}
    for reason, count in found.items():
        log.warning("recovery.rescued", reason=reason, count=count)
    return found


def resume_after_standstill(context: Context) -> int:
    """Send all unclaimed work if no chunk lease is held; return the number of messages.

    The scheduler calls this when it becomes leader: after a stop of the whole stack, messages that
    workers had taken from the broker are lost, and no younger messages overtake them.
    """
    try:
        return _standstill(context)
    except ServiceUnavailableError:
        raise
    except Exception:  # recovery continues without it
        log.exception("recovery.defect", reason="standstill")
        return 0


def _standstill(context: Context) -> int:
    with context.database.read() as session:
        if session.scalar(select(worker_is_active())):
            return 0
        begun_at = clock.read(session)
    sent = send_everything(context, begun_at)
    with context.database.write() as session:
        incidents.count(session, IncidentKind.RESCUE, "standstill", sent)
    return sent


def _in_transaction(context: Context, reason: str, rule: Rule) -> int:
    try:
        with context.database.write() as session:
            count = rule(context, session)
            if reason not in _PLANNED:
                incidents.count(session, IncidentKind.RESCUE, reason, count)
            return count
    except ServiceUnavailableError:
        raise
    except Exception:  # a defect in one rule must not block the others
        log.exception("recovery.defect", reason=reason)
        return 0


def _broker_data_lost(context: Context) -> int:
    """Send all unclaimed work again if the broker has lost its data.

    A marker is stored in the broker and in the database; a broker that restarted empty, or was
    flushed, no longer has it. Until all messages are in the outbox, the broker stores the time at
    which this began instead: another recovery continues from there, and the new marker is stored
    last.
    """
    try:
        found = context.messenger.marker()
    except ServiceUnavailableError as error:
        log.warning("recovery.broker_unreachable", reason=error.what)
        return 0
    with context.database.read() as session:
        known = outbox.current(session)
        now = clock.read(session)
    if found is not None and found == known:
        return 0
    begun_at = outbox.resending_since(found) or now
    # The broker comes first: if it accepts no marker, it accepts no messages either.
    if not _leave_marker(context, outbox.resending_marker(begun_at)):
        return 0
    sent = 0 if known is None else send_everything(context, begun_at)
    marker = str(new_id())
    with context.database.write() as session:
        outbox.remember(session, marker)
        if known is not None:
            # The incident is counted even if no message was lost.
            incidents.count(session, IncidentKind.RESCUE, "broker_data_lost", max(1, sent))
    _leave_marker(context, marker)
    if known is not None:
        log.warning("recovery.broker_data_lost", sent=sent)
    return sent


def _leave_marker(context: Context, marker: str) -> bool:
    try:
        context.messenger.set_marker(marker)
    except ServiceUnavailableError as error:
        log.warning("recovery.marker_not_stored", reason=error.what)
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
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
    return Waiting(deliveries=row[0], batches=row[1], schedules=row[2])


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
                    exists().where(BudgetReservation.settled_at.is_(None)),
                )
            )
        )
    )


def _in(table: type[Job | Chunk | BatchRequest], states: Collection[str]) -> ColumnElement[bool]:
    return exists().where(table.status.in_(states))
