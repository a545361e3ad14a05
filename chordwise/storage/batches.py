"""Batches: the requests that were submitted together to a provider's Batch API, and their state."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Index, exists, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import BatchStatus
from chordwise.storage import clock
from chordwise.storage.record import Identity, Record

_OPEN = (BatchStatus.PREPARING, BatchStatus.RUNNING)


class Batch(Record):
    """One batch; its row is stored before the provider gets it.

    `model_name` is the name in the settings. `upload_id` is the file at the provider, and
    `attempted_at` when its creation was last asked for: without a `provider_id` it is unknown then
    whether there is one. `provider_status` and `counts` are the provider's own words. `poll_at` is
    when to look next.
    """

    __tablename__ = "batches"
    __table_args__ = (
        Index(
            "ix_batches_open",
            "poll_at",
            postgresql_where=f"status IN ({', '.join(repr(s.value) for s in _OPEN)})",
        ),
    )

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
    """Return the condition that a batch is open, whenever it is to be looked at."""
    return exists().where(Batch.status.in_(_OPEN))


def due(session: Session) -> Sequence[Batch]:
    """Return the open batches that are to be looked at now, the oldest first."""
    return session.scalars(
        select(Batch)
        .where(Batch.status.in_(_OPEN), Batch.poll_at <= clock.database_now())
        .order_by(Batch.poll_at)
        .execution_options(populate_existing=True)
    ).all()


def change(session: Session, batch_id: uuid.UUID, **values: object) -> None:
    """Fill in what became known of a batch."""
    session.execute(update(Batch).where(Batch.id == batch_id).values(**values))


def put_off(session: Session, batch_id: uuid.UUID, delay: timedelta, **values: object) -> None:
    """Look at a batch again after a while, and not before."""
    change(session, batch_id, polls=Batch.polls + 1, poll_at=clock.after(delay), **values)


def attempt(session: Session, batch: Batch, upload_id: str) -> bool:
    """Note that a batch is about to be created; false where another process has done so since.

    `batch` is as it was read before the provider was asked whether there is one already.
    """
    unchanged = Batch.attempted_at.is_not_distinct_from(batch.attempted_at)
    statement = (
        update(Batch)
        .where(Batch.id == batch.id, Batch.provider_id.is_(None), unchanged)
        .values(upload_id=upload_id, attempted_at=clock.database_now())
        .returning(Batch.id)
    )
    return session.scalar(statement) is not None


def is_open(session: Session, model_name: str) -> bool:
    """Return whether a batch of this model is on its way."""
    found = exists().where(Batch.model_name == model_name, Batch.status.in_(_OPEN))
    return bool(session.scalar(select(found)))


def refused_sizes(
    session: Session, model_name: str, codes: Collection[str], age: timedelta
) -> Sequence[int]:
    """Return the sizes of a model's batches that were refused for these reasons, newest first."""
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
    """Return whether a batch was put together longer ago than that."""
    old = Batch.created_at < clock.database_now() - age
    return session.scalar(select(Batch.id).where(Batch.id == batch_id, old)) is not None


def provider_ids(session: Session) -> set[str]:
    """Return the provider's ids of all batches that are known to be Chordwise's."""
    found = session.scalars(select(Batch.provider_id).where(Batch.provider_id.is_not(None)))
    return {name for name in found if name}
