"""Tests of experiments: anytime-valid intervals, and assignment of documents by their text."""

from __future__ import annotations

import math
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from random import Random

import pytest

from chordwise.domain.learning import experiments
from chordwise.domain.learning.experiments import (
    CONTROL,
    Evidence,
    GuardrailOutcomes,
    Known,
    Outcome,
    VariantVerdict,
    assign,
    difference,
    exceeds,
    remaining_documents,
    verdict,
)
from chordwise.domain.learning.statistics import (
    MeanInterval,
    Moments,
    ShareSequence,
    amount_interval,
    moments,
    share_interval,
)

# ruff: noqa: S311 - statistics, not secrets

RISK = 0.05
DOCUMENTS = 300
EVALUATED_AT = (20, 40, 80, 120, 200, DOCUMENTS)
NOW = datetime(2026, 11, 24, tzinfo=UTC)
SEEDS = [500, pytest.param(1000, marks=pytest.mark.nightly)]


def at_most(rate: float, seeds: int) -> float:
    """Return the 99.9 % bound for the number of seeds with an event of this rate."""
    return rate * seeds + 3.1 * math.sqrt(rate * (1 - rate) * seeds)


def decided(seed: int, control: float, variant: float, *, is_paired: bool) -> bool:
    """Return whether an interval excludes a difference of zero, in any of several evaluations."""
    random = Random(seed)
    ones = [float(random.random() < control) for _ in range(DOCUMENTS)]
    others = [float(random.random() < variant) for _ in range(DOCUMENTS)]
    pairs = list(zip(ones, others, strict=True)) if is_paired else []
    samples = (
        Evidence(control=ones[:count], variant=others[:count], pairs=pairs[:count])
        for count in EVALUATED_AT
    )
    return any(
        difference(sample, Outcome.RIGHT, RISK, is_paired=is_paired).excludes_zero
        for sample in samples
    )


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("is_paired", [False, True])
@pytest.mark.parametrize("rate", [0.5, 0.8, 0.98])
def test_equal_variants_are_distinguished_no_more_often_than_the_risk(
    seeds: int, rate: float, *, is_paired: bool
) -> None:
    count = sum(decided(seed, rate, rate, is_paired=is_paired) for seed in range(seeds))

    assert count <= at_most(RISK, seeds)


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize(
    ("variant", "is_paired", "power"), [(0.95, False, 0.9), (0.9, True, 0.9), (0.85, True, 0.5)]
)
def test_a_large_difference_is_detected_within_three_hundred_documents(
    seeds: int, variant: float, power: float, *, is_paired: bool
) -> None:
    """The control is right on 70 %; paired documents need fewer."""
    count = sum(decided(seed, 0.7, variant, is_paired=is_paired) for seed in range(seeds))

    assert count >= power * seeds


@pytest.mark.parametrize("seeds", SEEDS)
def test_the_interval_of_amounts_contains_their_mean(seeds: int) -> None:
    missed = 0
    for seed in range(seeds):
        random, amounts = Random(seed), list[float]()
        for _ in range(DOCUMENTS):
            amounts.append(random.expovariate(2.0))
            interval = amount_interval(moments(amounts), RISK)
            if not interval.low <= 0.5 <= interval.high:
                missed += 1
                break

    assert missed <= at_most(RISK, seeds)
    assert interval.high - interval.low < 0.5


def of_shares(control: float, variant: float, count: int, *, is_paired: bool = False) -> Evidence:
    """Return outcomes with these exact rates, evenly distributed."""
    one, other = (
        [float(math.floor((place + 1) * rate) > math.floor(place * rate)) for place in range(count)]
        for rate in (control, variant)
    )
    pairs = list(zip(one, other, strict=True)) if is_paired else []
    return Evidence(control=one, variant=other, pairs=pairs)


def test_pairs_narrow_the_interval() -> None:
    apart = of_shares(0.7, 0.8, 200)
    variant = [1.0 if place % 10 == 0 else value for place, value in enumerate(apart.control)]
    alone = replace(apart, variant=variant)
    paired = replace(alone, pairs=list(zip(apart.control, variant, strict=True)))

    wide = difference(alone, Outcome.RIGHT, RISK, is_paired=False)
    narrow = difference(paired, Outcome.RIGHT, RISK, is_paired=True)

    assert narrow.high - narrow.low < wide.high - wide.low
    assert narrow.mean == pytest.approx(wide.mean)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [(Outcome.RIGHT, VariantVerdict.BETTER), (Outcome.COST, VariantVerdict.WORSE)],
)
def test_a_higher_share_is_better_and_a_higher_cost_is_worse(
    outcome: Outcome, expected: VariantVerdict
) -> None:
    interval = difference(of_shares(0.2, 0.9, 300), outcome, RISK, is_paired=False)

    assert interval.low > 0
    assert verdict(interval, outcome) is expected


def test_without_documents_there_is_no_result() -> None:
    empty = Evidence(control=[], variant=[], pairs=[])

    shares = difference(empty, Outcome.RIGHT, RISK, is_paired=True)
    amounts = difference(empty, Outcome.COST, RISK, is_paired=True)

    assert (shares.low, shares.high, shares.count) == (-1, 1, 0)
    assert (amounts.low, amounts.high) == (-math.inf, math.inf)
    assert remaining_documents(empty, Outcome.RIGHT, RISK, is_paired=True) is None


