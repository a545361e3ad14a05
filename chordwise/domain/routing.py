"""Choosing a model by complexity and cost: which tier is asked first, and what is good enough."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from chordwise.domain.answers import Answer


class Tier(StrEnum):
    """How much a model can do; the values stand in `model_calls.tier`, in ascending order here."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How a request came to its model, for the ledger.

    `escalated` says that a smaller tier was asked before. Exactly one answered request of a
    question `is_compared` with what the largest tier would have charged for it.
    """

    tier: Tier
    escalated: bool = False
    is_compared: bool = False


def tier_for(score: float, medium_from: float, large_from: float) -> Tier:
    """Return the tier that a question of this complexity (0 to 1) asks for."""
    if score >= large_from:
        return Tier.LARGE
    return Tier.MEDIUM if score >= medium_from else Tier.SMALL


def steps(wanted: Tier, available: Collection[Tier]) -> tuple[Tier, ...]:
    """Return the tiers to ask, in order: the wanted one or the next one up, then those above it.

    Where only smaller ones are there, the largest of them is asked.
    """
    ascending = [tier for tier in Tier if tier in available]
    ranks = list(Tier)
    upward = [tier for tier in ascending if ranks.index(tier) >= ranks.index(wanted)]
    return tuple(upward or ascending[-1:])


def best(answers: Sequence[Answer]) -> Answer:
    """Return the answer of the highest quality, then confidence; of equals the last, a larger one.

    There has to be one at least.
    """
    return max(reversed(answers), key=lambda answer: (answer.quality, answer.confidence))
