"""Leases on chunks: taken with a claim, kept by heartbeats, given back, or taken away."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import timedelta

from sqlalchemy import ColumnElement, and_, case, exists, or_, select, update
from sqlalchemy.orm import Session

from chordwise.domain.states import ChunkStatus, JobStatus
from chordwise.errors import TransientError
from chordwise.storage import clock, last_attempts
from chordwise.storage.chunks import Chunk, held, leave
from chordwise.storage.jobs import Job, of_cancelled_run
from chordwise.storage.model_calls import ModelCall


def claimable() -> ColumnElement[bool]:
    """Return the condition under which a chunk waits for somebody to take it."""
    return or_(
        Chunk.status == ChunkStatus.PENDING,
        and_(Chunk.status == ChunkStatus.WAITING, Chunk.due_at <= clock.database_now()),
        and_(Chunk.status == ChunkStatus.RUNNING, Chunk.lease_until < clock.database_now()),
    )


def claim(
    session: Session,
    chunk_id: uuid.UUID,
    token: uuid.UUID,
    lease: timedelta,
    most_attempts: int,
) -> Chunk | None:
    """Take an open chunk of a job whose row is locked, counting the attempt.

    Nothing is returned when the chunk is finished, not due yet, or somebody is at it, and when it
    has to wait for its last attempt. A claim that was made already with this token is found again.
    """
    chunk = session.get(Chunk, chunk_id, populate_existing=True)
    if chunk is None:
        return None
    if chunk.lease_token == token and chunk.status == ChunkStatus.RUNNING:
        return chunk
    if not last_attempts.may_begin(session, chunk.attempts, most_attempts):
        _forget_message(session, chunk_id)
        return None
    statement = (
        update(Chunk)
        .where(Chunk.id == chunk_id, claimable(), _of_working_job())
        .values(
            status=ChunkStatus.RUNNING,
            attempts=Chunk.attempts + 1,
            lease_token=token,
            lease_until=clock.after(lease),
            due_at=None,
            started_at=clock.database_now(),
        )
        .returning(Chunk)
        .execution_options(populate_existing=True)
    )
    return session.scalars(statement).one_or_none()


def holds(session: Session, chunk_id: uuid.UUID, token: uuid.UUID) -> bool:
    """Tell whether a chunk is still claimed with this token, and its run not cancelled.

    It stays so until the transaction ends.
    """
    found = (
        select(Chunk.id)
        .join(Job, Job.id == Chunk.job_id)
        .where(held(chunk_id, token), ~of_cancelled_run())
        .with_for_update(read=True, of=Chunk)
    )
    return session.scalar(found) is not None


def extend(session: Session, tokens: Collection[uuid.UUID], lease: timedelta) -> set[uuid.UUID]:
    """Prolong leases; return the tokens of those that still held."""
    statement = (
        update(Chunk)
        .where(Chunk.lease_token.in_(tokens), Chunk.status == ChunkStatus.RUNNING)
        .values(lease_until=clock.after(lease))
        .returning(Chunk.lease_token)
    )
    return {token for token in session.scalars(statement) if token is not None}


def postpone(
    session: Session,
    chunk_id: uuid.UUID,
    token: uuid.UUID,
    delay: timedelta,
    error: TransientError,
) -> bool:
    """Put a chunk off to a due-time; the attempt does not count.

    The postponement does, unless the chunk only waits for its turn.
    """
    return leave(
        session,
        held(chunk_id, token),
        status=ChunkStatus.WAITING,
        due_at=clock.after(delay),
        attempts=Chunk.attempts - 1,
        postponements=Chunk.postponements + int(not error.is_throttling),
        error_code=error.code,
        error_message=error.what,
        hint=error.hint or None,
        finished_at=None,
    )


def release(session: Session, chunk_id: uuid.UUID, token: uuid.UUID) -> bool:
    """Give a chunk back unharmed: the attempt does not count."""
    return leave(
        session,
        held(chunk_id, token),
        status=ChunkStatus.PENDING,
        attempts=Chunk.attempts - 1,
        lease_token=None,
        finished_at=None,
    )


def give_up(session: Session, chunk_id: uuid.UUID, token: uuid.UUID) -> bool:
    """Give a chunk back that could not be finished; the attempt counts if a model was asked.

    Otherwise a database that keeps failing after each answer would have it paid for without end.
    """
    asked = exists().where(ModelCall.chunk_id == Chunk.id, ModelCall.started_at >= Chunk.started_at)
    return leave(
        session,
        held(chunk_id, token),
        status=ChunkStatus.PENDING,
        attempts=case((asked, Chunk.attempts), else_=Chunk.attempts - 1),
        lease_token=None,
        finished_at=None,
    )


def reopen(session: Session, chunk_id: uuid.UUID) -> bool:
    """Free a chunk whose lease has run out; the attempt stays counted."""
    expired = and_(
        Chunk.id == chunk_id,
        Chunk.status == ChunkStatus.RUNNING,
        Chunk.lease_until < clock.database_now(),
    )
    return leave(
        session,
        expired,
        status=ChunkStatus.PENDING,
        lease_token=None,
        finished_at=None,
        sent_at=None,
    )


def quarantine(session: Session, chunk_id: uuid.UUID, attempts: int) -> bool:
    """Set a chunk aside that ended its worker too often; false when it is claimed or finished."""
    return leave(
        session,
        and_(Chunk.id == chunk_id, Chunk.attempts >= attempts, claimable()),
        status=ChunkStatus.QUARANTINED,
        lease_token=None,
        error_code="worker_lost",
        error_message=f"The worker was lost {attempts} times while it was at this chunk.",
        hint="Look at the worker's log; `chordwise retry RUN` tries again.",
    )


def _forget_message(session: Session, chunk_id: uuid.UUID) -> None:
    """Note that the message for a chunk has come too early and is gone."""
    session.execute(
        update(Chunk)
        .where(Chunk.id == chunk_id, Chunk.status == ChunkStatus.PENDING)
        .values(sent_at=None)
    )


def _of_working_job() -> ColumnElement[bool]:
    """Return the condition that the chunk's job is neither paused nor at its end, nor its run."""
    working = Job.status.in_((JobStatus.RUNNING, JobStatus.WAITING))
    return exists().where(Job.id == Chunk.job_id, working, ~of_cancelled_run())
