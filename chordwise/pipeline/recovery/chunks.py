"""Rules of recovery for chunks: expired leases, due times and lost messages."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypeAlias

from sqlalchemy import (
    ColumnElement,
    Select,
    case,
    exists,
    false,
    func,
    null,
    or_,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.orm import Session, aliased

from chordwise.domain.states import ChunkStatus, JobStatus
from chordwise.errors import ServiceUnavailableError
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.messages import ANALYZE_SLICE, CHUNK_QUEUE, FAN_OUT, SYNTHESIZE
from chordwise.storage import chunk_leases, chunks, clock, jobs, outbox
from chordwise.storage.chunks import Chunk
from chordwise.storage.jobs import Job
from chordwise.storage.record import in_ids

BATCH = 500
OVERTAKEN = timedelta(seconds=10)
ANALYZING = (JobStatus.RUNNING, JobStatus.WAITING)
"""Jobs whose chunks are to be analyzed."""


def resend_expired(context: Context, session: Session) -> int:
    """Send chunks again whose lease has expired; quarantine those that have no attempts left."""
    if not session.scalar(select(clock.leases_may_expire())):
        return 0
    rows = session.execute(
        select(Chunk.id, Chunk.job_id, Chunk.attempts)
        .where(Chunk.status == ChunkStatus.RUNNING, Chunk.lease_until < clock.database_now())
        .order_by(Chunk.job_id, Chunk.id)
        .limit(BATCH)
    ).all()
    jobs.lock_all(
        session, {row[1] for row in rows}
    )  # the usual lock order: the job before its chunk
    max_attempts = context.settings.pipeline.max_attempts
    for chunk_id, job_id, attempts in rows:
        if attempts >= max_attempts and chunk_leases.quarantine(session, chunk_id, max_attempts):
            jobs.count_down(session, [job_id], SYNTHESIZE)
    _reopen(session, [row[0] for row in rows], max_attempts)
    return len(rows)


def _reopen(session: Session, chunk_ids: Sequence[uuid.UUID], max_attempts: int) -> None:
    """Release and send chunks whose lease has expired; the attempt remains counted.

    Chunks with one attempt left are not sent: `send_last_attempts` sends them one at a time.
    """
    freed = session.execute(
        update(Chunk)
        .where(
            in_ids(Chunk.id, chunk_ids),
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
        .returning(Chunk.id, Chunk.attempts)
    ).all()
    again = [row[0] for row in freed if not chunk_leases.is_last(row[1], max_attempts)]
    send_again(session, again, "lease expired")


def send_last_attempts(context: Context, session: Session) -> int:
    """Send the next chunk that has one attempt left, if no other such chunk is sent or running."""
    max_attempts = context.settings.pipeline.max_attempts
    stalled = timedelta(seconds=context.settings.pipeline.stalled_seconds)
    claimed_before = (Chunk.status == ChunkStatus.PENDING) & (Chunk.attempts > 0)
    waiting = claimed_before & (Chunk.attempts >= max_attempts - 1)
    on_its_way = select(Chunk.id).where(waiting, Chunk.sent_at > clock.database_now() - stalled)
    wanted = (
        select(Chunk.id)
        .join(Job, Job.id == Chunk.job_id)
        .where(
            waiting,
            Job.status.in_(ANALYZING),
            Chunk.sent_at.is_(None),
            ~outbox.is_promised(ANALYZE_SLICE, of=Chunk.id),
            ~on_its_way.exists(),
            ~chunk_leases.is_last_attempt_running(max_attempts),
        )
        .order_by(Chunk.id)
    )
    ids = lock_some(session, wanted, Chunk, limit=1)
    return send_again(session, ids, outbox.LAST_ATTEMPT)


def send_unsent(context: Context, session: Session) -> int:
    """Send chunks that were never sent to the broker, of jobs whose fan-out is not in progress."""
    max_attempts = context.settings.pipeline.max_attempts
    wanted = (
        select(Chunk.id)
        .join(Job, Job.id == Chunk.job_id)
        .where(
            Chunk.status == ChunkStatus.PENDING,
            Chunk.attempts < max(1, max_attempts - 1),
            Chunk.sent_at.is_(None),
            Job.status.in_(ANALYZING),
            Job.last_progress_at < clock.database_now() - context.lease,
            ~outbox.is_promised(ANALYZE_SLICE, of=Chunk.id),
        )
        .order_by(Chunk.id)
    )
    return send_again(session, lock_some(session, wanted, Chunk), "never sent")


def send_due(context: Context, session: Session) -> int:  # noqa: ARG001 - one shape for all rules
    """Send chunks that are due; `sent_at` after `due_at` records that this was done."""
    wanted = select(Chunk.id).where(
        Chunk.status == ChunkStatus.WAITING,
        Chunk.due_at <= clock.statement_start(),
        ~outbox.is_promised(ANALYZE_SLICE, of=Chunk.id),
        or_(Chunk.sent_at.is_(None), Chunk.sent_at < Chunk.due_at),
    )
    return send_again(session, lock_some(session, wanted, Chunk), "due")


def resend_lost(context: Context, session: Session) -> int:
    """Send chunks again whose message was overtaken, or is in no queue any more.

    The queue is first in, first out: a chunk that was sent well before a message that has been
    received since, and still waits, has lost its message. If no worker is active, messages are lost
    if the queue is empty; while messages wait in it, further ones would only accumulate. A chunk
    that is due and was not sent since has no message to lose.
    """
    stalled = timedelta(seconds=context.settings.pipeline.stalled_seconds)
    newest_taken = (
        select(func.max(Chunk.sent_at))
        .where(Chunk.started_at > clock.statement_start() - stalled * 2)
        .scalar_subquery()
    )
    sent_before = lost_since(context, session, newest_taken - OVERTAKEN, CHUNK_QUEUE)
    if sent_before is None:
        return 0
    waiting = aliased(Chunk)
    is_due = (waiting.status == ChunkStatus.WAITING) & (waiting.due_at <= clock.database_now())
    wanted = (
        select(waiting.id)
        .join(Job, Job.id == waiting.job_id)
        .where(
            Job.status.in_(ANALYZING),
            or_(
                waiting.status == ChunkStatus.PENDING, is_due & (waiting.sent_at >= waiting.due_at)
            ),
            waiting.sent_at < sent_before,
            ~outbox.is_promised(ANALYZE_SLICE, of=waiting.id),
        )
    )
    return send_again(session, lock_some(session, wanted, waiting), "message lost")


def lock_some(
    session: Session, wanted: Select[uuid.UUID], of: type[Chunk | Job], limit: int = BATCH
) -> Sequence[uuid.UUID]:
    """Lock at most `limit` rows of a table that a query selects and return their ids.

    Rows that other transactions have locked are skipped.
    """
    locking = wanted.limit(limit).with_for_update(key_share=True, skip_locked=True, of=of)
    return session.scalars(locking).all()


MAX_PROMISED = 2_000
_LONG_QUEUE = 500
_Place: TypeAlias = tuple[datetime, uuid.UUID]
"""The end of a batch of jobs: the creation time and id of its last job."""


def worker_is_active() -> ColumnElement[bool]:
    """Return the condition that a worker holds a live lease on a chunk."""
    running = aliased(Chunk)
    return exists().where(
        running.status == ChunkStatus.RUNNING, running.lease_until > clock.database_now()
    )


def queue_is_empty(context: Context, queue: str) -> ColumnElement[bool]:
    """Return the condition that a queue is empty; false if the broker is unavailable."""
    try:
        return false() if context.messenger.is_waiting(queue) else true()
    except ServiceUnavailableError:
        return false()


def queue_is_long(context: Context, queue: str) -> ColumnElement[bool]:
    """Return the condition that a queue is so long that a long wait does not indicate a loss.

    If thousands of messages were sent again, the queue would grow faster than the workers empty it.
    """
    try:
        return true() if context.messenger.is_waiting(queue, more_than=_LONG_QUEUE) else false()
    except ServiceUnavailableError:
        return false()


def lost_since(
    context: Context,
    session: Session,
    overtaken: ColumnElement[datetime] | ColumnElement[datetime | None],
    queue: str,
) -> datetime | None:
    """Return the time before which waiting work that was sent has lost its message, if any.

    This is `overtaken`, or `stalled_seconds` ago if that is later, no worker is active, and the
    queue is empty. It is a separate query, so that the planner knows which part of an index
    precedes this time.
    """
    stalled = timedelta(seconds=context.settings.pipeline.stalled_seconds)
    in_no_queue = ~worker_is_active() & queue_is_empty(context, queue)
    left = case((in_no_queue, clock.database_now() - stalled), else_=null())
    return session.scalar(select(func.greatest(overtaken, left)))


def send_again(session: Session, chunk_ids: Sequence[uuid.UUID], reason: str) -> int:
    """Put messages for chunks into the outbox; return their number."""
    if chunk_ids:
        outbox.add_all(session, ANALYZE_SLICE, ((id_,) for id_ in chunk_ids), reason=reason)
        chunks.mark_sent(session, chunk_ids)
    return len(chunk_ids)


def send_everything(context: Context, begun_at: datetime) -> int:
    """Put messages for all waiting work not sent since a time into the outbox; return their number.

    Work that has a message in the outbox gets no second one. Each transaction takes `MAX_PROMISED`
    rows and marks them as sent, so that a repetition with the same `begun_at` continues after the
    last commit.

    Raises:
        ServiceUnavailableError: The database cannot be reached; committed messages remain.
    """
    total = 0
    for condition in _unsent_since(begun_at):
        found = MAX_PROMISED
        while found == MAX_PROMISED:
            with context.database.write() as session:
                found, promised = _send_chunks(session, condition)
            total += promised
    after: _Place | None = None
    while True:
        with context.database.write() as session:
            after, promised = _send_queued(session, begun_at, after)
        total += promised
        if after is None:
            return total


def _unsent_since(begun_at: datetime) -> Sequence[ColumnElement[bool]]:
    """Return the conditions, one for each range of an index, of waiting chunks that are unsent."""
    pending = Chunk.status == ChunkStatus.PENDING
    is_unsent = or_(Chunk.sent_at.is_(None), Chunk.sent_at < begun_at)
    return (
        pending & (Chunk.sent_at < begun_at),
        pending & Chunk.sent_at.is_(None),
        (Chunk.status == ChunkStatus.WAITING) & (Chunk.due_at <= begun_at) & is_unsent,
    )


def _send_chunks(session: Session, condition: ColumnElement[bool]) -> tuple[int, int]:
    """Send a batch of chunks; return the number of chunks found and of messages.

    Chunks of paused jobs are marked as well, which excludes them from the next batch; `retry`
    clears the mark.
    """
    ids = lock_some(session, select(Chunk.id).where(condition), Chunk, MAX_PROMISED)
    chunks.mark_sent(session, ids)
    is_wanted = in_ids(Chunk.id, outbox.unpromised(session, ANALYZE_SLICE, ids))
    wanted = (
        select(Chunk.id)
        .join(Job, Job.id == Chunk.job_id)
        .where(is_wanted, Job.status.in_(ANALYZING))
        .order_by(Chunk.id)
    )
    return len(ids), outbox.add_selected(session, ANALYZE_SLICE, wanted, reason="everything")


def _send_queued(
    session: Session, begun_at: datetime, after: _Place | None
) -> tuple[_Place | None, int]:
    """Send a batch of queued jobs; return the place after it, if any are left, and their number."""
    statement = select(Job.created_at, Job.id).where(
        Job.status == JobStatus.QUEUED, Job.reused_from.is_(None), Job.last_progress_at < begun_at
    )
    if after is not None:
        statement = statement.where(tuple_(Job.created_at, Job.id) > tuple_(*after))
    rows = session.execute(
        statement.order_by(Job.created_at, Job.id)
        .limit(MAX_PROMISED)
        .with_for_update(key_share=True, skip_locked=True)
    ).all()
    ids = [row[1] for row in rows]
    session.execute(
        update(Job).where(in_ids(Job.id, ids)).values(last_progress_at=clock.database_now())
    )
    is_wanted = in_ids(Job.id, outbox.unpromised(session, FAN_OUT, ids))
    wanted = select(Job.id).where(is_wanted).order_by(Job.id)
    promised = outbox.add_selected(session, FAN_OUT, wanted, reason="everything")
    return ((rows[-1][0], rows[-1][1]) if len(rows) == MAX_PROMISED else None), promised
