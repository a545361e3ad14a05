"""Budgets: the cap of a run or day, and what calls have spent and reserved of it.

The amount of a call is in the row of the call or of its batch request: `reserved_usd` until it
ends, then `charged_usd`. The accounts are the sums, which are locked while a call reserves.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from types import MappingProxyType

import structlog
from sqlalchemy import (
    Boolean,
    ColumnElement,
    ForeignKey,
    ScalarSelect,
    func,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain import money
from chordwise.errors import BudgetExceededError, BudgetReservedError, ModelError
from chordwise.storage import jobs
from chordwise.storage.database import Store
from chordwise.storage.model_calls import (
    AMOUNTS,
    CHARGES,
    Booking,
    ModelCall,
    amounts_of,
    bookings_of,
    charging,
    day_of_call,
)
from chordwise.storage.record import Record

log = structlog.get_logger(__name__)


class Budget(Record):
    """The account of a run (`run:ID`) or of a UTC day (`day:YYYY-MM-DD`); `cap_usd` may be null."""

    __tablename__ = "budgets"

    scope: Mapped[str] = mapped_column(primary_key=True)
    run_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("runs.id"))
    cap_usd: Mapped[Decimal | None]
    spent_usd: Mapped[Decimal] = mapped_column(server_default="0")
    reserved_usd: Mapped[Decimal] = mapped_column(server_default="0")


@dataclass(slots=True, kw_only=True)
class _Account:
    scope: str
    run_id: uuid.UUID | None
    cap_usd: Decimal | None
    spent_usd: Decimal
    reserved_usd: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """The maximum cost of a call, `None` if its price is unknown; and the cap of a day."""

    max_usd: Decimal | None
    usd_per_day: Decimal | None

    @property
    def amount_usd(self) -> Decimal:
        """Return the amount to reserve: nothing for an unknown price, which the settings allow."""
        return money.rounded_up(self.max_usd or Decimal(0))


def book(
    store: Store,
    ends: Sequence[Booking],
    begun: Mapping[str, Booking] = MappingProxyType({}),
    reservations: Mapping[str, Reservation] = MappingProxyType({}),
) -> dict[str, ModelError]:
    """Book the ends of calls, then reserve for those that begin; return the refusals by id.

    The rows of refused calls are left to the caller. The accounts stay locked until the transaction
    ends; it locks jobs, chunks and calls before.
    """
    if not begun:
        _change(store, ends)
        return {}
    scopes = {scope for booking in (*ends, *begun.values()) for scope in _scopes(booking)}
    accounts, granted = _locked(store, scopes), list(ends)
    outdated = {
        _scopes(booking): (booking, reservations[id_].usd_per_day)
        for id_, booking in begun.items()
        if not _is_open(accounts, booking, reservations[id_].usd_per_day)
    }
    if outdated:
        _change(store, granted)
        granted = []
        for _, (booking, usd_per_day) in sorted(outdated.items()):
            _open(store, booking, usd_per_day)
        accounts = _locked(store, scopes)
    for end in granted:
        _add(accounts, end)
    refusals = {}
    for id_, booking in begun.items():
        charged = [accounts[scope] for scope in _scopes(booking)]
        if refusal := _refusal(charged, reservations[id_]):
            refusals[id_] = refusal
        else:
            _add(accounts, booking)
            granted.append(booking)
    _change(store, granted)
    return refusals


def _refusal(accounts: Sequence[_Account], reservation: Reservation) -> ModelError | None:
    """Return why a call is refused; a spent budget takes precedence over a reserved one."""
    if reservation.max_usd == 0:
        return None
    amount_usd = reservation.amount_usd
    capped = [(account, account.cap_usd) for account in accounts if account.cap_usd is not None]
    for account, cap_usd in capped:
        if account.spent_usd + amount_usd > cap_usd:
            return _exceeded(account, cap_usd, amount_usd, of_sample=len(accounts) == 1)
    for account, cap_usd in capped:
        if account.spent_usd + account.reserved_usd + amount_usd > cap_usd:
            return BudgetReservedError(
                f"The rest of the {_scope_name(account)}'s budget of ${money.exact(cap_usd)} is "
                "reserved for calls in flight."
            )
    return None


def _exceeded(
    account: _Account, cap_usd: Decimal, amount_usd: Decimal, *, of_sample: bool
) -> BudgetExceededError:
    following = (
        f"may cost up to ${money.exact(amount_usd)}" if amount_usd else "has an unknown price"
    )
    what = (
        f"The {_scope_name(account)}'s budget of ${money.exact(cap_usd)} does not cover the next "
        f"call, which {following}: ${money.exact(account.spent_usd)} has been spent."
    )
    if account.run_id is not None:
        return BudgetExceededError(what, "Raise the budget: chordwise continue RUN --budget USD")
    if of_sample:
        return BudgetExceededError(what, "Quote without --sample, or raise budget.usd_per_day.")
    day = account.scope.removeprefix("day:")
    return BudgetExceededError(
        what,
        f"{day} ends at midnight UTC: run `chordwise continue RUN` then, or raise "
        "budget.usd_per_day and run it now.",
    )


def _scope_name(account: _Account) -> str:
    return "day" if account.run_id is None else "run"


_AMOUNTS = {
    "model_calls": AMOUNTS,
    "batch_requests": amounts_of("batch_requests", "j.run_id", "c.reserved_on"),
}
_SETTLE = {
    table: text(f"""
        WITH new AS MATERIALIZED (
            SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:charges AS numeric[]))
                AS new (id, charged_usd)
        ), amount AS MATERIALIZED ({amounts}
        ), settled AS (
            UPDATE {table} SET {charging(table)} FROM new JOIN amount USING (id)
            WHERE {table}.id = new.id AND {table}.id = ANY(CAST(:ids AS uuid[]))
        )
        {CHARGES}""")
    for table, amounts in _AMOUNTS.items()
}
_EXPIRED = {
    table: text(f"""
        SELECT id FROM {table} WHERE reserved_usd IS NOT NULL AND expires_at < clock_timestamp()
        ORDER BY id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED""")
    for table in _AMOUNTS
}


def settle(
    store: Store, costs: Mapping[uuid.UUID, Decimal | None], table: str = "batch_requests"
) -> None:
    """Book the actual costs of batch requests; an unknown cost is that of the reservation."""
    if costs:
        charges = [None if cost is None else money.rounded_up(cost) for cost in costs.values()]
        rows = store.execute(_SETTLE[table], {"ids": list(costs), "charges": charges})
        book(store, bookings_of(rows))


def settle_abandoned(session: Session, limit: int) -> int:
    """Charge the expired reservations of calls and batch requests in full; return their number."""
    count = 0
    for table, expired in _EXPIRED.items():
        ids = session.scalars(expired, {"limit": limit}).all()
        settle(session, dict.fromkeys(ids), table)
        count += len(ids)
    return count


def is_any_reserved() -> ColumnElement[bool]:
    """Return the condition that a call, of the ledger or of a batch, has a reservation."""
    tables = (f"EXISTS (SELECT FROM {table} WHERE reserved_usd IS NOT NULL)" for table in _AMOUNTS)
    return literal_column(" OR ".join(tables), Boolean)


def cap_run(session: Session, run_id: uuid.UUID, cap_usd: Decimal) -> Budget:
    """Set or change the cap of a run, and return its account, locked."""
    opening = _opening(scope_of_run(run_id), cap_usd, _cost_of(run_id)).values(run_id=run_id)
    session.execute(_or_change_cap(opening))
    return session.scalars(select(Budget).where(Budget.scope == scope_of_run(run_id))).one()


def is_capped(session: Session, run_id: uuid.UUID) -> bool:
    """Return whether a run has a cap."""
    cap = select(Budget.cap_usd).where(Budget.scope == scope_of_run(run_id))
    return session.scalar(cap) is not None


def scope_of_run(run_id: uuid.UUID) -> str:
    """Return the name of a run's account."""
    return f"run:{run_id}"


