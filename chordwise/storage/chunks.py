"""Chunks: the parts of a job, each claimed under a lease and finished once."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, ForeignKey, Index, UniqueConstraint, and_, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain import chunking
from chordwise.domain.answers import Answer
from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import OPEN_CHUNKS, ChunkStatus, JobStatus
from chordwise.errors import ChordwiseError
from chordwise.storage import clock
from chordwise.storage.record import Identity, Record, new_id


class Chunk(Record):
    """Characters `start_char` to `end_char` of the job's document, and their answer.

    `attempts` counts claims, so that a kill counts; `postponements` counts waits for a provider.
    """

    __tablename__ = "chunks"
    __table_args__ = (
        UniqueConstraint("job_id", "position"),
        Index(
            "ix_chunks_open",
            "status",
            "lease_until",
            postgresql_where=f"status IN ({', '.join(repr(s.value) for s in OPEN_CHUNKS)})",
        ),
    )

    id: Mapped[Identity]
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"))
    position: Mapped[int]
    start_char: Mapped[int]
    end_char: Mapped[int]
    status: Mapped[str] = mapped_column(default=ChunkStatus.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    postponements: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime | None]
    lease_token: Mapped[uuid.UUID | None]
    lease_until: Mapped[datetime | None]
    answer: Mapped[JsonObject | None]
    confidence: Mapped[float | None]
    quality: Mapped[float | None]
    provider: Mapped[str | None]
    model: Mapped[str | None]
    prompt_version: Mapped[str | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    hint: Mapped[str | None]
    sent_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


def write(session: Session, job_id: uuid.UUID, parts: Sequence[chunking.Chunk]) -> None:
    """Insert a job's chunks; those that are there already stay as they are."""
    rows = [
        {
            "id": new_id(),
            "job_id": job_id,
            "position": part.position,
            "start_char": part.start_char,
            "end_char": part.end_char,
            "status": ChunkStatus.PENDING,
            "attempts": 0,
            "postponements": 0,
        }
        for part in parts
    ]
    session.execute(insert(Chunk).on_conflict_do_nothing(), rows)


def claimable() -> ColumnElement[bool]:
    """Return the condition under which a chunk waits for somebody to take it."""
    return or_(
        Chunk.status == ChunkStatus.PENDING,
        and_(Chunk.status == ChunkStatus.WAITING, Chunk.due_at <= clock.database_now()),
        and_(Chunk.status == ChunkStatus.RUNNING, Chunk.lease_until < clock.database_now()),
    )


def claim(
    session: Session, chunk_id: uuid.UUID, token: uuid.UUID, lease: timedelta
) -> Chunk | None:
    """Take an open chunk whose lease has run out, counting the attempt.

    Nothing is returned when the chunk is finished, not due yet, or somebody is at it.
    """
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


def extend_lease(session: Session, chunk_id: uuid.UUID, token: uuid.UUID, lease: timedelta) -> bool:
    """Prolong a lease; false when it is lost."""
    statement = (
        update(Chunk)
        .where(_held(chunk_id, token))
        .values(lease_until=clock.after(lease))
        .returning(Chunk.id)
    )
    return session.scalar(statement) is not None


def succeed(session: Session, chunk_id: uuid.UUID, token: uuid.UUID, answer: Answer) -> bool:
    """Store the answer; false, and nothing written, when the lease is lost."""
    return _finish(
        session,
        _held(chunk_id, token),
        status=ChunkStatus.SUCCEEDED,
        answer=answer.output,
        confidence=answer.confidence,
        quality=answer.quality,
        provider=answer.provider,
        model=answer.model,
        prompt_version=answer.prompt_version,
        error_code=None,
        error_message=None,
        hint=None,
    )


def answer_of(chunk: Chunk) -> Answer:
    """Return the answer of a chunk that succeeded; of repairs its quality tells."""
    return Answer(
        output=chunk.answer or {},
        confidence=chunk.confidence or 0.0,
        quality=chunk.quality or 0.0,
        repaired=False,
        provider=chunk.provider or "",
        model=chunk.model or "",
        prompt_version=chunk.prompt_version or "",
    )


def fail(session: Session, chunk_id: uuid.UUID, token: uuid.UUID, error: ChordwiseError) -> bool:
    """Store why the chunk failed for good; false when the lease is lost."""
    return _finish(
        session,
        _held(chunk_id, token),
        status=ChunkStatus.FAILED,
        error_code=error.code,
        error_message=error.what,
        hint=error.hint or None,
    )


