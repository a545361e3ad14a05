"""Sums of money as the accounts keep them: US dollars with eight decimals."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

_SMALLEST_USD = Decimal("0.00000001")


def rounded_up(usd: Decimal) -> Decimal:
    """Return a cost, never less than it is."""
    return usd.quantize(_SMALLEST_USD, rounding=ROUND_CEILING)


def rounded_down(usd: Decimal) -> Decimal:
    """Return a cap, never more than it is."""
    return usd.quantize(_SMALLEST_USD, rounding=ROUND_FLOOR)
