"""Enforces budgets across all workers: reserves money for calls and settles what they cost."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal, InvalidOperation

import structlog
from sqlalchemy.orm import Session

from chordwise.domain import money
from chordwise.errors import (
    BudgetExceededError,
    BudgetReservedError,
    ChordwiseError,
    ConfigurationError,
    UsageError,
)
from chordwise.llm.prices import MAX_USD, price_of
from chordwise.settings import Settings
from chordwise.settings.sections import BudgetSettings
from chordwise.storage import budgets
from chordwise.storage.budgets import Budget, Reservation, Spending
from chordwise.storage.database import Database
from chordwise.storage.group_commit import GroupCommit
from chordwise.storage.record import new_id

log = structlog.get_logger(__name__)
# Before anything is paid for, there is no reason to wait for long.
_RESERVE_TIMEOUT = timedelta(seconds=15)
PRICE_HINT = (
    "Set input_usd_per_million_tokens and output_usd_per_million_tokens of the model, "
    'or price = "free" where it costs nothing, or budget.allow_unknown_prices (docs/costs.md).'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    reservation_id: uuid.UUID
    job_id: uuid.UUID
    max_usd: Decimal | None
    lasts: timedelta


_REFUSALS = (BudgetReservedError, BudgetExceededError, ConfigurationError)


class Reservations:
    """Reserves and settles the money of requests, those of several threads in one transaction.

    A group locks the accounts of its runs and of the day, so that the caps hold for any number of
    workers.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.reserved = GroupCommit(database.write, self.reserve_all)
        self.settled = GroupCommit(database.write, _settle_all)

    def reserve_all(
        self, session: Session, group: Sequence[_Request]
    ) -> Sequence[bool | ChordwiseError]:
        """Reserve for several requests in the caller's transaction; return the outcome of each."""
        owners = {request.job_id for request in group}
        spendings = budgets.spendings_of(session, owners, self.settings.budget.usd_per_day)
        limited = {owner: spending for owner, spending in spendings.items() if spending.is_limited}
        if not limited:
            return [False] * len(group)
        # After a lost commit response, the reservations are already made.
        made = budgets.reserved(session, [request.reservation_id for request in group])
        accounts = budgets.lock_accounts(session, limited.values())
        granted: list[Reservation] = []
        outcomes: list[bool | ChordwiseError] = []
        for request in group:
            spending = limited.get(request.job_id)
            if spending is None or request.reservation_id in made:
                outcomes.append(spending is not None)
                continue
            try:
                granted.append(self._reserve(request, spending, accounts))
                outcomes.append(True)
            except _REFUSALS as refusal:
                outcomes.append(refusal)
        budgets.reserve(session, granted)
        return outcomes

    def _reserve(
        self, request: _Request, spending: Spending, accounts: Mapping[str, Budget]
    ) -> Reservation:
        charged_accounts = [accounts[scope] for scope in spending.scopes]
        amount_usd = _amount(self.settings.budget, request.max_usd)
        if request.max_usd != 0:
            require(charged_accounts, amount_usd)
        for account in charged_accounts:
            account.reserved_usd += amount_usd
        return Reservation(
            id=request.reservation_id,
            run_id=spending.run_id,
            day=spending.day,
            amount_usd=amount_usd,
            expires_at=spending.at + request.lasts,
        )


def _granted(outcome: bool | ChordwiseError) -> bool:  # noqa: FBT001 - an outcome, not a switch
    if isinstance(outcome, ChordwiseError):
        raise outcome
    return outcome


