"""The tiers of models, and the routes of requests to them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Tier(StrEnum):
    """The capability of a model; the values of `model_calls.tier`, here in ascending order."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The route of a request to its model, for the ledger; `escalated` after a smaller tier.

    One request of a question `is_compared` with the cost of its tokens at the largest tier.
    """

    tier: Tier
    escalated: bool = False
    is_compared: bool = False
