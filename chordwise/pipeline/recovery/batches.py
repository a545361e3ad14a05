"""The rules of recovery for the batch lane: whose answers have come, and what nobody wants."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from chordwise.domain.states import ChunkStatus, JobStatus
from chordwise.errors import AwaitingBatchError
from chordwise.pipeline.recovery import unclaimed
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.messages import SYNTHESIZE
from chordwise.storage import batch_requests, clock, outbox
from chordwise.storage.chunks import Chunk
from chordwise.storage.jobs import Job

_MOST = 500
_WORKING = (JobStatus.RUNNING, JobStatus.WAITING)


def answered(context: Context, session: Session) -> int:  # noqa: ARG001 - one shape for all rules
    """Send chunks and syntheses again once no answer of theirs is to come any more.

    It is their rows that are looked at, so it does not matter whether the answer came before the
    work was put off or after it.
    """
    return _chunks(session) + _syntheses(session)


def unwanted(context: Context, session: Session) -> int:  # noqa: ARG001 - one shape for all rules
    """Drop questions that no provider has heard of, where nobody wants them or they lead nowhere.

    Those are of jobs that were called off; of paused ones for which others wait; and those that
    wait for the answer to the same question of somebody who does not ask it any more.
    """
    dropped = batch_requests.drop_unwanted(session, _MOST)
    dropped += batch_requests.drop_idle_leaders(session, _MOST)
    return dropped + batch_requests.drop_lost(session, _MOST)


def _chunks(session: Session) -> int:
    rows = session.execute(
        select(Chunk.id, Chunk.job_id)
        .join(Job, Job.id == Chunk.job_id)
        .where(
            Chunk.status == ChunkStatus.WAITING,
            Chunk.error_code == AwaitingBatchError.code,
            Chunk.due_at > clock.database_now(),
            Job.status.in_(_WORKING),
            ~batch_requests.is_awaited(Chunk.id),
        )
        .order_by(Chunk.id)
        .limit(_MOST)
        .with_for_update(key_share=True, skip_locked=True, of=Chunk)
    ).all()
    session.execute(
        update(Chunk)
        .where(Chunk.id.in_([row[0] for row in rows]))
        .values(due_at=clock.database_now())
    )
    return unclaimed.send_again(session, [(row[0], row[1]) for row in rows], "batch answered")


def _syntheses(session: Session) -> int:
    ids = session.scalars(
        select(Job.id)
        .where(
            Job.status == JobStatus.WAITING,
            Job.error_code == AwaitingBatchError.code,
            Job.due_at > clock.database_now(),
            ~batch_requests.is_awaited(Job.id),
        )
        .order_by(Job.id)
        .limit(_MOST)
        .with_for_update(key_share=True, skip_locked=True)
    ).all()
    outbox.put_all(session, SYNTHESIZE, ((job_id,) for job_id in ids), reason="batch answered")
    now = clock.database_now()
    session.execute(update(Job).where(Job.id.in_(ids)).values(due_at=now, last_progress_at=now))
    return len(ids)
