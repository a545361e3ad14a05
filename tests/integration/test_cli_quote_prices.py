"""What `chordwise quote` says of money: by lane and tier, where a price is unknown, of a budget."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from chordwise.cli.quote import amount, announce, sentences
from chordwise.cli.rendering.screen import Screen
from chordwise.domain import json_values
from chordwise.domain.states import Lane
from chordwise.domain.tasks import AnalysisType
from chordwise.pipeline.intake.run_options import RunOptions
from tests.fakes.pipeline import (
    a_run,
)
from tests.fakes.quoting import GPT, Desk, line_of, quote_of, typical


def test_every_lane_of_the_provider_has_its_price(desk: Desk) -> None:
    """Without a key: the prompts are rendered, counted and priced; slow lanes cost half."""
    quoted = desk.quote("--model", GPT)

    line = line_of(quoted)
    costs = json_values.as_object(line["costs"])
    assert (quoted["documents"], quoted["jobs"], quoted["reused"]) == (2, 2, 0)
    assert set(costs) == {"online", "flex", "batch"}
    assert typical(costs["online"]) > 0
    assert typical(costs["flex"]) == typical(costs["batch"])
    assert typical(costs["flex"]) == pytest.approx(typical(costs["online"]) / 2)
    assert quoted["total"] == costs["online"]
    assert line["basis"] == "assumed"


@pytest.mark.parametrize("lane", ["batch", "online"])
def test_a_quote_for_a_lane_is_what_a_run_in_it_would_cost(desk: Desk, lane: str) -> None:
    """The total is that lane's, and people see no other; programs see all of them."""
    quoted = desk.quote("--model", GPT, "--lane", lane)
    _, shown, _ = desk.call("--model", GPT, "--lane", lane)

    costs = json_values.as_object(line_of(quoted)["costs"])
    other = "online" if lane == "batch" else "batch"
    assert line_of(quoted)["lane"] == lane
    assert quoted["total"] == costs[lane] != costs[other]
    assert f"Total, {lane}: $" in shown
    assert f"Total, {other}" not in shown
    assert ("batch.spill_over_hours" in shown) is (lane == "batch")


