"""Rules of recovery for chunks: whose worker is gone, whose wait is over, whose message is lost."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session, aliased

from chordwise.domain.states import ChunkStatus, JobStatus
from chordwise.pipeline.recovery import unclaimed
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.messages import ANALYZE_SLICE, CHUNK_QUEUE, SYNTHESIZE
from chordwise.storage import chunk_leases, clock, jobs, outbox
from chordwise.storage.chunks import Chunk
from chordwise.storage.jobs import Job
from chordwise.storage.record import among

BATCH = 500
OVERTAKEN = timedelta(seconds=10)
_WORKING = (JobStatus.RUNNING, JobStatus.WAITING)


def expired_leases(context: Context, session: Session) -> int:
    """Send chunks again whose worker is gone; set those aside that ended it too often."""
    if not session.scalar(select(clock.holders_have_come())):
        return 0
    rows = session.execute(
        select(Chunk.id, Chunk.job_id, Chunk.attempts)
        .where(Chunk.status == ChunkStatus.RUNNING, Chunk.lease_until < clock.database_now())
        .order_by(Chunk.job_id, Chunk.id)
        .limit(BATCH)
    ).all()
    jobs.lock_all(session, {row[1] for row in rows})  # the job before its chunk, as everywhere
    most_attempts = context.settings.pipeline.max_attempts
    for chunk_id, job_id, attempts in rows:
        if attempts >= most_attempts and chunk_leases.quarantine(session, chunk_id, most_attempts):
            jobs.count_down(session, [job_id], SYNTHESIZE)
    _reopen(session, [row[0] for row in rows], most_attempts)
    return len(rows)


def _reopen(session: Session, chunk_ids: Sequence[uuid.UUID], most_attempts: int) -> None:
    """Free and send chunks whose lease has run out; the attempt stays counted.

    What has its last attempt to come waits for its turn.
    """
    freed = session.execute(
        update(Chunk)
        .where(
            among(Chunk.id, chunk_ids),
            Chunk.status == ChunkStatus.RUNNING,
            Chunk.lease_until < clock.database_now(),
        )
        .values(
            status=ChunkStatus.PENDING,
            lease_token=None,
            lease_until=None,
            finished_at=None,
            sent_at=None,
        )
        .returning(Chunk.id, Chunk.job_id, Chunk.attempts)
    ).all()
    again = [(row[0], row[1]) for row in freed if not chunk_leases.is_last(row[2], most_attempts)]
    unclaimed.send_again(session, again, "lease expired")


def last_attempts_in_turn(context: Context, session: Session) -> int:
    """Send the next chunk that has its last attempt to come, if no other such is under way."""
    most_attempts = context.settings.pipeline.max_attempts
    stalled = timedelta(seconds=context.settings.pipeline.stalled_seconds)
    claimed_before = (Chunk.status == ChunkStatus.PENDING) & (Chunk.attempts > 0)
    waiting = claimed_before & (Chunk.attempts >= most_attempts - 1)
    on_its_way = select(Chunk.id).where(waiting, Chunk.sent_at > clock.database_now() - stalled)
    row = session.execute(
        select(Chunk.id, Chunk.job_id)
        .join(Job, Job.id == Chunk.job_id)
        .where(
            waiting,
            Job.status.in_(_WORKING),
            Chunk.sent_at.is_(None),
            ~outbox.is_promised(ANALYZE_SLICE, of=Chunk.id),
            ~on_its_way.exists(),
            ~chunk_leases.somebody_is_at_one(most_attempts),
        )
        .order_by(Chunk.id)
        .limit(1)
        .with_for_update(key_share=True, skip_locked=True, of=Chunk)
    ).first()
    return unclaimed.send_again(session, [(row[0], row[1])], outbox.LAST_ATTEMPT) if row else 0


def never_sent(context: Context, session: Session) -> int:
    """Send chunks that the broker was never given, of jobs that nobody is fanning out any more."""
    most_attempts = context.settings.pipeline.max_attempts
    rows = session.execute(
        select(Chunk.id, Chunk.job_id)
        .join(Job, Job.id == Chunk.job_id)
        .where(
            Chunk.status == ChunkStatus.PENDING,
            Chunk.attempts < max(1, most_attempts - 1),
            Chunk.sent_at.is_(None),
            Job.status.in_(_WORKING),
            Job.last_progress_at < clock.database_now() - context.lease,
            ~outbox.is_promised(ANALYZE_SLICE, of=Chunk.id),
        )
        .order_by(Chunk.id)
        .limit(BATCH)
        .with_for_update(key_share=True, skip_locked=True, of=Chunk)
    ).all()
    return unclaimed.send_again(session, [(row[0], row[1]) for row in rows], "never sent")


def due(context: Context, session: Session) -> int:  # noqa: ARG001 - one shape for all rules
    """Send chunks whose wait is over; `sent_at` after `due_at` says that this was done."""
    rows = session.execute(
        select(Chunk.id, Chunk.job_id)
        .where(
            Chunk.status == ChunkStatus.WAITING,
            Chunk.due_at <= clock.statement_start(),
            ~outbox.is_promised(ANALYZE_SLICE, of=Chunk.id),
            or_(Chunk.sent_at.is_(None), Chunk.sent_at < Chunk.due_at),
        )
        .limit(BATCH)
        .with_for_update(key_share=True, skip_locked=True)
    ).all()
    return unclaimed.send_again(session, [(row[0], row[1]) for row in rows], "due")


def lost_messages(context: Context, session: Session) -> int:
    """Send chunks again that younger messages have overtaken, or that are in no queue any more.

    The queue is first in, first out: what was sent well before a message that has been taken up
    since, and still waits, is not in it any more. Where nobody works, an empty queue tells; as long
    as messages wait there, further ones would only pile up. What is due and was not sent since has
    no message to lose.
    """
    stalled = timedelta(seconds=context.settings.pipeline.stalled_seconds)
    newest_taken = (
        select(func.max(Chunk.sent_at))
        .where(Chunk.started_at > clock.statement_start() - stalled * 2)
        .scalar_subquery()
    )
    sent_before = unclaimed.lost_since(context, session, newest_taken - OVERTAKEN, CHUNK_QUEUE)
    if sent_before is None:
        return 0
    waiting = aliased(Chunk)
    rows = session.execute(
        select(waiting.id, waiting.job_id)
        .join(Job, Job.id == waiting.job_id)
        .where(
            Job.status.in_(_WORKING),
            unclaimed.unclaimed(waiting),
            or_(waiting.status == ChunkStatus.PENDING, waiting.sent_at >= waiting.due_at),
            waiting.sent_at < sent_before,
            ~outbox.is_promised(ANALYZE_SLICE, of=waiting.id),
        )
        .limit(BATCH)
        .with_for_update(key_share=True, skip_locked=True, of=waiting)
    ).all()
    return unclaimed.send_again(session, [(row[0], row[1]) for row in rows], "message lost")