def _scope_of_day(day: date) -> str:
    return f"day:{day:%Y-%m-%d}"


def _scopes(booking: Booking) -> tuple[str, ...]:
    """Return the accounts of a call; that of a sample has no run."""
    day = _scope_of_day(booking.day)
    return (day,) if booking.run_id is None else (day, scope_of_run(booking.run_id))


# Every call under a cap uses these statements. Accounts are locked in the order of their names.
_LOCKED = text("""
    SELECT scope, run_id, cap_usd, spent_usd, reserved_usd FROM budgets
    WHERE scope = ANY(CAST(:scopes AS text[])) ORDER BY scope FOR NO KEY UPDATE""")
_CHANGE = text("""
    WITH change AS MATERIALIZED (
        SELECT * FROM unnest(CAST(:scopes AS text[]), CAST(:spent AS numeric[]),
            CAST(:reserved AS numeric[])) AS change (scope, spent, reserved)
    ), locked AS MATERIALIZED (
        SELECT scope FROM budgets WHERE scope = ANY(CAST(:scopes AS text[]))
        ORDER BY scope FOR NO KEY UPDATE
    )
    UPDATE budgets b
    SET spent_usd = b.spent_usd + change.spent, reserved_usd = b.reserved_usd + change.reserved
    FROM change JOIN locked USING (scope)
    WHERE b.scope = change.scope AND b.scope = ANY(CAST(:scopes AS text[]))""")


