"""The last attempt of work that lost its worker again and again: made alone, one at a time.

A worker has many chunks in hand, and all of them count an attempt when it is lost, although one is
to blame. Those that are innocent succeed when they get their last attempt without the guilty one.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, exists, or_, select, text
from sqlalchemy.orm import Session, aliased

from chordwise.domain.states import ChunkStatus, JobStatus
from chordwise.storage import clock
from chordwise.storage.chunks import Chunk
from chordwise.storage.jobs import Job
from chordwise.storage.locks import Lock


def is_last(attempts: int, most_attempts: int) -> bool:
    """Tell whether the next attempt is the last, and not the first as well."""
    return attempts >= first_last(most_attempts)


def first_last(most_attempts: int) -> int:
    """Return with how many attempts the next one is the last, and not the first as well."""
    return max(1, most_attempts - 1)


def may_begin(session: Session, attempts: int, most_attempts: int) -> bool:
    """Tell whether work with so many attempts may be taken now.

    Until the transaction ends nobody else begins a last attempt.
    """
    if not is_last(attempts, most_attempts):
        return True
    session.execute(text(Lock.LAST_ATTEMPT.statement()))
    return not session.scalar(select(somebody_is_at_one(most_attempts)))


def somebody_is_at_one(most_attempts: int) -> ColumnElement[bool]:
    """Return the condition that a last attempt is being made under a live lease."""
    chunk, job = aliased(Chunk), aliased(Job)
    last = max(2, most_attempts)
    now = clock.database_now()
    return or_(
        exists().where(
            chunk.status == ChunkStatus.RUNNING, chunk.attempts >= last, chunk.lease_until > now
        ),
        exists().where(
            job.status == JobStatus.SYNTHESIZING, job.attempts >= last, job.lease_until > now
        ),
    )
