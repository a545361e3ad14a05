"""Deliveries: webhooks and files that report runs, schedules and experiments, and their state."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import ColumnElement, ForeignKey, Index, exists, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import DeliveryStatus, RunStatus
from chordwise.storage import clock
from chordwise.storage.record import CreatedAt, Identity, Record


class DeliveryKind(StrEnum):
    """The means of a delivery."""

    WEBHOOK = "webhook"
    FILE = "file"


REPORT_WRITTEN = "report.written"
VARIANT_STOPPED = "experiment.variant_stopped"
ANSWERS_REGRESSED = "answers.regressed"
_KINDS = {
    RunStatus.FINISHED: (DeliveryKind.WEBHOOK, DeliveryKind.FILE),
    RunStatus.CANCELLED: (DeliveryKind.WEBHOOK,),
    RunStatus.PAUSED: (DeliveryKind.WEBHOOK,),
}


class Delivery(Record):
    """One delivery; its id, and its content once it is made, are the same in every attempt.

    That of a schedule has the id of its occurrence. During an attempt, `due_at` is its deadline.
    """

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


def announce(session: Session, run_id: uuid.UUID, status: RunStatus) -> None:
    """Add the deliveries for a new status of a run, in the transaction that sets the status."""
    for kind in _KINDS.get(status, ()):
        session.add(Delivery(run_id=run_id, kind=kind, event=f"run.{status}"))


def announce_occurrence(
    session: Session, schedule_run_id: uuid.UUID, event: str, content: JsonObject
) -> None:
    """Add a webhook with the outcome of an occurrence of a schedule, once for each occurrence."""
    session.execute(
        insert(Delivery)
        .values(id=schedule_run_id, kind=DeliveryKind.WEBHOOK, event=event, content=content)
        .on_conflict_do_nothing()
    )


def announce_stop(session: Session, content: JsonObject) -> None:
    """Add a webhook about a stopped variant of an experiment."""
    session.add(Delivery(kind=DeliveryKind.WEBHOOK, event=VARIANT_STOPPED, content=content))


def skip(session: Session, kind: DeliveryKind) -> None:
    """Mark the pending deliveries of this kind as skipped."""
    session.execute(
        update(Delivery)
        .where(Delivery.kind == kind, Delivery.status == DeliveryStatus.PENDING)
        .values(status=DeliveryStatus.SKIPPED, finished_at=clock.database_now())
    )


def is_pending() -> ColumnElement[bool]:
    """Return the condition that a delivery is pending, whether it is due or not."""
    return exists().where(Delivery.status == DeliveryStatus.PENDING)


def lock_due(session: Session, kinds: Collection[DeliveryKind]) -> Delivery | None:
    """Return, locked, the unlocked delivery of these kinds that has been due for longest."""
    return session.scalars(
        select(Delivery)
        .where(
            Delivery.status == DeliveryStatus.PENDING,
            Delivery.kind.in_(kinds),
            Delivery.due_at <= clock.database_now(),
        )
        .order_by(Delivery.due_at)
        .limit(1)
        .with_for_update(key_share=True, skip_locked=True)
    ).one_or_none()


def end(
    session: Session, delivery: Delivery, status: DeliveryStatus, reason: str | None = None
) -> None:
    """Record how a delivery ended, unless another attempt has begun."""
    _record(session, delivery, status=status, last_error=reason, finished_at=clock.database_now())


def postpone(session: Session, delivery: Delivery, delay: timedelta, reason: str) -> None:
    """Record why an attempt failed, and when the next one is due."""
    _record(session, delivery, due_at=clock.now_plus(delay), last_error=reason)


def _record(session: Session, delivery: Delivery, **values: object) -> None:
    session.execute(
        update(Delivery)
        .where(
            Delivery.id == delivery.id,
            Delivery.attempts == delivery.attempts,
            Delivery.status == DeliveryStatus.PENDING,
        )
        .values(**values)
    )
