"""Work that waits for a worker: telling it, and sending it again."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import ColumnElement, exists, false, or_, select, true
from sqlalchemy.orm import Session, aliased

from chordwise.domain.states import ChunkStatus, JobStatus
from chordwise.errors import ServiceUnavailableError
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.messages import ANALYZE_SLICE, FAN_OUT
from chordwise.storage import chunks, clock, outbox
from chordwise.storage.chunks import Chunk
from chordwise.storage.jobs import Job

_LONG_QUEUE = 500


def somebody_works() -> ColumnElement[bool]:
    """Return the condition that a worker holds a live lease on a chunk."""
    running = aliased(Chunk)
    return exists().where(
        running.status == ChunkStatus.RUNNING, running.lease_until > clock.database_now()
    )


def queue_is_empty(context: Context, queue: str) -> ColumnElement[bool]:
    """Return the condition that no message waits in a queue, as far as the broker can say."""
    try:
        return false() if context.messenger.is_waiting(queue) else true()
    except ServiceUnavailableError:
        return false()


def queue_is_long(context: Context, queue: str) -> ColumnElement[bool]:
    """Return the condition that so many wait in a queue that whoever waits long may be there.

    Sent again by the thousand, they would make it longer than the workers make it shorter.
    """
    try:
        return true() if context.messenger.is_waiting(queue, more_than=_LONG_QUEUE) else false()
    except ServiceUnavailableError:
        return false()


def unclaimed(chunk: type[Chunk]) -> ColumnElement[bool]:
    """Return the condition that a chunk is there for whoever gets its message."""
    due = (chunk.status == ChunkStatus.WAITING) & (chunk.due_at <= clock.database_now())
    return or_(chunk.status == ChunkStatus.PENDING, due)


def send_again(session: Session, found: Sequence[tuple[uuid.UUID, uuid.UUID]], reason: str) -> int:
    """Promise messages for chunks, given with their jobs; return how many those are."""
    outbox.put_all(session, ANALYZE_SLICE, ((chunk_id,) for chunk_id, _ in found), reason=reason)
    chunks.mark_sent(session, [chunk_id for chunk_id, _ in found])
    return len(found)


def send_everything(session: Session) -> int:
    """Promise messages for all that waits and has none promised; return how much that is."""
    rows = session.execute(
        select(Chunk.id, Chunk.job_id)
        .join(Job, Job.id == Chunk.job_id)
        .where(
            Job.status.in_((JobStatus.RUNNING, JobStatus.WAITING)),
            unclaimed(Chunk),
            ~outbox.is_promised(ANALYZE_SLICE, of=Chunk.id),
        )
        .order_by(Chunk.id)
    ).all()
    count = send_again(session, [(row[0], row[1]) for row in rows], "everything")
    queued = session.scalars(
        select(Job.id).where(
            Job.status == JobStatus.QUEUED,
            Job.reused_from.is_(None),
            ~outbox.is_promised(FAN_OUT, of=Job.id),
        )
    ).all()
    outbox.put_all(session, FAN_OUT, ((job_id,) for job_id in queued), reason="everything")
    return count + len(queued)