def _settle_all(
    session: Session, group: Sequence[tuple[uuid.UUID, Decimal | None]]
) -> Sequence[Decimal | None]:
    reserved = budgets.settle_all(session, dict(group))
    return [reserved.get(reservation_id) for reservation_id, _ in group]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobBudget:
    """The budget of one job: that of its run and that of the day.

    `job_id` is the id of the run for calls that are made before there is a job. Implements
    `chordwise.llm.middleware.budgeted.SharedBudget`.
    """

    reservations: Reservations
    job_id: uuid.UUID

    def reserve(self, max_usd: Decimal | None, timeout_seconds: float | None) -> uuid.UUID | None:
        """Reserve the maximum cost of a request, or return `None` if there is no cap.

        The reservation lasts as long as the request may take, plus one lease to settle it.

        Raises:
            BudgetReservedError: The money is there, but reserved by other requests.
            BudgetExceededError: The remaining budget is too small.
            ConfigurationError: There is a cap, and the price is unknown.
        """
        settings = self.reservations.settings
        seconds = timeout_seconds or settings.retries.total_seconds
        lasts = timedelta(seconds=seconds + settings.pipeline.lease_seconds)
        request = _Request(
            reservation_id=new_id(), job_id=self.job_id, max_usd=max_usd, lasts=lasts
        )
        outcome = self.reservations.reserved.commit(request, _RESERVE_TIMEOUT)
        return request.reservation_id if _granted(outcome) else None

    def reserve_in(
        self, session: Session, reservation_id: uuid.UUID, max_usd: Decimal | None, lasts: timedelta
    ) -> bool:
        """Reserve in the caller's transaction; false without a limit.

        Raises:
            ChordwiseError: As `reserve` does.
        """
        request = _Request(
            reservation_id=reservation_id, job_id=self.job_id, max_usd=max_usd, lasts=lasts
        )
        return _granted(self.reservations.reserve_all(session, [request])[0])

    def settle(self, reservation_id: uuid.UUID, cost_usd: Decimal | None) -> None:
        """Release what a request did not cost; if the cost is unknown, all of it counts as spent.

        Raises:
            ServiceUnavailableError: The database stayed unavailable; the reservation counts as
                spent.
        """
        settings = self.reservations.settings.pipeline
        timeout = timedelta(seconds=settings.database_outage_timeout_seconds)
        reserved_usd = self.reservations.settled.commit((reservation_id, cost_usd), timeout)
        if cost_usd is not None and reserved_usd and cost_usd > reserved_usd:
            log.warning(
                "budget.bound_exceeded", cost_usd=str(cost_usd), reserved_usd=str(reserved_usd)
            )


def cap_for(settings: Settings, model: str, budget_usd: Decimal | None) -> Decimal | None:
    """Return the cap of a run that asks this model, or `None` if there is none.

    Raises:
        UsageError: The amount cannot be a budget.
        ConfigurationError: The run or the day has a cap, and a price is unknown.
    """
    cap_usd = settings.budget.usd_per_run if budget_usd is None else checked_cap(budget_usd)
    if cap_usd is not None or settings.budget.usd_per_day is not None:
        vision = settings.readers.vision
        require_known_prices(settings, (model, vision) if vision else (model,))
    return cap_usd


def require_known_prices(settings: Settings, models: Iterable[str]) -> None:
    """Refuse models with an unknown price that may be asked, unless the settings allow them.

    Raises:
        ConfigurationError: There is such a model, or none of that name.
    """
    if settings.budget.allow_unknown_prices:
        return
    selection = dict.fromkeys(name for model in models for name in settings.selected_names(model))
    names = dict.fromkeys((*selection, *settings.fallback))
    unknown = [name for name in names if not price_of(settings.model_named(name)).is_known()]
    if unknown:
        raise ConfigurationError(
            f"There is a budget, but the price is unknown for {', '.join(unknown)}.", PRICE_HINT
        )


def checked_cap(cap_usd: Decimal) -> Decimal:
    """Return an amount in the precision of the accounts, if it can be the cap of a run.

    Raises:
        UsageError: It cannot.
    """
    if cap_usd.is_finite() and 0 < cap_usd < MAX_USD and money.rounded_down(cap_usd):
        return money.rounded_down(cap_usd)
    raise UsageError(
        f"{cap_usd} is not a valid budget.",
        f"Give an amount in US dollars above 0 and below {MAX_USD:,}, such as --budget 2.50.",
    )


def parse_budget(value: str | None) -> Decimal | None:
    """Parse an amount in US dollars; `None` stays `None`.

    Raises:
        UsageError: It is not a valid budget.
    """
    if value is None:
        return None
    try:
        return checked_cap(Decimal(value.strip().removeprefix("$")))
    except InvalidOperation as error:
        raise UsageError(f"--budget {value} is not an amount.", "Example: --budget 2.50") from error


def change_cap(session: Session, run_id: uuid.UUID, cap_usd: Decimal) -> None:
    """Change the cap of a run in the caller's transaction.

    Raises:
        UsageError: More is spent already.
    """
    account = budgets.cap_run(session, run_id, cap_usd)
    if cap_usd < account.spent_usd:
        raise UsageError(
            f"The run has already spent ${_dollars(account.spent_usd)}, "
            f"which is more than a budget of ${_dollars(cap_usd)}.",
            "Give a larger amount: --budget limits the total cost of the run.",
        )