def test_a_model_without_batches_is_quoted_online(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a run of the batch lane, too, and the quote says so; `batch = true` changes it."""
    house = {"provider": "openai", "model": "x", "base_url": "https://models.example/v1"}
    prices = {"input_usd_per_million_tokens": 1, "output_usd_per_million_tokens": 5}
    monkeypatch.setenv("CHORDWISE_MODELS", json.dumps({"house": house | prices}))
    _, shown, _ = desk.call("--model", "house", "--lane", "batch")
    online = desk.quote("--model", "house", "--lane", "batch")

    monkeypatch.setenv("CHORDWISE_MODELS", json.dumps({"house": house | prices | {"batch": True}}))
    batch = desk.quote("--model", "house", "--lane", "batch")

    assert "openai/x has no Batch API: it is asked online." in " ".join(shown.split())
    assert (line_of(online)["lane"], line_of(batch)["lane"]) == ("online", "batch")
    assert typical(batch["total"]) == pytest.approx(typical(online["total"]) / 2)


def test_flex_has_no_part_in_a_quote_for_batches(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that is asked as flex online goes into batches at their price."""
    flex = {"provider": "openai", "model": "gpt-6.1-terra", "service_tier": "flex"}
    monkeypatch.setenv("CHORDWISE_MODELS", json.dumps({"slow": flex}))

    lanes = [
        line_of(desk.quote("--model", "slow", "--lane", lane))["lane"]
        for lane in ("online", "batch")
    ]

    assert lanes == ["flex", "batch"]


@pytest.mark.parametrize("base_url", ["https://models.example/v1", "http://localhost:4000/v1"])
def test_an_unknown_price_is_not_zero(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, base_url: str
) -> None:
    """The total is unknown then, too, on this machine as elsewhere; the quote says what to set."""
    house = {"provider": "openai", "model": "x", "base_url": base_url}
    monkeypatch.setenv("CHORDWISE_MODELS", json.dumps({"house": house}))

    quoted = desk.quote("--model", "house")

    assert quoted["total"] is None
    assert line_of(quoted)["costs"] == {"online": None}
    shown = " ".join(desk.call("--model", "house")[1].split())
    assert "Total, online: unknown" in shown
    assert "The price of openai/x is unknown. Set input_usd_per_million_tokens" in shown


def test_a_model_that_the_settings_call_free_is_quoted_so(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server of one's own, for example."""
    house = {"provider": "openai", "model": "x", "base_url": "http://localhost:11434/v1"}
    monkeypatch.setenv("CHORDWISE_MODELS", json.dumps({"house": house | {"price": "free"}}))

    assert desk.quote("--model", "house")["total"] == {"low": 0, "typical": 0, "high": 0}


def test_an_unknown_price_of_batches_is_not_zero(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for a lane that is asked for by name."""
    house = {"provider": "openai", "model": "x", "base_url": "https://models.example/v1"}
    monkeypatch.setenv("CHORDWISE_MODELS", json.dumps({"house": house | {"batch": True}}))

    quoted = desk.quote("--model", "house", "--lane", "batch")

    assert quoted["total"] is None
    assert line_of(quoted)["costs"] == {"online": None, "batch": None}
    assert "Total, batch: unknown" in desk.call("--model", "house", "--lane", "batch")[1]


def test_tiers_are_quoted_by_the_model_that_each_question_goes_to(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With thresholds that send everything to the small tier, only that one has a line."""
    tiers = {"small": "openai/gpt-5.4-mini", "large": GPT}
    monkeypatch.setenv("CHORDWISE_TIERS", json.dumps(tiers))
    monkeypatch.setenv("CHORDWISE_ROUTING__MEDIUM_FROM", "1")
    monkeypatch.setenv("CHORDWISE_ROUTING__LARGE_FROM", "1")

    quoted = desk.quote("--model", "auto")

    assert line_of(quoted)["model"] == tiers["small"]


def test_the_built_in_model_costs_nothing(desk: Desk) -> None:
    """And has one lane."""
    quoted = desk.quote()

    assert quoted["total"] == {"low": 0, "typical": 0, "high": 0}
    assert line_of(quoted)["costs"] == {"online": quoted["total"]}


@pytest.mark.parametrize(
    ("share", "warning"),
    [("0.01", "is likely not to last"), ("1.05", "may not last"), ("100", "")],
)
def test_a_budget_is_compared_with_what_is_expected(desk: Desk, share: str, warning: str) -> None:
    """Below what is expected it is warned of, above the upper end nothing is said."""
    total = quote_of(desk)
    assert total.total is not None

    said = list(sentences(total, total.total.typical * Decimal(share)))

    assert said[0].startswith("Expected cost: $")
    assert [sentence for sentence in said[1:] if warning in sentence] == said[1:]
    assert len(said) == (2 if warning else 1)


def test_the_numbers_are_said_before_a_run_with_a_budget(desk: Desk) -> None:
    """They are those of `quote`, on standard error; standard input is not read for them."""
    context = desk.pipeline.context
    options = a_run()
    screen = Screen()
    desk.capsys.readouterr()

    announce(context, [str(desk.folder)], options, Decimal(5), screen)
    announce(context, ["-"], options, Decimal(5), screen)

    said = desk.capsys.readouterr().err
    assert "Expected cost: $0.00, of a budget of $5.00." in said
    assert "standard input cannot be quoted" in said


@pytest.mark.parametrize("lane", list(Lane))
def test_the_numbers_before_a_run_are_those_of_its_lane(desk: Desk, lane: Lane) -> None:
    """Half of online, for a run that waits for batches."""
    options = RunOptions(types=(AnalysisType.SUMMARY,), model=GPT, lane=lane)
    texts = [path.read_text("utf-8") for path in desk.folder.iterdir()]
    quoted = desk.estimate(*texts, options=options)
    desk.capsys.readouterr()

    announce(desk.pipeline.context, [str(desk.folder)], options, Decimal(5), Screen())

    assert quoted.total == quoted.totals[lane.value]
    assert quoted.totals["batch"] != quoted.totals["online"]
    assert f"Expected cost: {amount(quoted.total)}, of" in desk.capsys.readouterr().err
