"""Reservations: what requests in flight may cost, until each is settled with what it did cost."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import date, datetime, timedelta
from decimal import Decimal

from sqlalchemy import ForeignKey, Index, delete, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.storage import clock
from chordwise.storage.record import Record, among


class BudgetReservation(Record):
    """What one request may cost at most, until it is settled with what it did cost."""

    __tablename__ = "budget_reservations"
    __table_args__ = (
        Index("ix_budget_reservations_open", "expires_at", postgresql_where="settled_at IS NULL"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("runs.id"), index=True)
    day: Mapped[date]
    amount_usd: Mapped[Decimal]
    reserved_at: Mapped[datetime] = mapped_column(server_default=clock.database_now())
    expires_at: Mapped[datetime]
    settled_at: Mapped[datetime | None]
    settled_usd: Mapped[Decimal | None]


def reserved(session: Session, reservation_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Return those of the reservations that are made already."""
    found = select(BudgetReservation.id).where(among(BudgetReservation.id, reservation_ids))
    return set(session.scalars(found))


def forget_settled(session: Session, older_than: timedelta) -> None:
    """Delete reservations that were settled long ago: the accounts hold what they came to."""
    session.execute(
        delete(BudgetReservation).where(
            BudgetReservation.settled_at < clock.database_now() - older_than
        )
    )
