"""Budgets: the cost of a request is reserved before it is sent and settled afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Protocol, TypeAlias
from uuid import UUID

from chordwise.errors import BudgetReservedError, ChordwiseError, ServiceUnavailableError
from chordwise.llm.model import Completion, CompletionRequest, Middleware
from chordwise.llm.prices import Price, booked_cost, booked_failure

ReservationId: TypeAlias = UUID

MAX_WAIT_SECONDS = 10.0
"""A waiting call may hold a permit and a slot, so work with a longer wait is postponed."""
_MIN_PAUSE_SECONDS = 0.1
_MAX_PAUSE_SECONDS = 1.0


class SharedBudget(Protocol):
    """The money that may be spent, shared by all processes."""

    def reserve(
        self, max_usd: Decimal | None, timeout_seconds: float | None
    ) -> ReservationId | None:
        """Reserve the maximum cost of a request, `None` if its price is unknown.

        `None` is returned if there is no cap. Nothing is reserved for a free model, or an allowed
        unknown price. A request not settled within its timeout and a margin counts as spent.

        Raises:
            BudgetReservedError: The money is available, but reserved by other requests.
            BudgetExceededError: The remaining budget is too small.
            ConfigurationError: There is a cap, and the price is unknown.
            ServiceUnavailableError: The account is unavailable.
        """

    def settle(self, reservation_id: ReservationId, cost_usd: Decimal | None) -> None:
        """Release the unused part of a reservation; with an unknown cost, all of it is spent."""


@dataclass(slots=True, eq=False)
class Budgeted(Middleware):
    """Sends only requests that the budget covers; `clock` returns monotonic seconds."""

    budget: SharedBudget
    price: Price
    sleep: Callable[[float], None]
    random: Random
    clock: Callable[[], float] = time.monotonic

    def complete(self, request: CompletionRequest) -> Completion:
        """Reserve the cost, send one request, and settle; without an end, the whole cost is spent.

        Raises:
            ModelError: The error of the wrapped model, or of the budget.
            ConfigurationError: There is a cap, and the price is unknown.
            ServiceUnavailableError: The account is unavailable.
        """
        reservation_id = self._reserve(request)
        if reservation_id is None:
            return self.model.complete(request)
        try:
            completion = self.model.complete(request)
        except ServiceUnavailableError:
            raise
        except ChordwiseError as error:
            self.budget.settle(reservation_id, booked_failure(self.price, error).usd)
            raise
        cost = booked_cost(self.price, completion, request.estimated_tokens)
        self.budget.settle(reservation_id, cost.usd)
        return completion

    def _reserve(self, request: CompletionRequest) -> ReservationId | None:
        """Reserve; wait up to `MAX_WAIT_SECONDS` for other reservations to be settled."""
        max_usd = self.price.max_usd(request)
        ends_at = self.clock() + MAX_WAIT_SECONDS
        pause = _MIN_PAUSE_SECONDS
        while True:
            try:
                return self.budget.reserve(max_usd, request.timeout_seconds)
            except BudgetReservedError:
                if self.clock() + pause > ends_at:
                    raise
            self.sleep(self.random.uniform(pause / 2, pause))
            pause = min(2 * pause, _MAX_PAUSE_SECONDS)
