"""Chunks: the parts of a job, each claimed under a lease and finished once."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from sqlalchemy import ForeignKey, Index, UniqueConstraint, func, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain import missing_rows
from chordwise.domain.answers import Answer
from chordwise.domain.json_values import JsonObject, JsonValue, as_json
from chordwise.domain.states import FAILED_CHUNKS, MISSING_FIELDS, OPEN_CHUNKS, ChunkStatus
from chordwise.errors import ChordwiseError
from chordwise.storage.database import Store
from chordwise.storage.leases import StepRecord
from chordwise.storage.record import (
    block_range_index,
    in_ids,
    insert_all,
    new_id,
)
from chordwise.storage.sql_text import status_in


class Chunk(StepRecord):
    """Characters `start_char` to `end_char` of the document of a job, and their answer.

    `attempts` counts claims, so that a killed worker counts.
    """

    __tablename__ = "chunks"
    __table_args__ = (
        UniqueConstraint("job_id", "position"),
        block_range_index("ix_chunks_started_at", "started_at"),
        Index(
            "ix_chunks_running", "id", postgresql_where=f"status = '{ChunkStatus.RUNNING.value}'"
        ),
        Index("ix_chunks_open_job_id", "job_id", "status", postgresql_where=status_in(OPEN_CHUNKS)),
        Index("ix_chunks_failed", "job_id", postgresql_where=status_in(FAILED_CHUNKS)),
        Index(
            "ix_chunks_waiting",
            "due_at",
            postgresql_where=f"status = '{ChunkStatus.WAITING.value}'",
        ),
    )

    AT_WORK = (ChunkStatus.RUNNING,)
    FREE = ChunkStatus.PENDING

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"))
    position: Mapped[int]
    start_char: Mapped[int]
    end_char: Mapped[int]
    status: Mapped[str] = mapped_column(default=ChunkStatus.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    postponements: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime | None]
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
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


@dataclass(frozen=True, slots=True)
class EndedChunk:
    """The part of an ended chunk that a result needs; the fields are those of `Chunk`."""

    status: str
    answer: JsonObject | None = None
    confidence: float | None = None
    quality: float | None = None
    agreement: float | None = None
    missing_rows: JsonValue | None = None
    provider: str | None = None
    model: str | None = None
    prompt_version: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    hint: str | None = None
    position: int = 0
    start_char: int = 0
    end_char: int = 0


def insert_single(session: Session, lengths: Mapping[uuid.UUID, int]) -> list[uuid.UUID]:
    """Insert one chunk for each job, by the length of its text, and return the ids of the chunks.

    The caller promises their messages.
    """
    ids = [new_id() for _ in lengths]
    rows = [
        {"id": id_, "job_id": job_id, "end_char": length}
        for id_, (job_id, length) in zip(ids, lengths.items(), strict=True)
    ]
    same = {"position": 0, "start_char": 0, "attempts": 0, "postponements": 0}
    insert_all(session, Chunk, rows, status=ChunkStatus.PENDING, **same)
    return ids


def answered(answer: Answer) -> EndedChunk:
    """Return the end of a chunk that succeeded, maybe without some fields."""
    return EndedChunk(
        status=ChunkStatus.SUCCEEDED,
        answer=answer.output,
        confidence=answer.confidence,
        quality=answer.quality,
        agreement=answer.agreement,
        missing_rows=as_json(answer.missing_rows),
        provider=answer.provider,
        model=answer.model,
        prompt_version=answer.prompt_version,
        error_code=MISSING_FIELDS if answer.missing_fields else None,
        error_message=answer.missing_fields or None,
    )


def failed(error: ChordwiseError) -> EndedChunk:
    """Return the end of a chunk that failed permanently."""
    return EndedChunk(
        status=ChunkStatus.FAILED,
        error_code=error.code,
        error_message=error.what,
        hint=error.hint or None,
    )


COLUMNS = tuple(field.name for field in fields(EndedChunk))
_ENDED = tuple(name for name in COLUMNS if name not in ("position", "start_char", "end_char"))
# Jobs are always locked before their chunks.
_END = text(f"""
    WITH new AS MATERIALIZED (
        SELECT * FROM json_populate_recordset(NULL::chunks, CAST(:rows AS json))
    ), locked AS MATERIALIZED (
        SELECT id FROM jobs WHERE id IN (SELECT job_id FROM new) ORDER BY id FOR NO KEY UPDATE
    ), ordered AS MATERIALIZED (
        SELECT id FROM chunks
        WHERE (SELECT count(*) >= 0 FROM locked) AND id = ANY(CAST(:ids AS uuid[]))
        ORDER BY id FOR NO KEY UPDATE
    )
    UPDATE chunks SET {", ".join(f"{name} = new.{name}" for name in _ENDED)},
        lease_until = NULL, finished_at = clock_timestamp()
    FROM new
    WHERE (SELECT count(*) >= 0 FROM ordered) AND chunks.id = new.id
        AND chunks.lease_token = new.lease_token AND chunks.status = 'running'
    RETURNING chunks.id""")


def end_all(
    store: Store,
    ends: Sequence[tuple[EndedChunk, Mapping[str, uuid.UUID]]],
    also_locked: Collection[uuid.UUID] = (),
) -> set[uuid.UUID]:
    """End chunks whose leases are held, and lock their jobs; return the ids of the ended chunks.

    Each end comes with its `id`, `job_id` and `lease_token`. The chunks `also_locked` are locked
    together with them, in the order of the ids.
    """
    rows = [
        {name: getattr(ended, name) for name in _ENDED}
        | {name: str(value) for name, value in keys.items()}
        for ended, keys in ends
    ]
    content = json.dumps(rows, allow_nan=False)
    ids = [*(keys["id"] for _, keys in ends), *also_locked] if also_locked else []
    return {row[0] for row in store.execute(_END, {"rows": content, "ids": ids})}


def last_tokens(store: Store, chunk_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, uuid.UUID | None]:
    """Return those of the chunks that are not running, with the token of their last lease."""
    rows = store.execute(
        select(Chunk.id, Chunk.lease_token).where(
            in_ids(Chunk.id, chunk_ids), Chunk.status != ChunkStatus.RUNNING
        )
    )
    return {row[0]: row[1] for row in rows}


def answer_of(chunk: EndedChunk) -> Answer:
    """Return the answer of a chunk that succeeded; its `quality` already reflects repairs."""
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
        missing_fields=chunk.error_message or "",
    )


def running(session: Session) -> int:
    """Return the number of chunks that are claimed."""
    is_running = Chunk.status == ChunkStatus.RUNNING
    return session.scalar(select(func.count()).where(is_running)) or 0
