"""No request without its money: reserved before it is sent, settled with what it did cost."""

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
from chordwise.llm.pricing import Price, booked_cost, booked_failure

ReservationId: TypeAlias = UUID

LONGEST_WAIT_SECONDS = 10.0
"""A waiting call holds a permit of the provider, so longer waits are postponed."""
_SHORTEST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 1.0


class Budget(Protocol):
    """What may be spent, shared by all who ask."""

    def reserve(
        self, max_usd: Decimal | None, timeout_seconds: float | None
    ) -> ReservationId | None:
        """Set aside what a request can cost at most; `None` where nothing limits it.

        `max_usd` is `None` where the price is unknown. A request that is not settled within its
        timeout and some time more counts as spent. Of a free model, and of one whose unknown price
        is allowed, nothing is set aside; the reservation takes the cost that the server reports.

        Raises:
            BudgetReservedError: The money is there, but others have reserved it.
            BudgetExceededError: So much is not left.
            ConfigurationError: There is a cap, and an unknown price.
            ServiceUnavailableError: The account is out of reach.
        """

    def settle(self, reservation_id: ReservationId, cost_usd: Decimal | None) -> None:
        """Give back what a request did not cost; an unknown cost is all that was reserved."""


class Unlimited:
    """No budget at all, for use as a library."""

    def reserve(
        self,
        max_usd: Decimal | None,  # noqa: ARG002 - the signature is the port's
        timeout_seconds: float | None,  # noqa: ARG002 - as above
    ) -> ReservationId | None:
        """Set nothing aside."""
        return None

    def settle(self, reservation_id: ReservationId, cost_usd: Decimal | None) -> None:
        """Do nothing."""


@dataclass(slots=True, eq=False)
class Budgeted(Middleware):
    """Asks only for what the budget has money for.

    `sleep` waits so many seconds, `clock` returns seconds and never goes back.
    """

    budget: Budget
    price: Price
    sleep: Callable[[float], None]
    random: Random
    clock: Callable[[], float] = time.monotonic

    def complete(self, request: CompletionRequest) -> Completion:
        """Reserve, ask once, and settle.

        Where our own database fails meanwhile, or the process is killed, the reservation stays; it
        counts as spent once it has run out.

        Raises:
            ModelError: What the model inside raised, or the budget.
            ConfigurationError: There is a cap, and an unknown price.
            ServiceUnavailableError: The account is out of reach.
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
        self.budget.settle(reservation_id, booked_cost(self.price, completion).usd)
        return completion

    def _reserve(self, request: CompletionRequest) -> ReservationId | None:
        """Reserve, and wait a while for others to settle theirs."""
        max_usd = self.price.max_usd(request)
        ends_at = self.clock() + LONGEST_WAIT_SECONDS
        pause = _SHORTEST_PAUSE_SECONDS
        while True:
            try:
                return self.budget.reserve(max_usd, request.timeout_seconds)
            except BudgetReservedError:
                if self.clock() + pause > ends_at:
                    raise
            self.sleep(self.random.uniform(pause / 2, pause))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
