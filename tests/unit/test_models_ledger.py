"""Tests of the ledger's entries: the reserved maximum of a call, its charge, and the waits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal

import pytest

from chordwise import errors
from chordwise.llm.middleware.metered import Metered
from chordwise.llm.model import Completion, FinishReason, Usage
from chordwise.llm.prices import FreePrice, ListPrice, OwnPrice, Price
from chordwise.pipeline.models.ledger import MAX_WAIT_SECONDS, Ledger
from chordwise.settings import Settings
from chordwise.storage.chunk_work import CallEntry
from tests.fakes.completion_requests import a_request
from tests.fakes.pipeline import with_settings
from tests.fakes.scripted_model import Line, ScriptedModel

PRICE = OwnPrice(input_usd_per_million_tokens=Decimal(2), output_usd_per_million_tokens=Decimal(10))
UNKNOWN = ListPrice(provider="openai", model="our-own")
SETTINGS = with_settings(Settings(), "budget", allow_unknown_prices=True)
ANSWER = Completion(
    text="{}",
    finish_reason=FinishReason.STOP,
    usage=Usage(input_tokens=1_000, output_tokens=100),
    provider="scripted",
    model="script-1",
)


@dataclass(slots=True, kw_only=True)
class Office:
    """A model whose calls are entered in a ledger with scripted refusals."""

    refusals: list[errors.ChordwiseError] = field(default_factory=list)
    entries: list[CallEntry] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def enter(self, entry: CallEntry, within: timedelta) -> errors.ChordwiseError | None:
        assert within
        self.entries.append(entry)
        return self.refusals.pop(0) if self.refusals and entry.begun else None

    def ask(
        self, script: Line, price: Price = PRICE, settings: Settings = SETTINGS
    ) -> ScriptedModel:
        model = ScriptedModel([script])
        ledger = Ledger(
            enter=self.enter, settings=settings, is_limited=True, sleep=self.waits.append
        )
        Metered(model, ledger, price, is_billed=True).complete(a_request(timeout_seconds=30))
        ledger.flush()
        return model

    @property
    def charges(self) -> list[object]:
        return [call["charged_usd"] for entry in self.entries for call in entry.ended]


@pytest.mark.parametrize(
    ("answer", "price", "most", "cost"),
    [
        (ANSWER, PRICE, True, "0.003"),
        (replace(ANSWER, usage=Usage()), PRICE, True, None),
        (replace(ANSWER, reported_cost_usd=Decimal(0)), PRICE, True, "0.00006"),
        (replace(ANSWER, reported_cost_usd=Decimal("0.002")), PRICE, True, "0.002"),
        (ANSWER, FreePrice(), False, "0"),
        (ANSWER, UNKNOWN, False, None),
        (replace(ANSWER, reported_cost_usd=Decimal(0)), UNKNOWN, False, "0"),
        (replace(ANSWER, reported_cost_usd=Decimal("0.002")), FreePrice(), False, "0.002"),
        (replace(ANSWER, reported_cost_usd=Decimal("0.002")), UNKNOWN, False, "0.002"),
    ],
)
def test_the_maximum_cost_is_reserved_and_the_real_cost_charged(
    answer: Completion, price: Price, *, most: bool, cost: str | None
) -> None:
    office = Office()

    office.ask(answer, price)

    reservation, lasts = office.entries[0].reservation, office.entries[0].lasts
    assert reservation is not None
    assert reservation.max_usd == price.max_usd(a_request())
    assert (reservation.amount_usd > Decimal("0.003")) is most
    assert lasts == timedelta(seconds=30 + SETTINGS.pipeline.lease_seconds)
    assert office.charges == [None if cost is None else Decimal(cost)]


@pytest.mark.parametrize(
    ("error", "charges"),
    [
        (errors.RateLimitedError("too fast"), [Decimal(0)]),
        (errors.ModelUnreachableError("no server"), [Decimal(0)]),
        (errors.ModelOverloadedError("broken in the middle"), [None]),
    ],
)
def test_failures_are_charged_their_possible_cost(
    error: errors.ChordwiseError, charges: list[Decimal | None]
) -> None:
    office = Office()

    with pytest.raises(type(error)):
        office.ask(error)

    assert office.charges == charges


def test_no_request_is_sent_without_a_price_or_money() -> None:
    unpriced = Office()
    office = Office(refusals=[errors.BudgetExceededError("nothing left")])

    with pytest.raises(errors.ConfigurationError, match="price of the model is unknown"):
        unpriced.ask(ANSWER, UNKNOWN, Settings())
    with pytest.raises(errors.BudgetExceededError):
        office.ask(ANSWER)

    assert unpriced.entries == []
    assert (len(office.entries), office.waits) == (1, [])


def test_a_call_waits_for_reserved_money_to_be_released() -> None:
    """The wait is limited: a waiting call occupies a slot, so the work is postponed."""
    short = Office(refusals=[errors.BudgetReservedError("reserved")] * 3)
    office = Office(refusals=[errors.BudgetReservedError("reserved")] * 1_000)

    model = short.ask(ANSWER)
    with pytest.raises(errors.BudgetReservedError) as error:
        office.ask(ANSWER)

    assert len(model.requests) == 1
    assert 0 < sum(short.waits) < 1
    assert MAX_WAIT_SECONDS / 2 < sum(office.waits) <= MAX_WAIT_SECONDS
    assert (error.value.is_throttling, error.value.has_waited) == (True, True)
    assert all(entry.begun for entry in office.entries)
