"""Budgets: what a run or a day may cost, what is spent, and what calls in flight have reserved."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from sqlalchemy import (
    ColumnElement,
    Date,
    ScalarSelect,
    Select,
    Text,
    bindparam,
    cast,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.orm import Session, aliased

from chordwise.domain import money
from chordwise.storage import budget_accounts, clock
from chordwise.storage.budget_accounts import Budget
from chordwise.storage.budget_reservations import BudgetReservation
from chordwise.storage.jobs import Job
from chordwise.storage.model_calls import ModelCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """Who is about to spend, on which UTC day of the database, and the caps that hold.

    `is_open` says that there are accounts of both, and that of the day knows its cap.
    """

    run_id: uuid.UUID
    day: date
    usd_per_run: Decimal | None
    usd_per_day: Decimal | None
    is_open: bool

    @property
    def is_limited(self) -> bool:
        """Tell whether there is any cap."""
        return self.usd_per_run is not None or self.usd_per_day is not None


def scope_of_run(run_id: uuid.UUID) -> str:
    """Return the name of a run's account."""
    return f"run:{run_id}"


def _today() -> ColumnElement[date]:
    return cast(func.timezone("UTC", clock.database_now()), Date)


def _limits() -> Select[uuid.UUID, uuid.UUID, date, str, Decimal | None, str, Decimal | None]:
    of_run, of_day = aliased(Budget), aliased(Budget)
    return (
        select(
            Job.id, Job.run_id, _today(), of_run.scope, of_run.cap_usd, of_day.scope, of_day.cap_usd
        )
        .outerjoin(of_run, of_run.scope == func.concat("run:", cast(Job.run_id, Text)))
        .outerjoin(of_day, of_day.scope == func.concat("day:", cast(_today(), Text)))
        .where(Job.id.in_(bindparam("job_ids", expanding=True)))
    )


# Every call asks this, with a cap or without: it is put together once.
_LIMITS = _limits()


def spendings_of(
    session: Session, job_ids: Collection[uuid.UUID], usd_per_day: Decimal | None
) -> dict[uuid.UUID, Spending]:
    """Return what limits the spending for jobs now, by job; unknown jobs are left out."""
    rows = session.execute(_LIMITS, {"job_ids": list(job_ids)})
    return {
        job_id: Spending(
            run_id=run_id,
            day=day,
            usd_per_run=run_cap,
            usd_per_day=usd_per_day,
            is_open=bool(run_scope and scope) and cap == usd_per_day,
        )
        for job_id, run_id, day, run_scope, run_cap, scope, cap in rows
    }


def is_capped(session: Session, run_id: uuid.UUID) -> bool:
    """Tell whether the budget of a run is limited."""
    found = select(Budget.scope).where(
        Budget.scope == scope_of_run(run_id), Budget.cap_usd.is_not(None)
    )
    return session.scalar(found) is not None


def lock_accounts(session: Session, spending: Spending) -> Sequence[Budget]:
    """Return the accounts of day and run, opened where needed; nobody else changes them now."""
    if not spending.is_open:
        _open_day(session, spending.day, spending.usd_per_day)
        opening = _opening(scope_of_run(spending.run_id), None, _cost_of(spending.run_id))
        session.execute(opening.values(run_id=spending.run_id).on_conflict_do_nothing())
    return budget_accounts.locked(session, _scopes(spending.run_id, spending.day))


def lock_day(session: Session, usd_per_day: Decimal) -> Budget:
    """Return the account of today with this cap; nobody else changes it now."""
    day = session.scalars(select(_today())).one()
    scopes = (_scope_of_day(day),)
    for account in budget_accounts.locked(session, scopes):
        if account.cap_usd == usd_per_day:
            return account
    _open_day(session, day, usd_per_day)
    (account,) = budget_accounts.locked(session, scopes)
    return account


def spend(session: Session, scope: str, usd: Decimal) -> None:
    """Book money on one account as spent, or give some of it back."""
    budget_accounts.book(session, [scope], usd, Decimal(0))


def reserve(
    session: Session,
    reservation_id: uuid.UUID,
    spending: Spending,
    amount_usd: Decimal,
    lasts: timedelta,
) -> None:
    """Set an amount aside on both accounts, which are locked."""
    reservation = BudgetReservation(
        id=reservation_id, run_id=spending.run_id, day=spending.day, amount_usd=amount_usd
    )
    scopes = _scopes(spending.run_id, spending.day)
    budget_accounts.book_reservation(session, reservation, scopes, lasts)


