"""Questions that wait for the answer to the very same question of somebody else."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, SQLColumnExpression, delete, exists, select
from sqlalchemy.orm import Session, aliased

from chordwise.domain.lanes import BatchRequestStatus
from chordwise.domain.states import UNFINISHED_JOBS, WORKING_JOBS
from chordwise.storage import batch_requests
from chordwise.storage.batch_requests import BatchRequest
from chordwise.storage.jobs import Job, of_cancelled_run
from chordwise.storage.runs import Run


def of(session: Session, keys: Collection[str]) -> Sequence[BatchRequest]:
    """Return those that follow one of these questions, locked in the order of their ids."""
    if not keys:
        return []
    return session.scalars(
        select(BatchRequest)
        .where(BatchRequest.key.in_(keys), _follows(BatchRequest.status))
        .order_by(BatchRequest.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()


def want(session: Session, batch_id: uuid.UUID) -> bool:
    """Tell whether anybody waits for an answer of a batch to the same question of another."""
    follower = aliased(BatchRequest)
    wanted = exists().where(
        BatchRequest.batch_id == batch_id,
        BatchRequest.leads,
        follower.key == BatchRequest.key,
        _follows(follower.status),
        Job.id == follower.job_id,
        Job.status.in_(UNFINISHED_JOBS),
    )
    return bool(session.scalar(select(wanted)))


def has_cancelled(session: Session, batch_id: uuid.UUID) -> bool:
    """Tell whether a batch has questions of a cancelled run that nobody else waits for.

    No run of a question in it is cancelled before the transaction ends.
    """
    in_batch = (
        select(Job.run_id)
        .join(BatchRequest, BatchRequest.job_id == Job.id)
        .where(BatchRequest.batch_id == batch_id)
    )
    session.execute(
        select(Run.id).where(Run.id.in_(in_batch)).order_by(Run.id).with_for_update(read=True)
    )
    follower, of_follower = aliased(BatchRequest), aliased(Job)
    followed = exists().where(
        follower.key == BatchRequest.key,
        _follows(follower.status),
        of_follower.id == follower.job_id,
        of_follower.status.in_(UNFINISHED_JOBS),
    )
    cancelled = exists().where(
        BatchRequest.batch_id == batch_id,
        BatchRequest.status == BatchRequestStatus.SUBMITTED,
        Job.id == BatchRequest.job_id,
        of_cancelled_run(),
        ~(BatchRequest.leads & followed),
    )
    return bool(session.scalar(select(cancelled)))


def drop_idle_leaders(session: Session, limit: int) -> int:
    """Delete questions of paused jobs that others follow and no provider knows; free their money.

    Their own jobs ask anew when somebody takes them up; the others need not wait for that.
    """
    follower, of_follower = aliased(BatchRequest), aliased(Job)
    followed = exists().where(
        follower.key == BatchRequest.key,
        _follows(follower.status),
        of_follower.id == follower.job_id,
        of_follower.status.in_(WORKING_JOBS),
    )
    moves = exists().where(Job.id == BatchRequest.job_id, Job.status.in_(WORKING_JOBS))
    rows = session.scalars(
        select(BatchRequest)
        .where(
            BatchRequest.leads,
            BatchRequest.status == BatchRequestStatus.PENDING,
            ~moves,
            followed,
        )
        .order_by(BatchRequest.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    batch_requests.remove(session, rows)
    return len(rows)


def drop_lost(session: Session, limit: int) -> int:
    """Delete questions that follow nobody any more; who asked them is sent again and asks anew.

    Whoever led was called off or asked online, or has just got its answer.
    """
    leader = aliased(BatchRequest)
    leads = exists().where(
        leader.key == BatchRequest.key, leader.leads, leader.finished_at.is_(None)
    )
    lost = (
        select(BatchRequest.id)
        .where(_follows(BatchRequest.status), ~leads)
        .order_by(BatchRequest.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    statement = delete(BatchRequest).where(BatchRequest.id.in_(lost)).returning(BatchRequest.id)
    return len(session.scalars(statement).all())


def _follows(status: SQLColumnExpression[str]) -> ColumnElement[bool]:
    return status == BatchRequestStatus.FOLLOWING
