"""Tiers: which one suits a question, which ones follow, and which weak answer is the best."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chordwise.domain.answers import Answer
from chordwise.domain.routing import Tier, best, steps, tier_for

SMALL, MEDIUM, LARGE = Tier
ANSWER = Answer(
    output={},
    confidence=0.5,
    quality=0.5,
    repaired=False,
    provider="scripted",
    model="small",
    prompt_version="summary.analyze@1",
)


@pytest.mark.parametrize(
    ("score", "tier"), [(0, SMALL), (0.29, SMALL), (0.3, MEDIUM), (0.44, MEDIUM), (0.45, LARGE)]
)
def test_thresholds_belong_to_the_tier_above_them(score: float, tier: Tier) -> None:
    """From 0.3 on medium, from 0.45 on large."""
    assert tier_for(score, 0.3, 0.45) is tier


@pytest.mark.parametrize(
    ("wanted", "available", "asked"),
    [
        (SMALL, {LARGE, SMALL, MEDIUM}, (SMALL, MEDIUM, LARGE)),
        (MEDIUM, {LARGE, SMALL, MEDIUM}, (MEDIUM, LARGE)),
        (SMALL, {LARGE}, (LARGE,)),
        (MEDIUM, {SMALL, LARGE}, (LARGE,)),
        (LARGE, {SMALL, MEDIUM}, (MEDIUM,)),
        (LARGE, {SMALL}, (SMALL,)),
    ],
)
def test_a_missing_tier_is_skipped_upward_else_downward(
    wanted: Tier, available: set[Tier], asked: tuple[Tier, ...]
) -> None:
    """The next one up takes its place, and without one the largest below."""
    assert steps(wanted, available) == asked


def test_quality_goes_before_confidence() -> None:
    """A grounded answer beats a sure one; of equals the larger model's counts."""
    sure = replace(ANSWER, confidence=0.9, quality=0.4)
    grounded = replace(ANSWER, confidence=0.2, quality=0.6)
    larger = replace(grounded, model="large")

    assert best([sure, grounded]) is grounded
    assert best([grounded, sure]) is grounded
    assert best([grounded, larger]) is larger