def test_the_estimated_number_of_further_documents_suffices() -> None:
    evidence = of_shares(0.7, 0.9, 40)
    more = remaining_documents(evidence, Outcome.RIGHT, RISK, is_paired=False)

    assert more
    enough, too_few = of_shares(0.7, 0.9, 40 + more), of_shares(0.7, 0.9, 40 + more // 2)
    assert difference(enough, Outcome.RIGHT, RISK, is_paired=False).excludes_zero
    assert not difference(too_few, Outcome.RIGHT, RISK, is_paired=False).excludes_zero
    assert (
        remaining_documents(of_shares(0.7, 0.7, 40), Outcome.RIGHT, RISK, is_paired=False) is None
    )


def guarded(evidence: Evidence, allowed: float = 1.0) -> GuardrailOutcomes:
    return GuardrailOutcomes(
        control=moments(evidence.control),
        variant=moments(evidence.variant),
        gains=moments([max(0, variant - allowed * control) for control, variant in evidence.pairs]),
        losses=moments([max(0, control - variant) for control, variant in evidence.pairs]),
    )


@pytest.mark.parametrize("is_paired", [False, True])
@pytest.mark.parametrize(("variant", "is_stopped"), [(0.0, True), (0.85, False), (1.0, False)])
def test_a_guardrail_stops_only_failing_variants(
    variant: float, *, is_stopped: bool, is_paired: bool
) -> None:
    """The tolerance is five points below the control, over sixty documents."""
    outcomes = guarded(of_shares(0.9, variant, 60, is_paired=is_paired))

    assert exceeds(outcomes, Outcome.VALID, 0.05, RISK, is_paired=is_paired) is is_stopped


def test_a_guardrail_detects_more_with_pairs_than_with_means() -> None:
    """The variant fails on a few documents that the control answers, and on no others."""
    alone = of_shares(0.9, 0.9, 400)
    variant = [value * (place % 20 not in (1, 3, 5)) for place, value in enumerate(alone.control)]
    paired = replace(alone, variant=variant, pairs=list(zip(alone.control, variant, strict=True)))
    alone = replace(paired, pairs=[])

    assert exceeds(guarded(paired), Outcome.VALID, 0.05, RISK, is_paired=True)
    assert not exceeds(guarded(alone), Outcome.VALID, 0.05, RISK, is_paired=True)


def test_a_guardrail_of_costs_is_relative_to_the_control() -> None:
    random = Random(1)
    control = [random.uniform(0.8, 1.2) for _ in range(100)]
    outcomes = guarded(Evidence(control=control, variant=[2 * cost for cost in control], pairs=[]))

    assert exceeds(outcomes, Outcome.COST, 0.5, RISK, is_paired=False)
    assert not exceeds(outcomes, Outcome.COST, 2.0, RISK, is_paired=False)


@cache
def interval_of(count: int, halves: int) -> MeanInterval:
    """Return the interval of a share, which many of the simulated sums have in common."""
    return share_interval(Moments(count=count, mean=halves / 2 / count), RISK)


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("rate", [0.5, 0.95, 0.995])
def test_the_interval_of_a_sum_contains_the_share(seeds: int, rate: float) -> None:
    missed = 0
    for seed in range(seeds):
        random, halves = Random(seed), 0
        for count in range(1, DOCUMENTS + 1):
            halves += (random.random() < rate) + (random.random() < rate)
            interval = interval_of(count, halves)
            if not interval.low <= rate <= interval.high:
                missed += 1
                break

    assert missed <= at_most(RISK, seeds)
    assert interval.high - interval.low < 0.25


def test_outcomes_are_in_the_order_in_which_they_became_known() -> None:
    """A pair becomes known with the later of its two outcomes."""
    ids = [uuid.UUID(int=number) for number in range(3)]

    def observed(*known: tuple[int, float, int]) -> dict[uuid.UUID, Known]:
        return {ids[of]: (value, NOW + timedelta(hours=hours)) for of, value, hours in known}

    evidence = experiments.evidence(
        observed((0, 0.1, 3), (1, 0.2, 1), (2, 0.3, 2)), observed((0, 0.4, 1), (1, 0.5, 4))
    )

    assert evidence.control == [0.2, 0.3, 0.1]
    assert evidence.variant == [0.4, 0.5]
    assert evidence.pairs == [(0.1, 0.4), (0.2, 0.5)]


def shares_of(give: Callable[[str], str]) -> dict[str, float]:
    counts = Counter(give(f"document {number}") for number in range(4000))
    return {name: count / 4000 for name, count in counts.items()}


def test_documents_are_assigned_by_their_text() -> None:
    shares = shares_of(lambda text: assign("one", text, ["terse", "long"], 0.25, 0.0).variant)
    paired = shares_of(lambda text: str(assign("one", text, ["terse"], 0.5, 0.2).is_paired))
    again = shares_of(
        lambda text: "".join(assign(name, text, ["terse"], 0.5, 0).variant for name in "ab")
    )

    assert shares == pytest.approx({CONTROL: 0.5, "terse": 0.25, "long": 0.25}, abs=0.03)
    assert paired["True"] == pytest.approx(0.2, abs=0.03)
    assert min(again.values()) == pytest.approx(0.25, abs=0.03)


def test_the_interval_shrinks_with_more_outcomes() -> None:
    sequence, widths = ShareSequence(RISK), []
    for number in range(1000):
        sequence.add(float(number % 4 != 0))
        if number in {9, 99, 999}:
            interval = sequence.interval()
            widths.append(interval.high - interval.low)
            assert interval.low <= 0.75 <= interval.high

    assert all(later < earlier for earlier, later in pairwise(widths))
    assert widths[-1] < 0.15
