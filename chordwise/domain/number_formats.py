"""Formatting of numbers for people: counted things, money, durations, shares."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

from chordwise.domain.money import dollars
from chordwise.errors import UsageError

_THOUSAND = 1_000
_MILLION = 1_000_000
_MINUTE = 60
_HOUR = 3_600


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 document, 2 documents, 3 analyses."""
    if number == 1:
        return f"1 {noun}"
    plural = {"analysis": "analyses", "has": "have"}.get(noun, f"{noun}s")
    return f"{number:,} {plural}"


def approximate(number: int) -> str:
    """Return a large number with three digits: 980, 12.3k, 4.56M."""
    if number < _THOUSAND:
        return str(number)
    if round(number, -3) < _MILLION:
        return f"{number / _THOUSAND:.3g}k"
    return f"{number / _MILLION:.3g}M"


def money(cost_usd: Decimal, unpriced: int, calls: int) -> str:
    """Return the cost of calls, with the number of calls of unknown cost."""
    if unpriced and (not cost_usd or unpriced >= calls):
        return "cost unknown"
    known = dollars(cost_usd)
    return f"{known} and {counted(unpriced, 'call')} of unknown cost" if unpriced else known


def span(length: timedelta) -> str:
    """Return a duration, rounded to seconds, minutes or tenths of an hour."""
    seconds = length.total_seconds()
    if seconds < _MINUTE:
        return f"{max(1, round(seconds))} s"
    if seconds < _HOUR:
        return f"{round(seconds / _MINUTE)} min"
    return f"{seconds / _HOUR:.1f} h"


def score(value: float | None) -> str:
    """Return a number from 0 to 1 with two digits, never rounded up to 1; “–” for `None`."""
    if value is None:
        return "–"
    return f"{value if value >= 1 else min(value, 0.99):.2f}"


def share(value: float | None) -> str:
    """Return a share as a percentage, “–” for `None`; less than all is never shown as 100 %."""
    if value is None:
        return "–"
    percent = value * 100
    return f"{percent:.0f} %" if percent in (0, 100) else f"{min(percent, 99.9):.1f} %"


def interval(low: float | None, high: float | None, shown: Callable[[float], str]) -> str:
    """Return the bounds of an interval; without bounds it is empty."""
    return "" if low is None or high is None else f"{shown(low)} – {shown(high)}"


def parse_share(option: str, text: str, up_to: float | None = None) -> float:
    """Parse a share such as 2%, 2 % or 0.02; below 100 %, or at most `up_to`.

    Raises:
        UsageError: It is not a share in that range.
    """
    number = text.strip().removesuffix("%")
    try:
        share = float(number) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not (0 < share < 1 if up_to is None else 0 < share <= up_to):
        raise UsageError(f"{option} {text} is not a valid share.", "Examples: 2%, 0.02.")
    return share
