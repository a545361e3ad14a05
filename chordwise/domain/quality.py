"""One number for how far an answer can be checked: its quality, 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence

from chordwise.domain import grounding
from chordwise.domain.json_values import JsonObject

REPAIR_FACTOR = 0.8
_HIGHEST_WITH_LOSS = 0.999


def quality(answer: JsonObject, *, repaired: bool) -> float:
    """Return the share of quotes that stand in the source, lowered if the answer needed repair."""
    factor = REPAIR_FACTOR if repaired else 1.0
    return round(grounding.grounded_share(answer) * factor, 3)


def lowered(value: float, share: float) -> float:
    """Return a quality times the share of rows that are kept; below 1 wherever some are missing."""
    return value if share >= 1 else min(round(value * share, 3), _HIGHEST_WITH_LOSS)


def coverage(total: int, spans: Sequence[tuple[int, int]]) -> float:
    """Return the share of `total` characters inside the spans, which do not overlap."""
    return sum(end - start for start, end in spans) / total if total else 0.0
