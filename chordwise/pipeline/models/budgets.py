"""The caps of runs and days, and the known prices that they need."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

from sqlalchemy.orm import Session

from chordwise.domain import money
from chordwise.errors import ConfigurationError, UsageError
from chordwise.llm.prices import MAX_USD, price_of
from chordwise.settings import Settings
from chordwise.storage import budgets
from chordwise.storage.budgets import Reservation

PRICE_HINT = (
    "Set input_usd_per_million_tokens and output_usd_per_million_tokens of the model, "
    'or price = "free" where it costs nothing, or budget.allow_unknown_prices (docs/costs.md).'
)


def reservation_of(settings: Settings, max_usd: Decimal | None) -> Reservation:
    """Return the reservation of a call with this maximum cost, `None` if its price is unknown.

    Raises:
        ConfigurationError: The price is unknown, and the settings do not allow that.
    """
    if max_usd is None and not settings.budget.allow_unknown_prices:
        raise ConfigurationError(
            "There is a budget, but the price of the model is unknown.", PRICE_HINT
        )
    return Reservation(max_usd=max_usd, usd_per_day=settings.budget.usd_per_day)


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
            f"The run has already spent ${money.exact(account.spent_usd)}, "
            f"which is more than a budget of ${money.exact(cap_usd)}.",
            "Give a larger amount: --budget limits the total cost of the run.",
        )
