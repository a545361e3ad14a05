"""Budgets in use: whether there is money for a call, and what is left of it, for all workers."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import structlog
from sqlalchemy.orm import Session, sessionmaker

from chordwise.domain import money
from chordwise.errors import (
    BudgetExceededError,
    BudgetReservedError,
    ConfigurationError,
    UsageError,
)
from chordwise.llm.pricing import MOST_USD, price_of
from chordwise.settings import Settings
from chordwise.storage import budget_reservations, budgets
from chordwise.storage.budget_accounts import Budget
from chordwise.storage.budgets import Spending
from chordwise.storage.engine import persistently, reaching_database
from chordwise.storage.record import new_id

log = structlog.get_logger(__name__)

# Before anything is paid for, there is no reason to wait for long.
_RESERVE_PATIENCE = timedelta(seconds=15)
PRICE_HINT = (
    "Set input_usd_per_million_tokens and output_usd_per_million_tokens of the model, "
    'or price = "free" where it costs nothing, or budget.allow_unknown_prices (docs/budgets.md).'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLine:
    """What a cap has come to; `scope` is run:ID or day:YYYY-MM-DD (UTC).

    `unpriced_calls` have an unknown cost: what was reserved for them, if anything, counts as spent.
    """

    scope: str
    cap_usd: Decimal
    spent_usd: Decimal
    reserved_usd: Decimal
    left_usd: Decimal
    unpriced_calls: int


class JobBudget:
    """What may be spent for one job: the budget of its run, and that of the day.

    Implements `chordwise.llm.middleware.budgeted.Budget`. Each reservation is one short transaction
    that locks both accounts, so that the caps hold however many workers there are.
    """

    def __init__(
        self, settings: Settings, sessions: sessionmaker[Session], job_id: uuid.UUID
    ) -> None:
        self._settings = settings
        self._sessions = sessions
        self._job_id = job_id

    def reserve(self, most_usd: Decimal | None, timeout_seconds: float | None) -> uuid.UUID | None:
        """Set aside what a request can cost at most; `None` where nothing limits it.

        Raises:
            BudgetReservedError: The money is there, but others have reserved it.
            BudgetExceededError: So much is not left.
            ConfigurationError: There is a cap, and an unknown price.
            ServiceUnavailableError: The database is away.
        """
        reservation_id = new_id()
        tries: list[int] = []

        def write(session: Session) -> bool:
            tries.append(1)
            if len(tries) > 1 and budget_reservations.is_reserved(session, reservation_id):
                return True  # an earlier commit was made, and only its answer was lost
            lasts = self._lasting(timeout_seconds)
            return self.reserve_in(session, reservation_id, most_usd, lasts)

        reserved = persistently(self._sessions, _RESERVE_PATIENCE, write)
        return reservation_id if reserved else None

    def reserve_in(
        self,
        session: Session,
        reservation_id: uuid.UUID,
        most_usd: Decimal | None,
        lasts: timedelta,
    ) -> bool:
        """Do the same in the caller's transaction, for so long; false where nothing limits it.

        Raises:
            BudgetReservedError: As above.
            BudgetExceededError: As above.
            ConfigurationError: As above.
        """
        spending = self._spending(session)
        if spending is None or not spending.is_limited:
            return False
        amount_usd = Decimal(0) if self._is_waived(most_usd) else money.rounded_up(known(most_usd))
        accounts = budgets.lock_accounts(session, spending)
        if most_usd != 0:
            require(accounts, amount_usd)
        budgets.reserve(session, reservation_id, spending, amount_usd, lasts)
        return True

    def settle(self, reservation_id: uuid.UUID, cost_usd: Decimal | None) -> None:
        """Give back what a request did not cost; an unknown cost is all that was reserved.

        Raises:
            ServiceUnavailableError: The database stayed away; the reservation counts as spent.
        """
        patience = timedelta(seconds=self._settings.pipeline.outage_seconds)
        reserved_usd = persistently(
            self._sessions, patience, lambda s: budgets.settle(s, reservation_id, cost_usd)
        )
        if cost_usd is not None and reserved_usd and cost_usd > reserved_usd:
            log.warning(
                "budget.bound_exceeded", cost_usd=str(cost_usd), reserved_usd=str(reserved_usd)
            )

    def _spending(self, session: Session) -> Spending | None:
        return budgets.spending_of(session, self._job_id, self._settings.budget.usd_per_day)

    def _is_waived(self, most_usd: Decimal | None) -> bool:
        return most_usd is None and self._settings.budget.allow_unknown_prices

    def _lasting(self, timeout_seconds: float | None) -> timedelta:
        """Return how long a reservation lasts: the request, and some time to settle it."""
        seconds = timeout_seconds or self._settings.retries.total_seconds
        return timedelta(seconds=seconds + self._settings.pipeline.lease_seconds)


def cap_for(settings: Settings, model: str, budget_usd: Decimal | None) -> Decimal | None:
    """Return the cap of a run that asks this model; `None` where nobody has set one.

    Raises:
        UsageError: No such budget can be kept.
        ConfigurationError: There is a cap for the run or the day, and an unknown price.
    """
    cap_usd = settings.budget.usd_per_run if budget_usd is None else checked_cap(budget_usd)
    if cap_usd is not None or settings.budget.usd_per_day is not None:
        require_known_prices(settings, (model,))
    return cap_usd


def require_known_prices(settings: Settings, models: Iterable[str]) -> None:
    """Refuse models that may be asked for these and of unknown price, unless allowed.

    Raises:
        ConfigurationError: There is such a model, or none of that name.
    """
    if settings.budget.allow_unknown_prices:
        return
    asked = dict.fromkeys(name for model in models for name in settings.names_asked(model))
    names = dict.fromkeys((*asked, *settings.fallback))
    unknown = [name for name in names if not price_of(settings.model_named(name)).is_known()]
    if unknown:
        raise ConfigurationError(
            f"There is a budget, but no price is known of {', '.join(unknown)}.", PRICE_HINT
        )


def checked_cap(cap_usd: Decimal) -> Decimal:
    """Return an amount as the accounts keep it, if it can be the cap of a run.

    Raises:
        UsageError: It cannot.
    """
    if cap_usd.is_finite() and 0 < cap_usd < MOST_USD and money.rounded_down(cap_usd):
        return money.rounded_down(cap_usd)
    raise UsageError(
        f"A budget of {cap_usd} cannot be kept.",
        f"Give an amount in US dollars above 0 and below {MOST_USD:,}, such as --budget 2.50.",
    )


def change_cap(session: Session, run_id: uuid.UUID, cap_usd: Decimal) -> None:
    """Give a run another cap, in the caller's transaction.

    Raises:
        UsageError: More is spent already.
    """
    account = budgets.cap_run(session, run_id, cap_usd)
    if cap_usd < account.spent_usd:
        raise UsageError(
            f"The run has spent ${_shown(account.spent_usd)} already, "
            f"and a budget of ${_shown(cap_usd)} is less.",
            "Give a larger amount: --budget is what the run may cost in all.",
        )


def lines_of_run(session: Session, run_id: uuid.UUID) -> Sequence[BudgetLine]:
    """Return what the caps of a run and of today have come to; none where there are no caps.

    Raises:
        ServiceUnavailableError: The database cannot be reached.
    """
    with reaching_database():
        return [
            _line(account, account.cap_usd, budgets.unpriced_calls(session, account))
            for account in budgets.of_run(session, run_id)
            if account.cap_usd is not None
        ]


def known(most_usd: Decimal | None) -> Decimal:
    """Return what a request can cost at most.

    Raises:
        ConfigurationError: Nobody knows the price.
    """
    if most_usd is None:
        raise ConfigurationError(
            "There is a budget, but the price of the model is unknown.", PRICE_HINT
        )
    return most_usd


def require(accounts: Sequence[Budget], amount_usd: Decimal) -> None:
    """Let an amount be reserved, or say why not; what can never be had goes before what may.

    Raises:
        BudgetReservedError: The money is there, but others have reserved it.
        BudgetExceededError: So much is not left.
    """
    capped = [(account, account.cap_usd) for account in accounts if account.cap_usd is not None]
    for account, cap_usd in capped:
        if account.spent_usd + amount_usd > cap_usd:
            raise _exceeded(account, cap_usd, amount_usd)
    for account, cap_usd in capped:
        if account.spent_usd + account.reserved_usd + amount_usd > cap_usd:
            raise BudgetReservedError(
                f"The rest of the {_whose(account)}'s budget of ${_shown(cap_usd)} is reserved "
                "for calls in flight."
            )


def _line(account: Budget, cap_usd: Decimal, unpriced_calls: int) -> BudgetLine:
    return BudgetLine(
        scope=account.scope,
        cap_usd=cap_usd,
        spent_usd=account.spent_usd,
        reserved_usd=account.reserved_usd,
        left_usd=max(Decimal(0), cap_usd - account.spent_usd - account.reserved_usd),
        unpriced_calls=unpriced_calls,
    )


def _exceeded(account: Budget, cap_usd: Decimal, amount_usd: Decimal) -> BudgetExceededError:
    following = f"may cost up to ${_shown(amount_usd)}" if amount_usd else "has an unknown price"
    what = (
        f"The {_whose(account)}'s budget of ${_shown(cap_usd)} is used up: "
        f"${_shown(account.spent_usd)} are spent, and the next call {following}."
    )
    if account.run_id is not None:
        return BudgetExceededError(what, "Raise it and go on: chordwise retry RUN --budget USD")
    day = account.scope.removeprefix("day:")
    return BudgetExceededError(
        what,
        f"{day} ends at midnight UTC; then: chordwise retry RUN. Or raise budget.usd_per_day.",
    )


def _whose(account: Budget) -> str:
    return "day" if account.run_id is None else "run"


def _shown(usd: Decimal) -> str:
    """Return an amount with as many digits as it has, two at least."""
    plain = f"{usd.normalize():f}"
    whole, _, cents = plain.partition(".")
    return f"{whole}.{cents:0<2}"