def settle_all(
    session: Session, costs: Mapping[uuid.UUID, Decimal | None]
) -> Mapping[uuid.UUID, Decimal]:
    """Book what requests did cost; unknown is all that was reserved.

    A later word is the better one: one that comes after the reservation was given up corrects it,
    and the same word twice changes nothing. Returns what was reserved for each that is known.
    """
    rows = session.scalars(
        select(BudgetReservation)
        .where(BudgetReservation.id.in_(costs))
        .order_by(BudgetReservation.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).all()
    now = clock.read(session) if rows else None
    spent: defaultdict[str, Decimal] = defaultdict(Decimal)
    reserved: defaultdict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        cost_usd = costs[row.id]
        cost = row.amount_usd if cost_usd is None else money.rounded_up(cost_usd)
        for scope in _scopes(row.run_id, row.day):
            spent[scope] += cost - (row.settled_usd or Decimal(0))
            reserved[scope] -= Decimal(0) if row.settled_at else row.amount_usd
        row.settled_at, row.settled_usd = now, cost
    session.flush()
    for scope in sorted(spent):
        budget_accounts.book(session, [scope], spent[scope], reserved[scope])
    return {row.id: row.amount_usd for row in rows}


def settle_abandoned(session: Session, limit: int) -> int:
    """Book requests that were not settled in time as spent; return how many those were."""
    rows = session.scalars(
        select(BudgetReservation)
        .where(
            BudgetReservation.settled_at.is_(None),
            BudgetReservation.expires_at < clock.database_now(),
        )
        .order_by(BudgetReservation.id)
        .limit(limit)
        .with_for_update(key_share=True, skip_locked=True)
        .execution_options(populate_existing=True)
    ).all()
    now = clock.read(session)
    sums: defaultdict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        row.settled_at, row.settled_usd = now, row.amount_usd
        for scope in _scopes(row.run_id, row.day):
            sums[scope] += row.amount_usd
    session.flush()
    for scope in sorted(sums):
        budget_accounts.book(session, [scope], sums[scope], -sums[scope])
    return len(rows)


def cap_run(session: Session, run_id: uuid.UUID, cap_usd: Decimal) -> Budget:
    """Give a run a cap, the first or another one; return its account, which is locked."""
    opening = _opening(scope_of_run(run_id), cap_usd, _cost_of(run_id)).values(run_id=run_id)
    session.execute(_or_change_cap(opening))
    return session.scalars(
        select(Budget)
        .where(Budget.scope == scope_of_run(run_id))
        .execution_options(populate_existing=True)
    ).one()


def of_run(session: Session, run_id: uuid.UUID) -> Sequence[Budget]:
    """Return the accounts of a run and of today, as far as they have a cap; the run's first."""
    today = session.scalars(select(_today())).one()
    return session.scalars(
        select(Budget)
        .where(Budget.scope.in_(_scopes(run_id, today)), Budget.cap_usd.is_not(None))
        .order_by(Budget.scope.desc())
        .execution_options(populate_existing=True)
    ).all()


def unpriced_calls(session: Session, account: Budget) -> int:
    """Return how many calls of an account's run or day have ended with an unknown cost."""
    calls = (
        select(func.count())
        .select_from(ModelCall)
        .where(ModelCall.cost_usd.is_(None), ModelCall.finished_at.is_not(None))
    )
    if account.run_id is not None:
        calls = calls.join(Job, Job.id == ModelCall.job_id).where(Job.run_id == account.run_id)
    else:
        begins_at = _beginning_of(date.fromisoformat(account.scope.removeprefix("day:")))
        ends_at = begins_at + timedelta(days=1)
        calls = calls.where(ModelCall.started_at >= begins_at, ModelCall.started_at < ends_at)
    return session.scalars(calls).one()


def _beginning_of(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time(), tzinfo=UTC)


def _scopes(run_id: uuid.UUID, day: date) -> tuple[str, str]:
    """Return both scopes in the order in which accounts are locked."""
    return _scope_of_day(day), scope_of_run(run_id)


def _scope_of_day(day: date) -> str:
    return f"day:{day:%Y-%m-%d}"


def _open_day(session: Session, day: date, usd_per_day: Decimal | None) -> None:
    known = (
        select(func.coalesce(func.sum(ModelCall.cost_usd), 0))
        .where(ModelCall.started_at >= _beginning_of(day))
        .scalar_subquery()
    )
    opening = _opening(_scope_of_day(day), usd_per_day, known)
    session.execute(_or_change_cap(opening))


def _cost_of(run_id: uuid.UUID) -> ScalarSelect[Decimal | None]:
    return (
        select(func.coalesce(func.sum(ModelCall.cost_usd), 0))
        .join(Job, Job.id == ModelCall.job_id)
        .where(Job.run_id == run_id)
        .scalar_subquery()
    )


def _opening(scope: str, cap_usd: Decimal | None, known: ScalarSelect[Decimal | None]) -> Insert:
    """Begin an account with what the ledger knows: calls without any cap were not counted."""
    return insert(Budget).values(scope=scope, cap_usd=cap_usd, spent_usd=known)


def _or_change_cap(opening: Insert) -> Insert:
    """Keep what is spent where there is an account, unless the ledger knows of more."""
    new = opening.excluded
    spent = func.greatest(Budget.spent_usd, new.spent_usd)
    return opening.on_conflict_do_update(
        index_elements=[Budget.scope], set_={"cap_usd": new.cap_usd, "spent_usd": spent}
    )
