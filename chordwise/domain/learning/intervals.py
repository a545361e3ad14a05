"""What a number that was measured on a sample says of all: intervals of 95 %."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

Z = 1.959963984540054
"""The quantile of the normal distribution that leaves 2.5 % above it."""
FEWEST = 10
"""How many items have to be there to be drawn again: fewer would seem surer than they are."""
_FEWEST_RESAMPLES, _MOST_RESAMPLES = 100, 400
_DRAWS = 1_000_000
"""How many items are drawn in all, about: many items need fewer repetitions."""

Item = TypeVar("Item")


def wilson(successes: int, total: int) -> tuple[float, float]:
    """Return the interval of a share; nothing is known of none.

    Wilson, “Probable inference, the law of succession, and statistical inference”, 1927.
    """
    if not total:
        return 0.0, 1.0
    share, square = successes / total, Z * Z / total
    center = (share + square / 2) / (1 + square)
    half = Z / (1 + square) * math.sqrt(share * (1 - share) / total + square / (4 * total))
    # At the ends the bound is exact, and the arithmetic is not.
    low = 0.0 if successes == 0 else max(0.0, center - half)
    return low, 1.0 if successes == total else min(1.0, center + half)


def bootstrap(
    items: Sequence[Item], measured: Callable[[Sequence[Item]], float], random: Random
) -> tuple[float, float] | tuple[None, None]:
    """Return the interval of a number of items that has no formula, by drawing them again.

    There is none of too few items.

    Efron, “Bootstrap methods: another look at the jackknife”, 1979; the percentiles.
    """
    if len(items) < FEWEST:
        return None, None
    resamples = min(_MOST_RESAMPLES, max(_FEWEST_RESAMPLES, _DRAWS // len(items)))
    drawn = sorted(measured(random.choices(items, k=len(items))) for _ in range(resamples))
    edge = round(resamples * 0.025)
    return drawn[edge], drawn[-1 - edge]
