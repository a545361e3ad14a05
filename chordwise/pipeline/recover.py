"""Recovery: finding work that stopped moving, and moving it again.

Every rule is one statement that locks what it takes up; two recoveries at once are harmless, and
sending too early is, too: a message for finished work costs a look into the database.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeAlias

import structlog
from sqlalchemy import ColumnElement, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from chordwise.domain.states import (
    OPEN_CHUNKS,
    UNFINISHED_JOBS,
    ChunkStatus,
    JobStatus,
    RunStatus,
)
from chordwise.errors import ServiceUnavailableError
from chordwise.pipeline import unclaimed
from chordwise.pipeline.analyze_chunk import end_if_last
from chordwise.pipeline.context import Context
from chordwise.pipeline.messages import ANALYZE_CHUNK, FAN_OUT, SYNTHESIZE
from chordwise.storage import broker_marker, chunks, clock, jobs, outbox, runs
from chordwise.storage.chunks import Chunk
from chordwise.storage.engine import reaching_database
from chordwise.storage.intakes import Intake
from chordwise.storage.jobs import Job
from chordwise.storage.record import new_id
from chordwise.storage.runs import Run

log = structlog.get_logger(__name__)

Rule: TypeAlias = Callable[[Context, Session], int]
"""Takes up what stopped for one reason; returns how much that was."""

_BATCH = 500
_ABANDONED_INTAKE = timedelta(minutes=15)
_OVERTAKEN = timedelta(seconds=10)


def recover(context: Context) -> dict[str, int]:
    """Apply every rule once; return how many rescues each made, those of none left out.

    Raises:
        ServiceUnavailableError: The database cannot be reached.
    """
    rescues = {
        "broker_forgot": _broker_forgot(context),
        "lease_expired": _in_transaction(context, _expired_leases),
        "due": _in_transaction(context, _due_chunks),
        "chunk_message_lost": _in_transaction(context, _lost_chunk_messages),
        "job_message_lost": _in_transaction(context, _lost_job_messages),
        "synthesis_missing": _in_transaction(context, _missing_syntheses),
        "intake_abandoned": _in_transaction(context, _abandoned_intakes),
        "run_unsettled": _in_transaction(context, _unsettled_runs),
    }
    found = {reason: count for reason, count in rescues.items() if count}
    for reason, count in found.items():
        log.warning("recovery.rescued", reason=reason, count=count)
    return found


def take_up_after_standstill(context: Context) -> int:
    """Send everything unclaimed, if nobody holds any lease; return how much that was.

    For a scheduler that begins to lead: after a stop of the whole stack the messages that the
    workers had taken from the broker are lost, and nothing overtakes them.

    Raises:
        ServiceUnavailableError: The database cannot be reached.
    """
    return _in_transaction(context, _standstill)


def _standstill(context: Context, session: Session) -> int:  # noqa: ARG001 - one shape for all
    if session.scalar(select(unclaimed.somebody_works())):
        return 0
    return unclaimed.send_everything(session)


def _in_transaction(context: Context, rule: Rule) -> int:
    try:
        with reaching_database(), context.sessions.begin() as session:
            return rule(context, session)
    except ServiceUnavailableError:
        raise
    except Exception:  # one rule's defect must not keep the others from their work
        log.exception("recovery.defect", rule=rule.__name__)
        return 0


def _expired_leases(context: Context, session: Session) -> int:
    """Send chunks again whose worker is gone; set those aside that ended it too often."""
    rows = session.execute(
        select(Chunk.id, Chunk.job_id)
        .where(Chunk.status == ChunkStatus.RUNNING, Chunk.lease_until < clock.database_now())
        .order_by(Chunk.job_id, Chunk.id)
        .limit(_BATCH)
    ).all()
    for chunk_id, job_id in rows:
        jobs.lock(session, job_id)  # the job before its chunk, as everywhere
        if chunks.quarantine(session, chunk_id, context.settings.pipeline.max_attempts):
            end_if_last(session, job_id)
        elif chunks.reopen(session, chunk_id):
            unclaimed.send_again(session, [(chunk_id, job_id)], "lease expired")
    return len(rows)


def _due_chunks(context: Context, session: Session) -> int:  # noqa: ARG001 - one shape for all rules
    """Send chunks whose wait is over; `sent_at` after `due_at` says that this was done."""
    rows = session.execute(
        select(Chunk.id, Chunk.job_id)
        .where(
            Chunk.status == ChunkStatus.WAITING,
            Chunk.due_at <= clock.database_now(),
            ~outbox.is_promised(ANALYZE_CHUNK, of=Chunk.id),
            or_(Chunk.sent_at.is_(None), Chunk.sent_at < Chunk.due_at),
        )
        .limit(_BATCH)
        .with_for_update(key_share=True, skip_locked=True)
    ).all()
    return unclaimed.send_again(session, [(row[0], row[1]) for row in rows], "due")


def _lost_chunk_messages(context: Context, session: Session) -> int:
    """Send chunks again that younger messages have overtaken, or that nobody is working before.

    The queue is first in, first out: what was sent well before a message that has been taken up
    since, and still waits, is not in the queue any more.
    """
    stalled = timedelta(seconds=context.settings.pipeline.stalled_seconds)
    newest_taken = (
        select(func.max(Chunk.sent_at))
        .where(Chunk.started_at > clock.database_now() - stalled * 2)
        .scalar_subquery()
    )
    waiting = aliased(Chunk)
    rows = session.execute(
        select(waiting.id, waiting.job_id)
        .join(Job, Job.id == waiting.job_id)
        .where(
            Job.status.in_((JobStatus.RUNNING, JobStatus.WAITING)),
            unclaimed.unclaimed(waiting),
            ~outbox.is_promised(ANALYZE_CHUNK, of=waiting.id),
            or_(
                waiting.sent_at < newest_taken - _OVERTAKEN,
                (waiting.sent_at < clock.database_now() - stalled) & ~unclaimed.somebody_works(),
            ),
        )
        .limit(_BATCH)
        .with_for_update(key_share=True, skip_locked=True, of=waiting)
    ).all()
    return unclaimed.send_again(session, [(row[0], row[1]) for row in rows], "message lost")


def _lost_job_messages(context: Context, session: Session) -> int:
    """Fan jobs out again that wait although younger ones have begun, or nobody is working."""
    stalled = timedelta(seconds=context.settings.pipeline.stalled_seconds)
    newest_begun = (
        select(func.max(Job.created_at))
        .where(Job.started_at > clock.database_now() - stalled * 2)
        .scalar_subquery()
    )
    return _send_jobs(
        session,
        FAN_OUT,
        (Job.status == JobStatus.QUEUED)
        & or_(
            (Job.last_progress_at < newest_begun - _OVERTAKEN),
            (Job.last_progress_at < clock.database_now() - stalled) & ~unclaimed.somebody_works(),
        ),
    )


def _missing_syntheses(context: Context, session: Session) -> int:
    """Send the synthesis of jobs whose chunks have all ended and which nobody is finishing."""
    patience = timedelta(seconds=context.settings.pipeline.recovery_interval_seconds)
    open_chunk = exists().where(Chunk.job_id == Job.id, Chunk.status.in_(OPEN_CHUNKS))
    waiting = (Job.status == JobStatus.WAITING) & or_(
        Job.due_at.is_(None), Job.due_at <= clock.database_now()
    )
    abandoned = (Job.status == JobStatus.SYNTHESIZING) & (Job.lease_until < clock.database_now())
    idle = (Job.status == JobStatus.RUNNING) & Job.chunk_count.is_not(None)
    return _send_jobs(
        session,
        SYNTHESIZE,
        or_(waiting, abandoned, idle)
        & ~open_chunk
        & (Job.last_progress_at < clock.database_now() - patience),
    )


def _send_jobs(session: Session, task: str, condition: ColumnElement[bool]) -> int:
    ids = session.scalars(
        select(Job.id)
        .where(condition)
        .limit(_BATCH)
        .with_for_update(key_share=True, skip_locked=True)
    ).all()
    for job_id in ids:
        outbox.put(session, task, job_id, reason="recovery")
    session.execute(
        update(Job).where(Job.id.in_(ids)).values(last_progress_at=clock.database_now())
    )
    return len(ids)


def _abandoned_intakes(context: Context, session: Session) -> int:  # noqa: ARG001 - one shape for all
    """Close the intake of runs whose submitter went away in the middle."""
    recent = exists().where(
        Intake.run_id == Run.id, Intake.created_at > clock.database_now() - _ABANDONED_INTAKE
    )
    ids = session.scalars(
        select(Run.id).where(
            Run.intake_finished_at.is_(None),
            Run.status == RunStatus.OPEN,
            Run.created_at < clock.database_now() - _ABANDONED_INTAKE,
            ~recent,
        )
    ).all()
    for run_id in ids:
        runs.finish_intake(session, run_id, found_count=None)
    return len(ids)


def _unsettled_runs(context: Context, session: Session) -> int:  # noqa: ARG001 - one shape for all
    """Finish runs whose jobs have all ended; the last job does this itself, unless killed."""
    unfinished = exists().where(Job.run_id == Run.id, Job.status.in_(UNFINISHED_JOBS))
    ids = session.scalars(
        select(Run.id).where(
            Run.status == RunStatus.OPEN, Run.intake_finished_at.is_not(None), ~unfinished
        )
    ).all()
    for run_id in ids:
        runs.settle(session, run_id)
    return len(ids)


def _broker_forgot(context: Context) -> int:
    """Send everything unclaimed again, if the broker has lost its memory.

    The marker stands in the broker and in the database; a broker that restarted empty, or was
    flushed, does not know it any more.
    """
    try:
        found = context.messenger.marker()
    except ServiceUnavailableError as error:
        log.warning("recovery.broker_unreachable", reason=error.what)
        return 0
    with reaching_database(), context.sessions() as session:
        known = broker_marker.current(session)
    if found is not None and found == known:
        return 0
    # The broker first: where it takes no marker, it takes no messages either.
    marker = str(new_id())
    context.messenger.set_marker(marker)
    with reaching_database(), context.sessions.begin() as session:
        broker_marker.remember(session, marker)
        return unclaimed.send_everything(session) if known is not None else 0
