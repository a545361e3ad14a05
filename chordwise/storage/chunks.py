"""Chunks: the parts of a job, each claimed under a lease and finished once."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, ForeignKey, Index, UniqueConstraint, and_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain import chunking, missing_rows
from chordwise.domain.answers import Answer
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.states import OPEN_CHUNKS, ChunkStatus
from chordwise.errors import ChordwiseError
from chordwise.storage import clock
from chordwise.storage.record import Identity, Record, among, new_id


class Chunk(Record):
    """Characters `start_char` to `end_char` of the job's document, and their answer.

    `attempts` counts claims, so that a kill counts; `postponements` counts waits for a provider.
    `confidence` is what the answer claims; `agreement` that of its samples, null without a vote.
    `missing_rows` names lists that lost rows when the answer was repaired, as in `results`.
    """

    __tablename__ = "chunks"
    __table_args__ = (
        UniqueConstraint("job_id", "position"),
        Index("ix_chunks_started_at", "started_at"),
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
    agreement: Mapped[float | None]
    missing_rows: Mapped[JsonValue | None]
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


def succeed(session: Session, chunk_id: uuid.UUID, token: uuid.UUID, answer: Answer) -> bool:
    """Store the answer; false, and nothing written, when the lease is lost."""
    return leave(
        session,
        held(chunk_id, token),
        status=ChunkStatus.SUCCEEDED,
        answer=answer.output,
        confidence=answer.confidence,
        quality=answer.quality,
        agreement=answer.agreement,
        missing_rows=missing_rows.to_json(answer.missing_rows),
        provider=answer.provider,
        model=answer.model,
        prompt_version=answer.prompt_version,
        error_code=None,
        error_message=None,
        hint=None,
    )


def has_left(session: Session, chunk_id: uuid.UUID, token: uuid.UUID) -> bool:
    """Tell whether the holder of this token has brought the chunk to its end, or put it off."""
    left = Chunk.status != ChunkStatus.RUNNING
    found = select(Chunk.id).where(Chunk.id == chunk_id, Chunk.lease_token == token, left)
    return session.scalar(found) is not None


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
        agreement=chunk.agreement,
        missing_rows=missing_rows.from_json(chunk.missing_rows),
    )


def fail(session: Session, chunk_id: uuid.UUID, token: uuid.UUID, error: ChordwiseError) -> bool:
    """Store why the chunk failed for good; false when the lease is lost."""
    return leave(
        session,
        held(chunk_id, token),
        status=ChunkStatus.FAILED,
        error_code=error.code,
        error_message=error.what,
        hint=error.hint or None,
    )


def status_of(session: Session, job_id: uuid.UUID, chunk_id: uuid.UUID) -> str | None:
    """Look at a job's chunk without locking anything; `None` when the job has no such chunk."""
    return session.scalar(select(Chunk.status).where(Chunk.id == chunk_id, Chunk.job_id == job_id))


def open_ids(session: Session, job_id: uuid.UUID) -> Sequence[uuid.UUID]:
    """Return the chunks of a job that still have work to come, in the order of the document."""
    return session.scalars(
        select(Chunk.id)
        .where(Chunk.job_id == job_id, Chunk.status.in_(OPEN_CHUNKS))
        .order_by(Chunk.position)
    ).all()


def unsent_ids(session: Session, job_id: uuid.UUID) -> Sequence[uuid.UUID]:
    """Return the chunks that wait and have no message yet, in the order of the document.

    What was sent before is left to recovery, which knows whether its message is lost.
    """
    return session.scalars(
        select(Chunk.id)
        .where(Chunk.job_id == job_id, Chunk.status == ChunkStatus.PENDING, Chunk.sent_at.is_(None))
        .order_by(Chunk.position)
    ).all()


def mark_sent(session: Session, chunk_ids: Sequence[uuid.UUID]) -> None:
    """Note that messages for these chunks are with the broker, or promised."""
    sent = update(Chunk).where(among(Chunk.id, chunk_ids)).values(sent_at=clock.database_now())
    session.execute(sent)


def of_job(session: Session, job_id: uuid.UUID) -> Sequence[Chunk]:
    """Return the chunks of a job in the order of the document."""
    return session.scalars(
        select(Chunk)
        .where(Chunk.job_id == job_id)
        .order_by(Chunk.position)
        .execution_options(populate_existing=True)
    ).all()


def held(chunk_id: uuid.UUID, token: uuid.UUID) -> ColumnElement[bool]:
    """Return the condition that the chunk is still claimed with this token."""
    return and_(
        Chunk.id == chunk_id, Chunk.lease_token == token, Chunk.status == ChunkStatus.RUNNING
    )


def leave(session: Session, condition: ColumnElement[bool], **values: object) -> bool:
    """Give up the lease of the chunk that meets the condition; false when there is none.

    The token stays where the chunk ends: a commit of which nobody knows whether it was made can be
    repeated then, and is found to be made.
    """
    defaults: dict[str, object] = {"lease_until": None, "finished_at": clock.database_now()}
    statement = update(Chunk).where(condition).values({**defaults, **values}).returning(Chunk.id)
    return session.scalar(statement) is not None