def _locked(store: Store, scopes: Iterable[str]) -> dict[str, _Account]:
    rows = store.execute(_LOCKED, {"scopes": sorted(scopes)}).mappings()
    return {row["scope"]: _Account(**row) for row in rows}


def _add(accounts: Mapping[str, _Account], booking: Booking) -> None:
    for scope in _scopes(booking):
        if scope in accounts:  # unless it was deleted with its run
            accounts[scope].spent_usd += booking.spent_usd
            accounts[scope].reserved_usd += booking.reserved_usd


def _change(store: Store, bookings: Iterable[Booking]) -> None:
    """Add bookings to their accounts."""
    spent: defaultdict[str, Decimal] = defaultdict(Decimal)
    reserved: defaultdict[str, Decimal] = defaultdict(Decimal)
    for booking in bookings:
        if booking.spent_usd > -booking.reserved_usd > 0:
            known = {"cost_usd": booking.spent_usd, "reserved_usd": -booking.reserved_usd}
            log.warning("budget.bound_exceeded", **known)
        for scope in _scopes(booking):
            spent[scope] += booking.spent_usd
            reserved[scope] += booking.reserved_usd
    if spent:
        amounts = {"spent": list(spent.values()), "reserved": list(reserved.values())}
        store.execute(_CHANGE, {"scopes": list(spent), **amounts})


def _is_open(
    accounts: Mapping[str, _Account], booking: Booking, usd_per_day: Decimal | None
) -> bool:
    """Return whether the accounts of a call exist, and that of the day has the current cap."""
    day, *_ = scopes = _scopes(booking)
    return all(scope in accounts for scope in scopes) and accounts[day].cap_usd == usd_per_day


def _open(store: Store, booking: Booking, usd_per_day: Decimal | None) -> None:
    cost = select(func.coalesce(func.sum(ModelCall.cost_usd), 0))
    of_day = cost.where(day_of_call() >= booking.day).scalar_subquery()
    store.execute(_or_change_cap(_opening(_scope_of_day(booking.day), usd_per_day, of_day)))
    run_id = booking.run_id
    if run_id is not None:
        opening = _opening(scope_of_run(run_id), None, _cost_of(run_id))
        store.execute(opening.values(run_id=run_id).on_conflict_do_nothing())


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
