"""The tiers of models, and how a request came to one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
