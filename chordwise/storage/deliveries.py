"""Deliveries: what is owed to others since a run or a schedule's work ended, and how far."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import ColumnElement, ForeignKey, Index, exists, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import RunStatus
from chordwise.storage import clock
from chordwise.storage.record import CreatedAt, Identity, Record, copied


class DeliveryKind(StrEnum):
    """The way of a delivery."""

    WEBHOOK = "webhook"
    FILE = "file"


class DeliveryStatus(StrEnum):
    """How far a delivery has come; skipped are those without a receiver."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    SKIPPED = "skipped"


REPORT_WRITTEN = "report.written"
VARIANT_STOPPED = "experiment.variant_stopped"
ANSWERS_REGRESSED = "answers.regressed"
_KINDS = {
    RunStatus.FINISHED: (DeliveryKind.WEBHOOK, DeliveryKind.FILE),
    RunStatus.CANCELLED: (DeliveryKind.WEBHOOK,),
    RunStatus.PAUSED: (DeliveryKind.WEBHOOK,),
}


class Delivery(Record):
    """One thing owed; its id is the same in every attempt, and so is its content once it is made.

    That of a schedule or an experiment belongs to no run; a schedule's has the id of the occurrence
    that it tells of. `due_at` is also the end of the time that an attempt under way is given.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryLine:
    """A delivery in the account of its run."""

    kind: str
    event: str
    status: str
    attempts: int
    due_at: datetime
    finished_at: datetime | None
    last_error: str | None


def announce(session: Session, run_id: uuid.UUID, status: RunStatus) -> None:
    """Note what is owed since a run has come to this status; in the transaction that brought it."""
    for kind in _KINDS.get(status, ()):
        session.add(Delivery(run_id=run_id, kind=kind, event=f"run.{status}"))


def announce_occurrence(
    session: Session, schedule_run_id: uuid.UUID, event: str, content: JsonObject
) -> None:
    """Promise a webhook with the outcome of a schedule's occurrence, once for each."""
    session.execute(
        insert(Delivery)
        .values(
            id=schedule_run_id,
            kind=DeliveryKind.WEBHOOK,
            event=event,
            status=DeliveryStatus.PENDING,
            attempts=0,
            content=content,
        )
        .on_conflict_do_nothing()
    )


def announce_stop(session: Session, content: JsonObject) -> None:
    """Promise a webhook about a stopped variant of an experiment."""
    session.add(Delivery(kind=DeliveryKind.WEBHOOK, event=VARIANT_STOPPED, content=content))


def skip(session: Session, kind: DeliveryKind) -> None:
    """Set aside the deliveries of this kind."""
    session.execute(
        update(Delivery)
        .where(Delivery.kind == kind, Delivery.status == DeliveryStatus.PENDING)
        .values(status=DeliveryStatus.SKIPPED, finished_at=clock.database_now())
    )


def is_pending() -> ColumnElement[bool]:
    """Return the condition that a delivery has not ended, whenever it is due."""
    return exists().where(Delivery.status == DeliveryStatus.PENDING)


def take_due(session: Session, kinds: Collection[DeliveryKind]) -> Delivery | None:
    """Lock the unlocked delivery of these kinds that has been due for longest."""
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


def put_off(session: Session, delivery: Delivery, delay: timedelta, reason: str) -> None:
    """Record why an attempt failed, and when the next one is due."""
    _record(session, delivery, due_at=clock.after(delay), last_error=reason)


def of_run(session: Session, run_id: uuid.UUID) -> Sequence[DeliveryLine]:
    """Return what was or is owed for a run, in order."""
    rows = session.scalars(
        select(Delivery)
        .where(Delivery.run_id == run_id, Delivery.status != DeliveryStatus.SKIPPED)
        .order_by(Delivery.id)
    )
    return [copied(DeliveryLine, row) for row in rows]


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
