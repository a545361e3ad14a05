"""Tests of the budget: money is reserved before a request and settled after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from random import Random
from uuid import UUID, uuid4

import pytest

from chordwise import errors
from chordwise.llm.middleware.budgeted import MAX_WAIT_SECONDS, Budgeted
from chordwise.llm.model import Completion, FinishReason, Usage
from chordwise.llm.prices import FreePrice, ListPrice, OwnPrice, Price
from tests.fakes.completion_requests import a_request
from tests.fakes.scripted_model import Line, ScriptedModel

PRICE = OwnPrice(input_usd_per_million_tokens=Decimal(2), output_usd_per_million_tokens=Decimal(10))
UNKNOWN = ListPrice(provider="openai", model="our-own")
ANSWER = Completion(
    text="{}",
    finish_reason=FinishReason.STOP,
    usage=Usage(input_tokens=1_000, output_tokens=100),
    provider="scripted",
    model="script-1",
)


@dataclass(slots=True, kw_only=True)
class ListBudget:
    """Grants or rejects as scripted and records its calls."""

    answers: list[errors.ChordwiseError | None] = field(default_factory=list)
    reserved: list[tuple[Decimal | None, float | None]] = field(default_factory=list)
    granted: list[UUID] = field(default_factory=list)
    settled: list[Decimal | None] = field(default_factory=list)

    def reserve(self, max_usd: Decimal | None, timeout_seconds: float | None) -> UUID | None:
        self.reserved.append((max_usd, timeout_seconds))
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        self.granted.append(uuid4())
        return self.granted[-1]

    def settle(self, reservation_id: UUID, cost_usd: Decimal | None) -> None:
        assert reservation_id in self.granted
        self.settled.append(cost_usd)


@dataclass(slots=True, kw_only=True)
class Setup:
    """A model behind a budget, and a clock that advances only by sleeping."""

    budget: ListBudget
    model: ScriptedModel
    price: Price
    seconds: float = 0.0

    def ask(self) -> Completion:
        jitter = Random(1)  # noqa: S311 - the same in every run
        budgeted = Budgeted(
            self.model, self.budget, self.price, self.sleep, jitter, lambda: self.seconds
        )
        return budgeted.complete(a_request(timeout_seconds=30))

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def a_setup(
    *script: Line, answers: Sequence[errors.ChordwiseError | None] = (), price: Price = PRICE
) -> Setup:
    return Setup(budget=ListBudget(answers=list(answers)), model=ScriptedModel(script), price=price)


@pytest.mark.parametrize(
    ("answer", "cost"),
    [
        (ANSWER, Decimal("0.003")),
        (replace(ANSWER, usage=Usage()), None),
        (replace(ANSWER, reported_cost_usd=Decimal(0)), Decimal("0.00006")),
        (replace(ANSWER, reported_cost_usd=Decimal("0.002")), Decimal("0.002")),
    ],
)
def test_the_maximum_cost_is_reserved_and_the_real_cost_settled(
    answer: Completion, cost: Decimal | None
) -> None:
    setup = a_setup(answer)

    setup.ask()

    ((max_usd, timeout_seconds),) = setup.budget.reserved
    assert max_usd is not None
    assert max_usd > Decimal("0.003")
    assert timeout_seconds == 30
    assert setup.budget.settled == [cost]


@pytest.mark.parametrize(
    ("error", "settled"),
    [
        (errors.RateLimitedError("too fast"), [Decimal(0)]),
        (errors.ModelUnreachableError("no server"), [Decimal(0)]),
        (errors.ModelOverloadedError("broken in the middle"), [None]),
        # The request may have been sent; recovery counts the reservation as spent.
        (errors.ServiceUnavailableError("the ledger is unavailable"), []),
    ],
)
def test_failures_settle_their_possible_cost(
    error: errors.ChordwiseError, settled: list[Decimal | None]
) -> None:
    setup = a_setup(error)

    with pytest.raises(type(error)):
        setup.ask()

    assert setup.budget.settled == settled


@pytest.mark.parametrize(
    ("answer", "price", "most", "cost"),
    [
        (ANSWER, FreePrice(), 0, 0),
        (ANSWER, UNKNOWN, None, None),
        (replace(ANSWER, reported_cost_usd=Decimal(0)), UNKNOWN, None, 0),
        (replace(ANSWER, reported_cost_usd=Decimal("0.002")), FreePrice(), 0, Decimal("0.002")),
        (replace(ANSWER, reported_cost_usd=Decimal("0.002")), UNKNOWN, None, Decimal("0.002")),
    ],
)
def test_free_models_and_unknown_prices_are_reserved_and_settled(
    answer: Completion, price: Price, most: int | None, cost: Decimal | None
) -> None:
    setup = a_setup(answer, price=price)

    setup.ask()

    assert [amount for amount, _ in setup.budget.reserved] == [most]
    assert setup.budget.settled == [cost]


def test_no_request_is_sent_if_the_budget_is_exceeded() -> None:
    setup = a_setup(answers=[errors.BudgetExceededError("nothing left")])

    with pytest.raises(errors.BudgetExceededError):
        setup.ask()

    assert setup.model.requests == []
    assert setup.seconds == 0


def test_a_call_waits_for_reserved_money_to_be_released() -> None:
    setup = a_setup(ANSWER, answers=[errors.BudgetReservedError("reserved")] * 3)

    setup.ask()

    assert len(setup.model.requests) == 1
    assert 0 < setup.seconds < 1


def test_the_wait_for_money_is_limited() -> None:
    """A waiting call occupies a slot, so the work is postponed."""
    setup = a_setup(answers=[errors.BudgetReservedError("reserved")] * 1_000)

    with pytest.raises(errors.BudgetReservedError) as error:
        setup.ask()

    assert MAX_WAIT_SECONDS / 2 < setup.seconds <= MAX_WAIT_SECONDS
    assert error.value.is_throttling
    assert error.value.has_waited
    assert setup.model.requests == []
