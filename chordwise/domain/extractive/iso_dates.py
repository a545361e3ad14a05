"""Reading dates as English documents write them."""

from __future__ import annotations

import re
from datetime import date

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH_FIRST = re.compile(r"([A-Za-z]{3})[a-z]*\.?\s+(\d{1,2})\D*+(?<=\s)(\d{4})")
_DAY_FIRST = re.compile(
    r"(\d{1,2})(?:st|nd|rd|th)?\s+(?:day\s+of\s+)?([A-Za-z]{3})\w*\.?,?\s+(\d{4})"
)
_SLASHED = re.compile(r"(\d{1,2})([/.])(\d{1,2})\2(\d{4})")
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}")
_LAST_MONTH = 12


def iso_date(text: str) -> str | None:
    """Return a complete date as `YYYY-MM-DD`; `None` where day, month or year is unclear.

    With slashes the month comes first unless it cannot be one, with dots the day.
    """
    if match := _ISO.search(text):
        return match.group()
    if match := _MONTH_FIRST.search(text):
        return _joined(match.group(3), _month(match.group(1)), match.group(2))
    if match := _DAY_FIRST.search(text):
        return _joined(match.group(3), _month(match.group(2)), match.group(1))
    if match := _SLASHED.search(text):
        first, mark, second, year = match.groups()
        is_day_first = mark == "." or int(first) > _LAST_MONTH
        month, day = (second, first) if is_day_first else (first, second)
        return _joined(year, int(month), day)
    return None


def _month(name: str) -> int:
    lowered = name.lower()
    return _MONTHS.index(lowered) + 1 if lowered in _MONTHS else 0


def _joined(year: str, month: int, day: str) -> str | None:
    try:
        return date(int(year), month, int(day)).isoformat()
    except ValueError:
        return None