def quarantine(session: Session, chunk_id: uuid.UUID, attempts: int) -> bool:
    """Set a chunk aside that ended its worker too often; false when it is claimed or finished."""
    return _finish(
        session,
        and_(Chunk.id == chunk_id, Chunk.attempts >= attempts, claimable()),
        status=ChunkStatus.QUARANTINED,
        error_code="worker_lost",
        error_message=f"The worker was lost {attempts} times while it was at this chunk.",
        hint="Look at the worker's log; `chordwise retry RUN` tries again.",
    )


def reopen(session: Session, chunk_id: uuid.UUID) -> bool:
    """Free a chunk whose lease has run out; the attempt stays counted."""
    expired = and_(
        Chunk.id == chunk_id,
        Chunk.status == ChunkStatus.RUNNING,
        Chunk.lease_until < clock.database_now(),
    )
    return _finish(session, expired, status=ChunkStatus.PENDING, finished_at=None)


def postpone(
    session: Session,
    chunk_id: uuid.UUID,
    token: uuid.UUID,
    delay: timedelta,
    error: ChordwiseError,
) -> bool:
    """Put a chunk off to a due-time; the attempt does not count, the postponement does."""
    return _finish(
        session,
        _held(chunk_id, token),
        status=ChunkStatus.WAITING,
        due_at=clock.after(delay),
        attempts=Chunk.attempts - 1,
        postponements=Chunk.postponements + 1,
        error_code=error.code,
        error_message=error.what,
        hint=error.hint or None,
        finished_at=None,
    )


def release(session: Session, chunk_id: uuid.UUID, token: uuid.UUID) -> bool:
    """Give a chunk back unharmed: the attempt does not count."""
    return _finish(
        session,
        _held(chunk_id, token),
        status=ChunkStatus.PENDING,
        attempts=Chunk.attempts - 1,
        finished_at=None,
    )


def open_ids(session: Session, job_id: uuid.UUID) -> Sequence[uuid.UUID]:
    """Return the chunks of a job that still have work to come, in the order of the document."""
    return session.scalars(
        select(Chunk.id)
        .where(Chunk.job_id == job_id, Chunk.status.in_(OPEN_CHUNKS))
        .order_by(Chunk.position)
    ).all()


def mark_sent(session: Session, job_id: uuid.UUID) -> Sequence[uuid.UUID]:
    """Note that messages for a job's open chunks go out now; return them in order.

    What was sent before is left to recovery, which knows whether its message is lost.
    """
    unsent = session.scalars(
        select(Chunk.id)
        .where(Chunk.job_id == job_id, Chunk.status.in_(OPEN_CHUNKS), Chunk.sent_at.is_(None))
        .order_by(Chunk.position)
    ).all()
    session.execute(update(Chunk).where(Chunk.id.in_(unsent)).values(sent_at=clock.database_now()))
    return unsent


def of_job(session: Session, job_id: uuid.UUID) -> Sequence[Chunk]:
    """Return the chunks of a job in the order of the document."""
    return session.scalars(
        select(Chunk)
        .where(Chunk.job_id == job_id)
        .order_by(Chunk.position)
        .execution_options(populate_existing=True)
    ).all()


def _of_working_job() -> ColumnElement[bool]:
    """Return the condition that the chunk's job is neither paused nor at its end."""
    jobs = Chunk.metadata.tables["jobs"]
    working = (JobStatus.RUNNING, JobStatus.WAITING)
    return select(jobs.c.id).where(jobs.c.id == Chunk.job_id, jobs.c.status.in_(working)).exists()


def _held(chunk_id: uuid.UUID, token: uuid.UUID) -> ColumnElement[bool]:
    return and_(
        Chunk.id == chunk_id, Chunk.lease_token == token, Chunk.status == ChunkStatus.RUNNING
    )


def _finish(session: Session, condition: ColumnElement[bool], **values: object) -> bool:
    defaults: dict[str, object] = {
        "lease_token": None,
        "lease_until": None,
        "finished_at": clock.database_now(),
    }
    statement = update(Chunk).where(condition).values({**defaults, **values}).returning(Chunk.id)
    return session.scalar(statement) is not None
