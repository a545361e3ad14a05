"""The accounts of budgets, and the statements that book on them.

Whoever changes accounts locks them in the order of their scopes (a day before a run), so that
nobody waits for somebody who waits for him; a reservation's own row is locked before its accounts.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

from sqlalchemy import (
    ColumnElement,
    ForeignKey,
    Interval,
    Update,
    bindparam,
    insert,
    select,
    update,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.storage import clock
from chordwise.storage.budget_reservations import BudgetReservation
from chordwise.storage.record import Record


class Budget(Record):
    """The account of a run (`run:ID`) or of a UTC day (`day:YYYY-MM-DD`).

    `cap_usd` is null where nothing limits it; spent and reserved are counted all the same.
    """

    __tablename__ = "budgets"

    scope: Mapped[str] = mapped_column(primary_key=True)
    run_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("runs.id"))
    cap_usd: Mapped[Decimal | None]
    spent_usd: Mapped[Decimal] = mapped_column(server_default="0")
    reserved_usd: Mapped[Decimal] = mapped_column(server_default="0")


def locked(session: Session, scopes: Sequence[str]) -> Sequence[Budget]:
    """Return the accounts that there are of one or two; nobody else changes them now."""
    return session.scalars(_LOCKED, _between(scopes)).all()


def book(session: Session, scopes: Sequence[str], spent: Decimal, reserved: Decimal) -> None:
    """Add to what is spent and reserved on one or two accounts."""
    session.execute(_BOOK, _change(scopes, spent, reserved))


def book_reservation(
    session: Session, reservation: BudgetReservation, scopes: Sequence[str], lasts: timedelta
) -> None:
    """Write a reservation, and set its amount aside on its accounts."""
    session.execute(
        _RESERVE,
        {
            **_change(scopes, Decimal(0), reservation.amount_usd),
            "reservation": reservation.id,
            "of_run": reservation.run_id,
            "of_day": reservation.day,
            "amount": reservation.amount_usd,
            "lasts": lasts,
        },
    )


def _change(scopes: Sequence[str], spent: Decimal, reserved: Decimal) -> dict[str, object]:
    return {**_between(scopes), "spent": spent, "reserved": reserved}


def _between(scopes: Sequence[str]) -> dict[str, str]:
    return {"first_scope": scopes[0], "last_scope": scopes[-1]}


def _booking() -> Update:
    """Lock the accounts in their order, then change them, in one statement."""
    ordered = (
        select(Budget.scope)
        .where(_is_meant())
        .order_by(Budget.scope)
        .with_for_update(key_share=True)
        .cte("ordered")
    )
    return (
        update(Budget)
        .where(Budget.scope == ordered.c.scope)
        .values(
            spent_usd=Budget.spent_usd + bindparam("spent"),
            reserved_usd=Budget.reserved_usd + bindparam("reserved"),
        )
        .execution_options(synchronize_session=False)
    )


def _is_meant() -> ColumnElement[bool]:
    return Budget.scope.in_([bindparam(name) for name in ("first_scope", "last_scope")])


# Every call under a cap takes these: they are put together once.
_LOCKED = (
    select(Budget)
    .where(_is_meant())
    .order_by(Budget.scope)
    .with_for_update(key_share=True)
    .execution_options(populate_existing=True)
)
_BOOK = _booking()
_RESERVE = _booking().add_cte(
    insert(BudgetReservation)
    .values(
        id=bindparam("reservation"),
        run_id=bindparam("of_run"),
        day=bindparam("of_day"),
        amount_usd=bindparam("amount"),
        expires_at=clock.database_now() + bindparam("lasts", type_=Interval),
    )
    .cte("made")
)
