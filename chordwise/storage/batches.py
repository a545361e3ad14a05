"""Batches: the requests submitted together to the Batch API of a provider, and their state."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Index, exists, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import BatchStatus
from chordwise.storage import clock
from chordwise.storage.record import Identity, Record, update_rows
from chordwise.storage.sql_text import status_in

OPEN = (BatchStatus.PREPARING, BatchStatus.RUNNING)
"""The states of batches that have not ended."""


class Batch(Record):
    """One batch; its row is stored before it is submitted to the provider."""

    __tablename__ = "batches"
    __table_args__ = (Index("ix_batches_open", "poll_at", postgresql_where=status_in(OPEN)),)

    id: Mapped[Identity]
    provider: Mapped[str]
    model: Mapped[str]
    model_name: Mapped[str]
    status: Mapped[str] = mapped_column(default=BatchStatus.PREPARING)
    upload_id: Mapped[str | None]
    provider_id: Mapped[str | None]
    provider_status: Mapped[str | None]
    request_count: Mapped[int]
    counts: Mapped[JsonObject | None]
    polls: Mapped[int] = mapped_column(server_default="0")
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=clock.database_now())
    attempted_at: Mapped[datetime | None]
    submitted_at: Mapped[datetime | None]
    poll_at: Mapped[datetime] = mapped_column(server_default=clock.database_now())
    expires_at: Mapped[datetime | None]
    cancel_asked_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


def is_any_open() -> ColumnElement[bool]:
    """Return the condition that a batch is open, regardless of its next poll."""
    return exists().where(Batch.status.in_(OPEN))


def due(session: Session) -> Sequence[Batch]:
    """Return the open batches whose poll is due, the oldest poll first."""
    return session.scalars(
        select(Batch)
        .where(Batch.status.in_(OPEN), Batch.poll_at <= clock.database_now())
        .order_by(Batch.poll_at)
    ).all()


def change(session: Session, batch_id: uuid.UUID, **values: object) -> None:
    """Update columns of a batch."""
    session.execute(update(Batch).where(Batch.id == batch_id).values(**values))


def postpone(session: Session, batch_id: uuid.UUID, delay: timedelta, **values: object) -> None:
    """Count a poll, and schedule the next one after `delay`."""
    change(session, batch_id, polls=Batch.polls + 1, poll_at=clock.now_plus(delay), **values)


def attempt(session: Session, batch: Batch, upload_id: str) -> bool:
    """Record an attempt to create a batch; return false if another process has made one since.

    `batch` is as it was read before the provider was asked whether it already exists.
    """
    unchanged = Batch.attempted_at.is_not_distinct_from(batch.attempted_at)
    is_uncreated = (Batch.id == batch.id) & Batch.provider_id.is_(None) & unchanged
    values = {"upload_id": upload_id, "attempted_at": clock.database_now()}
    return update_rows(session, Batch, is_uncreated, **values)


def is_open(session: Session, model_name: str) -> bool:
    """Return whether a batch of this model is open."""
    condition = exists().where(Batch.model_name == model_name, Batch.status.in_(OPEN))
    return bool(session.scalar(select(condition)))


def refused_sizes(
    session: Session, model_name: str, codes: Collection[str], age: timedelta
) -> Sequence[int]:
    """Return the sizes of recent batches of a model that failed with these codes, newest first."""
    return session.scalars(
        select(Batch.request_count)
        .where(
            Batch.model_name == model_name,
            Batch.status == BatchStatus.FAILED,
            Batch.error_code.in_(codes),
            Batch.ended_at > clock.database_now() - age,
        )
        .order_by(Batch.ended_at.desc())
    ).all()


def is_older(session: Session, batch_id: uuid.UUID, age: timedelta) -> bool:
    """Return whether a batch was created longer ago than `age`."""
    old = Batch.created_at < clock.database_now() - age
    return session.scalar(select(Batch.id).where(Batch.id == batch_id, old)) is not None


def provider_ids(session: Session) -> set[str]:
    """Return the ids at the provider of all batches that Chordwise created."""
    names = session.scalars(select(Batch.provider_id).where(Batch.provider_id.is_not(None)))
    return {name for name in names if name}
