"""Deliveries: webhooks and files that report runs, schedules and experiments, and their state."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import datetime

from sqlalchemy import ColumnElement, ForeignKey, Index, exists, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import DeliveryStatus
from chordwise.settings.receivers import RECEIVERS
from chordwise.storage import clock
from chordwise.storage.record import CreatedAt, Identity, Record, new_id


class Delivery(Record):
    """One delivery; its id, and its content once it is made, are the same in every attempt."""

    __tablename__ = "deliveries"
    __table_args__ = (
        Index("ix_deliveries_pending", "due_at", postgresql_where="status = 'pending'"),
    )

    id: Mapped[Identity]
    run_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("runs.id"), index=True)
    kind: Mapped[str]
    event: Mapped[str]
    status: Mapped[str] = mapped_column(default=DeliveryStatus.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime] = mapped_column(server_default=clock.database_now())
    content: Mapped[JsonObject | None]
    last_error: Mapped[str | None]
    created_at: Mapped[CreatedAt]
    finished_at: Mapped[datetime | None]


def announce(
    session: Session,
    event: str,
    *,
    run_id: uuid.UUID | None = None,
    content: JsonObject | None = None,
    occurrence_id: uuid.UUID | None = None,
) -> None:
    """Add a delivery to each kind of receiver of the event, in the transaction of the event.

    The outcome of an occurrence of a schedule is announced once.
    """
    same = {"event": event, "run_id": run_id, "content": content}
    rows = [
        {"id": uuid.uuid5(occurrence_id, kind) if occurrence_id else new_id(), "kind": kind, **same}
        for kind, receiver in RECEIVERS.items()
        if event in receiver.events
    ]
    if rows:
        session.execute(insert(Delivery).values(rows).on_conflict_do_nothing())


def skip_all_but(session: Session, kinds_and_events: Collection[tuple[str, str]]) -> None:
    """Mark the pending deliveries as skipped, except those of these kinds and events."""
    session.execute(
        update(Delivery)
        .where(Delivery.status == DeliveryStatus.PENDING, ~_is_one_of(kinds_and_events))
        .values(status=DeliveryStatus.SKIPPED, finished_at=clock.database_now())
    )


def is_pending() -> ColumnElement[bool]:
    """Return the condition that a delivery is pending, whether it is due or not."""
    return exists().where(Delivery.status == DeliveryStatus.PENDING)


def lock_due(session: Session, kinds_and_events: Collection[tuple[str, str]]) -> Delivery | None:
    """Return, locked, the unlocked one of these deliveries that has been due for longest."""
    return session.scalars(
        select(Delivery)
        .where(
            Delivery.status == DeliveryStatus.PENDING,
            _is_one_of(kinds_and_events),
            Delivery.due_at <= clock.database_now(),
        )
        .order_by(Delivery.due_at)
        .limit(1)
        .with_for_update(key_share=True, skip_locked=True)
    ).one_or_none()


def _is_one_of(kinds_and_events: Collection[tuple[str, str]]) -> ColumnElement[bool]:
    return tuple_(Delivery.kind, Delivery.event).in_(kinds_and_events)


def record(session: Session, delivery: Delivery, **values: object) -> None:
    """Record the outcome of an attempt, unless another one has begun."""
    session.execute(
        update(Delivery)
        .where(
            Delivery.id == delivery.id,
            Delivery.attempts == delivery.attempts,
            Delivery.status == DeliveryStatus.PENDING,
        )
        .values(**values)
    )
