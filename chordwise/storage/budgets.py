"""Budgets: the cap of a run or day, its spending, and the reservations of calls in flight."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Date,
    ForeignKey,
    Index,
    ScalarSelect,
    Select,
    Text,
    any_,
    bindparam,
    cast,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.orm import InstrumentedAttribute, Mapped, Session, aliased, mapped_column

from chordwise.domain import money
from chordwise.storage import clock, jobs
from chordwise.storage.jobs import Job
from chordwise.storage.model_calls import ModelCall, day_of_call
from chordwise.storage.record import Record, in_ids, insert_all, unnested
from chordwise.storage.runs import Run


class BudgetReservation(Record):
    """The maximum cost of one request, until it is settled with the actual cost."""

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
    """Return those of the reservations that already exist."""
    statement = select(BudgetReservation.id).where(in_ids(BudgetReservation.id, reservation_ids))
    return set(session.scalars(statement))


def forget_settled(session: Session, older_than: timedelta) -> None:
    """Delete reservations that were settled long ago; the accounts keep their sums."""
    session.execute(
        delete(BudgetReservation).where(
            BudgetReservation.settled_at < clock.database_now() - older_than
        )
    )


class Budget(Record):
    """The account of a run (`run:ID`) or of a UTC day (`day:YYYY-MM-DD`); `cap_usd` may be null."""

    __tablename__ = "budgets"

    scope: Mapped[str] = mapped_column(primary_key=True)
    run_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("runs.id"))
    cap_usd: Mapped[Decimal | None]
    spent_usd: Mapped[Decimal] = mapped_column(server_default="0")
    reserved_usd: Mapped[Decimal] = mapped_column(server_default="0")


def locked(session: Session, scopes: Sequence[str]) -> Sequence[Budget]:
    """Return the existing accounts of these scopes, locked in the order of their names."""
    # Accounts that the session has loaded before may have changed.
    fresh = {"populate_existing": True}
    return session.scalars(_LOCKED, {"scopes": scopes}, execution_options=fresh).all()


# Every call under a cap uses these statements, so they are built once.
_LOCKED = (
    select(Budget)
    .where(Budget.scope == any_(bindparam("scopes", type_=ARRAY(Text()))))
    .order_by(Budget.scope)
    .with_for_update(key_share=True)
)
_BOOK = (
    update(Budget)
    .where(Budget.scope == bindparam("account"))
    .values(
        spent_usd=Budget.spent_usd + bindparam("spent"),
        reserved_usd=Budget.reserved_usd + bindparam("reserved"),
    )
    .execution_options(synchronize_session=False)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """The run that is about to spend, the time and UTC day of the database, and the caps.

    `is_open` says that both accounts exist and that the account of the day has the current cap.
    """

    run_id: uuid.UUID
    at: datetime
    day: date
    usd_per_run: Decimal | None
    usd_per_day: Decimal | None
    is_open: bool

    @property
    def is_limited(self) -> bool:
        """Return whether any cap applies."""
        return self.usd_per_run is not None or self.usd_per_day is not None

    @property
    def scopes(self) -> tuple[str, str]:
        """Return the names of the accounts of the day and the run."""
        return _scopes(self.run_id, self.day)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """An amount that a request may cost, reserved until `expires_at`."""

    id: uuid.UUID
    run_id: uuid.UUID
    day: date
    amount_usd: Decimal
    expires_at: datetime


def scope_of_run(run_id: uuid.UUID) -> str:
    """Return the name of a run's account."""
    return f"run:{run_id}"


def _today() -> ColumnElement[date]:
    return cast(func.timezone("UTC", clock.database_now()), Date)


def _limits(
    owner: InstrumentedAttribute[uuid.UUID], run: InstrumentedAttribute[uuid.UUID]
) -> Select[uuid.UUID, uuid.UUID, datetime, date, str, Decimal | None, str, Decimal | None]:
    of_run, of_day = aliased(Budget), aliased(Budget)
    caps = (of_run.scope, of_run.cap_usd, of_day.scope, of_day.cap_usd)
    return (
        select(owner, run, clock.database_now(), _today(), *caps)
        .outerjoin(of_run, of_run.scope == func.concat("run:", cast(run, Text)))
        .outerjoin(of_day, of_day.scope == func.concat("day:", cast(_today(), Text)))
        .where(owner.in_(bindparam("owner_ids", expanding=True)))
    )


# Every call runs these queries, with or without a cap, so they are built once.
_LIMITS = _limits(Job.id, Job.run_id)
_LIMITS_OF_RUNS = _limits(Run.id, Run.id)


def spendings_of(
    session: Session, owner_ids: Collection[uuid.UUID], usd_per_day: Decimal | None
) -> dict[uuid.UUID, Spending]:
    """Return the limits of spending by known owner: a job, or a run that takes documents in."""
    rows = session.execute(_LIMITS, {"owner_ids": list(owner_ids)}).all()
    if others := set(owner_ids) - {row[0] for row in rows}:
        rows = [*rows, *session.execute(_LIMITS_OF_RUNS, {"owner_ids": list(others)})]
    return {
        owner_id: Spending(
            run_id=run_id,
            at=at,
            day=day,
            usd_per_run=run_cap,
            usd_per_day=usd_per_day,
            is_open=bool(run_scope and scope) and cap == usd_per_day,
        )
        for owner_id, run_id, at, day, run_scope, run_cap, scope, cap in rows
    }


