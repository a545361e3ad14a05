"""`chordwise quote --sample`: questions asked for real, announced, paid, and within the limits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal

import pytest

from chordwise.domain.states import Lane
from chordwise.domain.tasks import AnalysisType
from chordwise.errors import ExitCode
from chordwise.pipeline.intake.run_options import RunOptions
from chordwise.pipeline.quoting import quote, sample
from tests.fakes.pipeline import (
    LONG,
    a_document,
    a_run,
)
from tests.fakes.quoting import GPT, SHORT, Desk, line_of
from tests.peers.answering_server import AnsweringServer, serving


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Iterator[AnsweringServer]:
    """Serve a model `house` whose price is known; as `slow` it may be asked once a minute."""
    with serving() as server:
        model = {"provider": "openai", "model": "peer", "base_url": server.base_url}
        priced = {"input_usd_per_million_tokens": 1, "output_usd_per_million_tokens": 5}
        slow = {**model, **priced, "requests_per_minute": 1}
        models = {"house": model | priced, "slow": slow}
        monkeypatch.setenv("CHORDWISE_MODELS", json.dumps(models))
        yield server


def test_a_sample_is_asked_and_paid(desk: Desk, house: AnsweringServer) -> None:
    """It is announced with its cost first, leaves rows in the ledger, and decides the output."""
    code, shown, said = desk.call("--model", "house", "--sample", "2", "--json")

    line = line_of(json.loads(shown))
    assert code == ExitCode.SUCCESS
    assert "Asking 2 questions for real now, which costs $" in said
    assert len(house.journal) == 2
    assert (line["basis"], line["observations"]) == ("sample", 2)
    paid = desk.pipeline.value("SELECT sum(cost_usd) FROM model_calls WHERE job_id IS NULL")
    assert paid == 2 * (100 * Decimal(1) + 50 * Decimal(5)) / 1_000_000


def test_a_sample_for_the_batch_lane_is_announced_as_online(desk: Desk) -> None:
    """Nobody waits a day for a quote, so it costs what it costs now."""
    quoter = desk.quoter
    announced = []
    for lane in Lane:
        options = RunOptions(types=(AnalysisType.SUMMARY,), model=GPT, lane=lane)
        gathered = quote.gather(quoter, [a_document(LONG)], options, 2)
        announced.append(sample.expected_cost(quote.priced(quoter, gathered), gathered))

    assert announced[0] == announced[1] is not None


def test_a_sample_is_paid_from_the_budget_of_the_day(
    desk: Desk, house: AnsweringServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The account of the day counts what the calls did cost, no more."""
    monkeypatch.setenv("CHORDWISE_BUDGET__USD_PER_DAY", "1")

    code, _, _ = desk.call("--model", "house", "--sample", "2")

    paid = desk.pipeline.value("SELECT sum(cost_usd) FROM model_calls")
    assert code == ExitCode.SUCCESS
    assert len(house.journal) == 2
    assert desk.pipeline.value("SELECT spent_usd FROM budgets WHERE cap_usd = 1") == paid


def test_a_day_without_money_has_none_for_a_sample(
    desk: Desk, house: AnsweringServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is asked, and the hint is not about a run."""
    monkeypatch.setenv("CHORDWISE_BUDGET__USD_PER_DAY", "0.001")

    code, _, said = desk.call("--model", "house", "--sample", "2")

    assert code == ExitCode.INCOMPLETE
    assert "The day's budget of $0.001 is used up" in said
    assert "Quote without --sample" in said
    assert house.journal == []


def test_a_sample_keeps_to_the_limits(
    desk: Desk, house: AnsweringServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question for which there is no permit in time is not asked."""
    monkeypatch.setenv("CHORDWISE_LIMITS__LONGEST_WAIT_SECONDS", "1")

    code, _, said = desk.call("--model", "slow", "--sample", "2")

    assert code == ExitCode.INCOMPLETE
    assert "peer" in said
    assert house.journal == []


def test_answers_of_a_sample_are_used_again(desk: Desk) -> None:
    """A run asks what the sample did not; a second sample is free, a fresh one is not."""
    quoter, asked = desk.quoter, desk.pipeline.model.requests
    whole = desk.estimate(LONG, SHORT).lines[0]
    gathered = quote.gather(quoter, map(a_document, (LONG, SHORT)), a_run(), 3)

    counts = []
    for fresh in (False, False, True):
        sample.ask_sample(quoter, gathered, fresh=fresh)
        counts.append(len(asked))
    desk.pipeline.work(desk.pipeline.submit(LONG, SHORT))

    assert counts == [3, 3, 6]
    assert len(asked) == 6 + whole.questions - 3 + round(whole.syntheses.typical)
