"""The budget of a day for calls of no run: they are paid beforehand, and get back what was left."""

from __future__ import annotations

import uuid
from decimal import Decimal

from chordwise.domain import money
from chordwise.errors import BudgetExceededError
from chordwise.pipeline.models import budgets as caps
from chordwise.settings import Settings
from chordwise.storage import budgets
from chordwise.storage.budgets import Budget
from chordwise.storage.database import Database
from chordwise.storage.record import new_id


class DayBudget:
    """What may be spent today where there is neither a run nor a job.

    Implements `chordwise.llm.middleware.budgeted.Budget`. A reservation belongs to a run; here the
    most that a request can cost is booked as spent instead, and what it did not cost is taken off
    again. Nothing is tried twice: what is lost with the database stays booked.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings.budget
        self._database = database
        self._paid: dict[uuid.UUID, tuple[str, Decimal]] = {}

    def reserve(
        self,
        most_usd: Decimal | None,
        timeout_seconds: float | None,  # noqa: ARG002 - the signature is the port's
    ) -> uuid.UUID | None:
        """Book what a request can cost at most; `None` where nothing limits the day.

        Raises:
            BudgetReservedError: The money is there, but others have reserved it.
            BudgetExceededError: So much is not left.
            ConfigurationError: There is a cap, and an unknown price.
            ServiceUnavailableError: The database is away.
        """
        usd_per_day = self._settings.usd_per_day
        if usd_per_day is None:
            return None
        is_waived = most_usd is None and self._settings.allow_unknown_prices
        amount_usd = Decimal(0) if is_waived else money.rounded_up(caps.known(most_usd))
        with self._database.write() as session:
            day = budgets.lock_day(session, usd_per_day)
            if most_usd != 0:
                self._require(day, amount_usd)
            budgets.spend(session, day.scope, amount_usd)
        payment_id = new_id()
        self._paid[payment_id] = (day.scope, amount_usd)
        return payment_id

    def settle(self, reservation_id: uuid.UUID, cost_usd: Decimal | None) -> None:
        """Take off what a request did not cost; an unknown cost is all that was booked.

        Raises:
            ServiceUnavailableError: The database is away; all of it counts as spent.
        """
        scope, amount_usd = self._paid.pop(reservation_id)
        if cost_usd is None:
            return
        with self._database.write() as session:
            budgets.spend(session, scope, money.rounded_up(cost_usd) - amount_usd)

    def _require(self, day: Budget, amount_usd: Decimal) -> None:
        try:
            caps.require([day], amount_usd)
        except BudgetExceededError as error:
            hint = "Quote without --sample, or raise budget.usd_per_day."
            raise BudgetExceededError(error.what, hint) from error