def lock_accounts(session: Session, spendings: Iterable[Spending]) -> dict[str, Budget]:
    """Return the accounts of these runs and of the day by scope, locked; create missing ones."""
    by_scopes = {spending.scopes: spending for spending in spendings}
    for _, spending in sorted(by_scopes.items()):
        if not spending.is_open:
            _open_day(session, spending.day, spending.usd_per_day)
            run_id = spending.run_id
            opening = _opening(scope_of_run(run_id), None, _cost_of(run_id))
            session.execute(opening.values(run_id=run_id).on_conflict_do_nothing())
    scopes = {scope for scopes in by_scopes for scope in scopes}
    return {account.scope: account for account in locked(session, sorted(scopes))}


def lock_day(session: Session, usd_per_day: Decimal) -> Budget:
    """Return the account of the current UTC day with this cap, locked."""
    day = session.scalars(select(_today())).one()
    scopes = (_scope_of_day(day),)
    for account in locked(session, scopes):
        if account.cap_usd == usd_per_day:
            return account
    _open_day(session, day, usd_per_day)
    (account,) = locked(session, scopes)
    return account


def spend(session: Session, scope: str, usd: Decimal, reserved: Decimal = Decimal(0)) -> None:
    """Add to the spent and reserved amounts of one account; negative amounts reduce them."""
    session.execute(_BOOK, {"account": scope, "spent": usd, "reserved": reserved})


def reserve(session: Session, granted: Sequence[Reservation]) -> None:
    """Store reservations, whose amounts the caller has added to the locked accounts."""
    insert_all(session, BudgetReservation, [asdict(reservation) for reservation in granted])
    session.flush()


def settle_all(
    session: Session, costs: Mapping[uuid.UUID, Decimal | None]
) -> Mapping[uuid.UUID, Decimal]:
    """Book the actual costs of requests; an unknown cost counts as the whole reservation.

    A later settlement replaces an earlier one, such as that of an abandoned reservation. Return the
    reserved amount of each known reservation.
    """
    rows = session.scalars(
        select(BudgetReservation)
        .where(in_ids(BudgetReservation.id, costs))
        .order_by(BudgetReservation.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).all()
    costs_usd: dict[uuid.UUID, Decimal] = {}
    spent: defaultdict[str, Decimal] = defaultdict(Decimal)
    reserved: defaultdict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        cost_usd = costs[row.id]
        cost = row.amount_usd if cost_usd is None else money.rounded_up(cost_usd)
        for scope in _scopes(row.run_id, row.day):
            spent[scope] += cost - (row.settled_usd or Decimal(0))
            reserved[scope] -= Decimal(0) if row.settled_at else row.amount_usd
        costs_usd[row.id] = cost
    if rows:
        ids, settled_usd = list(costs_usd), list(costs_usd.values())
        settled = unnested(BudgetReservation, {"id": ids, "settled_usd": settled_usd})
        session.execute(
            update(BudgetReservation)
            .where(BudgetReservation.id == settled.c.id)
            .values(settled_at=clock.database_now(), settled_usd=settled.c.settled_usd)
            .execution_options(synchronize_session=False)
        )
    for scope in sorted(spent):
        spend(session, scope, spent[scope], reserved[scope])
    return {row.id: row.amount_usd for row in rows}


def settle_abandoned(session: Session, limit: int) -> int:
    """Book expired reservations as spent in full, and return their number."""
    ids = session.scalars(
        select(BudgetReservation.id)
        .where(
            BudgetReservation.settled_at.is_(None),
            BudgetReservation.expires_at < clock.database_now(),
        )
        .order_by(BudgetReservation.id)
        .limit(limit)
        .with_for_update(key_share=True, skip_locked=True)
    ).all()
    return len(settle_all(session, dict.fromkeys(ids)))


def cap_run(session: Session, run_id: uuid.UUID, cap_usd: Decimal) -> Budget:
    """Set or change the cap of a run, and return its account, locked."""
    opening = _opening(scope_of_run(run_id), cap_usd, _cost_of(run_id)).values(run_id=run_id)
    session.execute(_or_change_cap(opening))
    return session.scalars(select(Budget).where(Budget.scope == scope_of_run(run_id))).one()


def _scopes(run_id: uuid.UUID, day: date) -> tuple[str, str]:
    return _scope_of_day(day), scope_of_run(run_id)


def _scope_of_day(day: date) -> str:
    return f"day:{day:%Y-%m-%d}"


def _open_day(session: Session, day: date, usd_per_day: Decimal | None) -> None:
    known = (
        select(func.coalesce(func.sum(ModelCall.cost_usd), 0))
        .where(day_of_call() >= day)
        .scalar_subquery()
    )
    opening = _opening(_scope_of_day(day), usd_per_day, known)
    session.execute(_or_change_cap(opening))


def _cost_of(run_id: uuid.UUID) -> ScalarSelect[Decimal | None]:
    calls = jobs.calls_of(run_id)
    return select(func.coalesce(func.sum(calls.cost_usd), 0)).scalar_subquery()


def _opening(scope: str, cap_usd: Decimal | None, known: ScalarSelect[Decimal | None]) -> Insert:
    """Return an insert that opens an account with the costs of earlier calls in the ledger."""
    return insert(Budget).values(scope=scope, cap_usd=cap_usd, spent_usd=known)


def _or_change_cap(opening: Insert) -> Insert:
    """Keep the spent amount of an existing account, unless the ledger has a higher one."""
    new = opening.excluded
    spent = func.greatest(Budget.spent_usd, new.spent_usd)
    return opening.on_conflict_do_update(
        index_elements=[Budget.scope], set_={"cap_usd": new.cap_usd, "spent_usd": spent}
    )
