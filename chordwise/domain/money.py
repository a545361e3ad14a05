"""Amounts in US dollars: stored with eight decimals, displayed with fewer."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

_SMALLEST_USD = Decimal("0.00000001")


def rounded_up(usd: Decimal) -> Decimal:
    """Return a cost rounded up to eight decimals."""
    return usd.quantize(_SMALLEST_USD, rounding=ROUND_CEILING)


def rounded_down(usd: Decimal) -> Decimal:
    """Return a cap rounded down to eight decimals."""
    return usd.quantize(_SMALLEST_USD, rounding=ROUND_FLOOR)


def dollars(usd: Decimal | None) -> str:
    """Return an amount for display: two decimals, below one dollar four; `None` is unknown."""
    if usd is None:
        return "unknown"
    sign, size = "-" if usd < 0 else "", abs(usd)
    if not size or size >= 1:
        return f"{sign}${size:,.2f}"
    return f"{sign}${size:.4f}" if size >= Decimal("0.0001") else "under $0.0001"


def exact(usd: Decimal) -> str:
    """Return an amount with all of its digits, at least two after the point."""
    whole, _, cents = f"{usd.normalize():f}".partition(".")
    return f"{whole}.{cents:0<2}"
