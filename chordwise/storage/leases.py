"""Leases on chunks and on syntheses of jobs: extended by heartbeats, released, or lost."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import TypeAlias

from sqlalchemy import ColumnElement, case, exists, or_, select, text, update
from sqlalchemy.orm import Session, aliased

from chordwise.domain.states import ChunkStatus, JobStatus
from chordwise.errors import ChordwiseError, TransientError
from chordwise.storage import clock
from chordwise.storage.chunks import Chunk
from chordwise.storage.jobs import Job
from chordwise.storage.model_calls import ModelCall
from chordwise.storage.postgresql import Lock
from chordwise.storage.record import update_rows

Leased: TypeAlias = type[Chunk] | type[Job]
"""The table of the work: a chunk, or a job whose synthesis is meant."""

LAST_ATTEMPT_WAIT = timedelta(seconds=5)
"""How long a last attempt waits while another one is in progress."""

_IN_PROGRESS: Mapping[Leased, str] = {
    Chunk: ChunkStatus.RUNNING,
    Job: JobStatus.SYNTHESIZING,
}
_FREE: Mapping[Leased, str] = {Chunk: ChunkStatus.PENDING, Job: JobStatus.RUNNING}
_WAITING: Mapping[Leased, str] = {Chunk: ChunkStatus.WAITING, Job: JobStatus.WAITING}
_ENDED: Mapping[str, None] = {"lease_until": None, "finished_at": None}


def extend(
    session: Session, table: Leased, tokens: Collection[uuid.UUID], lease: timedelta
) -> set[uuid.UUID]:
    """Extend leases; return the tokens of those that were still held.

    The rows are locked in the order of their ids, as in `chunks.end_all`.
    """
    is_held = table.lease_token.in_(tokens) & (table.status == _IN_PROGRESS[table])
    held = select(table.id).where(is_held).order_by(table.id).with_for_update(key_share=True)
    statement = (
        update(table)
        .where(table.id.in_(held), is_held)
        .values(lease_until=clock.now_plus(lease))
        .returning(table.lease_token)
    )
    return {token for token in session.scalars(statement) if token is not None}


def has_ended(session: Session, table: Leased, id_: uuid.UUID, token: uuid.UUID) -> bool:
    """Return whether work has left the lease with this token: it has ended, or is postponed."""
    left = (table.lease_token == token) & (table.status != _IN_PROGRESS[table])
    return session.scalar(select(table.id).where(table.id == id_, left)) is not None


def postpone(
    session: Session,
    table: Leased,
    id_: uuid.UUID,
    token: uuid.UUID,
    delay: timedelta,
    error: ChordwiseError,
) -> bool:
    """Postpone work until a due time; the attempt does not count. False if the lease is lost.

    The postponement counts unless `error.is_throttling`: the work then only waits for its turn.
    """
    is_throttling = isinstance(error, TransientError) and error.is_throttling
    return update_rows(
        session,
        table,
        _is_held(table, id_, token),
        status=_WAITING[table],
        due_at=clock.now_plus(delay),
        attempts=table.attempts - 1,
        postponements=table.postponements + int(not is_throttling),
        error_code=error.code,
        error_message=error.what,
        hint=error.hint or None,
        **_ENDED,
    )


def release(session: Session, table: Leased, id_: uuid.UUID, token: uuid.UUID) -> bool:
    """Release unfinished work; the attempt does not count. False if the lease is lost."""
    return _release(session, table, id_, token, table.attempts - 1)


def abandon(session: Session, table: Leased, id_: uuid.UUID, token: uuid.UUID) -> bool:
    """Release work that could not be finished; the attempt counts if a model was called.

    Otherwise a database that fails after each answer would cause unlimited paid calls.
    """
    if table is Chunk:
        of_work = (ModelCall.chunk_id == Chunk.id) & (ModelCall.started_at >= Chunk.started_at)
    else:
        of_synthesis = (ModelCall.job_id == Job.id) & ModelCall.chunk_id.is_(None)
        of_work = of_synthesis & (ModelCall.started_at >= Job.last_progress_at)
    attempts = case((exists().where(of_work), table.attempts), else_=table.attempts - 1)
    return _release(session, table, id_, token, attempts)


def _release(
    session: Session, table: Leased, id_: uuid.UUID, token: uuid.UUID, attempts: ColumnElement[int]
) -> bool:
    values = {"status": _FREE[table], "attempts": attempts, "lease_token": None, **_ENDED}
    return update_rows(session, table, _is_held(table, id_, token), **values)


def _is_held(table: Leased, id_: uuid.UUID, token: uuid.UUID) -> ColumnElement[bool]:
    is_leased = (table.lease_token == token) & (table.status == _IN_PROGRESS[table])
    return (table.id == id_) & is_leased


def is_last(attempts: int, max_attempts: int) -> bool:
    """Return whether the next attempt is the last one; a first attempt never is."""
    return attempts >= attempts_before_last(max_attempts)


def attempts_before_last(max_attempts: int) -> int:
    """Return the number of attempts after which the next one is the last; at least one."""
    return max(1, max_attempts - 1)


def may_claim(session: Session, attempts: int, max_attempts: int) -> bool:
    """Return whether work with this number of attempts may be claimed now.

    For a last attempt, a lock prevents other last attempts until the transaction ends.
    """
    if not is_last(attempts, max_attempts):
        return True
    session.execute(text(Lock.LAST_ATTEMPT.statement()))
    last, now = max(2, max_attempts), clock.database_now()
    in_progress = [
        exists().where(
            work.status == _IN_PROGRESS[table], work.attempts >= last, work.lease_until > now
        )
        for table in _IN_PROGRESS
        for work in (aliased(table),)
    ]
    return not session.scalar(select(or_(*in_progress)))
