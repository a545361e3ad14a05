"""Attempts of chunks and syntheses: postponed, abandoned, and the last one of each."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import TypeAlias

from sqlalchemy import case, exists, or_, select, text
from sqlalchemy.orm import Session

from chordwise.domain.states import ChunkStatus, JobStatus
from chordwise.errors import ChordwiseError, TransientError
from chordwise.storage import clock, leases
from chordwise.storage.chunks import Chunk
from chordwise.storage.jobs import Job
from chordwise.storage.model_calls import ModelCall
from chordwise.storage.postgresql import Lock
from chordwise.storage.record import update_rows

Work: TypeAlias = type[Chunk] | type[Job]
"""The table of the work: a chunk, or a job whose synthesis is meant."""

LAST_ATTEMPT_WAIT = timedelta(seconds=5)
"""How long a last attempt waits while another one is in progress."""

_WAITING: Mapping[Work, str] = {Chunk: ChunkStatus.WAITING, Job: JobStatus.WAITING}


def postpone(
    session: Session,
    table: Work,
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
        table.is_held(id_, token),
        status=_WAITING[table],
        due_at=clock.now_plus(delay),
        attempts=table.attempts - 1,
        postponements=table.postponements + int(not is_throttling),
        error_code=error.code,
        error_message=error.what,
        hint=error.hint or None,
        lease_until=None,
        finished_at=None,
    )


def abandon(session: Session, table: Work, id_: uuid.UUID, token: uuid.UUID) -> bool:
    """Release work that could not be finished; the attempt counts if a model was called.

    Otherwise a database that fails after each answer would cause unlimited paid calls.
    """
    if table is Chunk:
        of_work = (ModelCall.chunk_id == Chunk.id) & (ModelCall.started_at >= Chunk.started_at)
    else:
        of_synthesis = (ModelCall.job_id == Job.id) & ModelCall.chunk_id.is_(None)
        of_work = of_synthesis & (ModelCall.started_at >= Job.last_progress_at)
    attempts = case((exists().where(of_work), table.attempts), else_=table.attempts - 1)
    return leases.release(session, table, id_, token, attempts)


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
        exists().where(work.is_at_work(), work.attempts >= last, work.lease_until > now)
        for work in (Job, Chunk)
    ]
    return not session.scalar(select(or_(*in_progress)))