def _amount(settings: BudgetSettings, max_usd: Decimal | None) -> Decimal:
    """Return the amount to reserve for a request with this maximum cost."""
    if max_usd is not None:
        return money.rounded_up(max_usd)
    if settings.allow_unknown_prices:
        return Decimal(0)
    raise ConfigurationError(
        "There is a budget, but the price of the model is unknown.", PRICE_HINT
    )


def require(accounts: Sequence[Budget], amount_usd: Decimal) -> None:
    """Check that an amount can be reserved; a spent budget takes precedence over a reserved one.

    Raises:
        BudgetReservedError: The money is there, but reserved by other requests.
        BudgetExceededError: The remaining budget is too small.
    """
    capped = [(account, account.cap_usd) for account in accounts if account.cap_usd is not None]
    for account, cap_usd in capped:
        if account.spent_usd + amount_usd > cap_usd:
            raise _exceeded(account, cap_usd, amount_usd)
    for account, cap_usd in capped:
        if account.spent_usd + account.reserved_usd + amount_usd > cap_usd:
            raise BudgetReservedError(
                f"The rest of the {_scope_name(account)}'s budget of ${_dollars(cap_usd)} is "
                "reserved for calls in flight."
            )


def _exceeded(account: Budget, cap_usd: Decimal, amount_usd: Decimal) -> BudgetExceededError:
    following = f"may cost up to ${_dollars(amount_usd)}" if amount_usd else "has an unknown price"
    what = (
        f"The {_scope_name(account)}'s budget of ${_dollars(cap_usd)} does not cover the next "
        f"call, which {following}: ${_dollars(account.spent_usd)} has been spent."
    )
    if account.run_id is not None:
        return BudgetExceededError(what, "Raise the budget: chordwise continue RUN --budget USD")
    day = account.scope.removeprefix("day:")
    return BudgetExceededError(
        what,
        f"{day} ends at midnight UTC: run `chordwise continue RUN` then, or raise "
        "budget.usd_per_day and run it now.",
    )


def _scope_name(account: Budget) -> str:
    return "day" if account.run_id is None else "run"


def _dollars(usd: Decimal) -> str:
    """Return an amount with all of its digits, at least two after the point."""
    plain = f"{usd.normalize():f}"
    whole, _, cents = plain.partition(".")
    return f"{whole}.{cents:0<2}"


class DayBudget:
    """The budget of the day, for calls without a run or job.

    Implements `chordwise.llm.middleware.budgeted.SharedBudget`. Reservations belong to runs; the
    maximum cost of a request is booked as spent, and the difference is subtracted afterwards.
    Nothing is repeated: what is lost with the database stays booked.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings.budget
        self._database = database
        self._paid: dict[uuid.UUID, tuple[str, Decimal]] = {}

    def reserve(
        self,
        max_usd: Decimal | None,
        timeout_seconds: float | None,  # noqa: ARG002 - the signature is the port's
    ) -> uuid.UUID | None:
        """Book the maximum cost of a request, or return `None` if the day has no cap.

        Raises:
            BudgetReservedError: The money is there, but reserved by other requests.
            BudgetExceededError: The remaining budget is too small.
            ConfigurationError: There is a cap, and the price is unknown.
        """
        usd_per_day = self._settings.usd_per_day
        if usd_per_day is None:
            return None
        amount_usd = _amount(self._settings, max_usd)
        with self._database.write() as session:
            day = budgets.lock_day(session, usd_per_day)
            if max_usd != 0:
                self._require(day, amount_usd)
            budgets.spend(session, day.scope, amount_usd)
        payment_id = new_id()
        self._paid[payment_id] = (day.scope, amount_usd)
        return payment_id

    def settle(self, reservation_id: uuid.UUID, cost_usd: Decimal | None) -> None:
        """Subtract what a request did not cost; if the cost is unknown, all of it stays booked.

        Raises:
            ServiceUnavailableError: The database is unavailable; all of it counts as spent.
        """
        scope, amount_usd = self._paid.pop(reservation_id)
        if cost_usd is None:
            return
        with self._database.write() as session:
            budgets.spend(session, scope, money.rounded_up(cost_usd) - amount_usd)

    def _require(self, day: Budget, amount_usd: Decimal) -> None:
        try:
            require([day], amount_usd)
        except BudgetExceededError as error:
            hint = "Quote without --sample, or raise budget.usd_per_day."
            raise BudgetExceededError(error.what, hint) from error
