"""Tests of the ledger: one row for every request."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from itertools import count
from uuid import UUID

import pytest

from chordwise.errors import RateLimitedError, RefusedError, ServiceUnavailableError
from chordwise.llm.middleware.metered import CallOutcome, CallStart, Metered, NullLedger
from chordwise.llm.model import Completion, CompletionRequest, FinishReason, Usage
from chordwise.llm.prices import CostBasis, OwnPrice
from tests.fakes.completion_requests import a_request
from tests.fakes.list_ledger import ListLedger
from tests.fakes.scripted_model import ScriptedModel

PRICE = OwnPrice(input_usd_per_million_tokens=Decimal(2), output_usd_per_million_tokens=Decimal(10))


class UnreachableLedger(NullLedger):
    """A ledger whose database is down."""

    def begin(self, start: CallStart) -> UUID:
        raise ServiceUnavailableError(f"no database for {start.model}")


def ticking() -> Callable[[], float]:
    times = count(0.0, 0.25)
    return lambda: next(times)


def completion(finish_reason: FinishReason = FinishReason.STOP) -> Completion:
    return Completion(
        text='{"ü": 1}',
        finish_reason=finish_reason,
        usage=Usage(input_tokens=1_000, output_tokens=100, cached_input_tokens=10),
        provider="scripted",
        model="script-1",
        response_id="r1",
    )


def test_a_call_is_recorded_with_its_cost() -> None:
    ledger, model = ListLedger(), ScriptedModel([completion()])

    Metered(model, ledger, PRICE, ticking()).complete(a_request())

    assert [request.call_id for request in model.requests] == [
        str(call_id) for call_id in ledger.rows
    ]
    start, outcome = ledger.only_row
    assert (start.provider, start.model, start.attempt) == ("scripted", "script-1", 1)
    assert (start.stage, start.analysis_type) == ("analyze", "sentiment")
    assert outcome == CallOutcome(
        latency_ms=250,
        input_tokens=1_000,
        output_tokens=100,
        cached_input_tokens=10,
        cost_usd=Decimal("0.003"),
        cost_basis=CostBasis.SETTINGS,
        response_length=8,
        finish_reason=FinishReason.STOP,
        response_id="r1",
    )


def test_the_row_is_written_before_the_request() -> None:
    """A process that is killed while it waits leaves a visible row."""
    ledger = ListLedger()
    seen: list[CallOutcome | None] = []

    def look(_: CompletionRequest) -> str:
        seen.append(ledger.only_row[1])
        return "{}"

    Metered(ScriptedModel([look]), ledger, PRICE).complete(a_request())

    assert seen == [None]
    assert ledger.only_row[1] is not None


def test_a_failure_is_recorded_with_its_code() -> None:
    ledger = ListLedger()
    model = Metered(ScriptedModel([RefusedError("declined")]), ledger, PRICE, ticking())

    with pytest.raises(RefusedError):
        model.complete(a_request())

    assert ledger.only_row[1] == CallOutcome(
        latency_ms=250, refused=True, error_code="refused", error_message="declined"
    )


def test_a_refusal_in_an_answer_is_recorded() -> None:
    """A model's own refusal is a completion, and counts as refused with its cost."""
    ledger = ListLedger()
    model = Metered(ScriptedModel([completion(FinishReason.REFUSAL)]), ledger, PRICE)

    model.complete(a_request())

    outcome = ledger.only_row[1]
    assert outcome is not None
    assert outcome.refused
    assert outcome.cost_usd == Decimal("0.003")


def test_no_request_is_sent_if_its_row_cannot_be_written() -> None:
    model = ScriptedModel(["{}"])

    with pytest.raises(ServiceUnavailableError):
        Metered(model, UnreachableLedger(), PRICE).complete(a_request())
    assert model.requests == []

    assert Metered(model, NullLedger(), PRICE).complete(a_request()).text == "{}"


def test_a_request_that_is_not_permitted_leaves_no_row() -> None:
    """The row is written before the wait for a slot and removed again."""
    ledger, model = ListLedger(), ScriptedModel(["{}"])

    def wait() -> None:
        assert ledger.rows
        raise RateLimitedError("not now")

    with pytest.raises(RateLimitedError):
        Metered(model, ledger, PRICE, wait=wait).complete(a_request())

    assert not ledger.rows
    assert not model.requests
