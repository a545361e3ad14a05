"""Dates, months and times of day in texts, in the languages of `values.toml`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import date, time
from enum import StrEnum

from chordwise.domain.quantities import ORDINALS, VALUE_WORDS, pattern_of


class DateOrder(StrEnum):
    """The order in a date such as 3/1/03: the month or the day first."""

    MONTH_FIRST = "mdy"
    DAY_FIRST = "dmy"


_MONTHS_OF_YEAR = 12
_DIGIT = re.compile(r"\d")
_MONTH_OF = {name: int(number) for number, names in VALUE_WORDS["months"].items() for name in names}
_NAME = r"(?P<month>[^\W\d]{3,}+)"
_YEAR = r"'?(?P<year>\d{4}|\d{2})(?!\d)"
_DAY_IN_WORDS = rf"(?:(?:twenty|thirty)[ -])?(?:{pattern_of(ORDINALS)})(?=\s+(?:day\s+)?of\b)"
_DAY = (
    rf"(?:(?<!\d)(?P<day>\d{{1,2}})(?:s ?t|n ?d|r ?d|t ?h|er|\.|º)?\)?"
    rf"|\b(?P<day_in_words>{_DAY_IN_WORDS}))"
)
_MONTH_AND_DAY = rf"(?i:\b{_NAME}\.?\s++(?P<day>\d{{1,2}})(?!\d)(?:st|nd|rd|th)?)"
_DAY_AND_MONTH = rf"(?i:{_DAY}[\s/-]*+(?:day\s++)?(?:of\s++|de\s++)?{_NAME})"
_DATES = (
    re.compile(
        r"(?<!\d)(?P<year>\d{4})(?P<mark>[-/.])(?P<month>\d{1,2})(?P=mark)(?P<day>\d{1,2})(?!\d)"
    ),
    re.compile(
        r"(?P<year>\d{4})\s?[年년]\s?(?P<month>\d{1,2})\s?[月월]\s?(?P<day>\d{1,2})\s?[日일]"
    ),
    re.compile(rf"{_MONTH_AND_DAY}(?:\s*+,|\s(?=\s*\d{{4}}))\s*+{_YEAR}"),
    re.compile(rf"{_DAY_AND_MONTH}\.?(?:\s*+,)?(?:\s++(?i:de|of)(?=\s+\d{{4}}))?[\s/-]*+{_YEAR}"),
    re.compile(rf"(?<!\d)(?P<first>\d{{1,2}})(?P<mark>[/.-])(?P<second>\d{{1,2}})(?P=mark){_YEAR}"),
)
_MONTHS = (
    re.compile(r"(?<!\d)(?P<year>\d{4})[-/](?P<month>\d{2})(?![-/.]?\d)"),
    re.compile(r"(?<!\d)(?P<month>\d{2})[/.](?P<year>\d{4})(?![-/.]?\d)"),
    re.compile(rf"(?<![^\W\d]){_NAME}\.?,?(?i: de| of)? (?P<year>\d{{4}})\b"),
)
_WRITTEN = (
    *_DATES,
    _MONTHS[-1],
    re.compile(_MONTH_AND_DAY),
    re.compile(rf"{_DAY_AND_MONTH}\b"),
)
_SHORT = _DATES[-1]
_OF_DATES = {kind: pattern_of(names) for kind, names in VALUE_WORDS["words_of_dates"].items()}
_RELATIVE = re.compile(
    rf"(?<!\bon or )\b(?:{_OF_DATES['relative']})\b"
    rf"|\b(?:{_OF_DATES['periods']})\b(?!\s+(?:{_OF_DATES['ended']})\b)",
    re.IGNORECASE,
)


def readings(text: str, order: DateOrder | None = None) -> Iterator[date | None]:
    """Yield the dates of a text; `None` for one that is ambiguous or does not exist.

    With `order` none is ambiguous. Two-digit years, which are read only with `order`, are in this
    century up to 68, the others in the last, as in POSIX.
    """
    for match in _matches(text, _DATES):
        if order or len(match["year"]) > 2:  # noqa: PLR2004
            dates = _dates_of(match, order)
            yield dates[0] if dates and (order or len({*dates}) == 1) else None


def is_relative(text: str) -> bool:
    """Return whether a text names another day than that of its date: two years from 1 May 2024."""
    return _RELATIVE.search(text) is not None


def order_in(texts: Iterable[str]) -> DateOrder | None:
    """Return the order that the dates with a day above 12 have; `None` if they differ, or none."""
    matches = [match for text in texts for match in _SHORT.finditer(text) if match["mark"] != "."]
    orders = {DateOrder.DAY_FIRST for match in matches if int(match["first"]) > _MONTHS_OF_YEAR}
    orders |= {DateOrder.MONTH_FIRST for match in matches if int(match["second"]) > _MONTHS_OF_YEAR}
    return orders.pop() if len(orders) == 1 else None


def dates_in(text: str) -> set[date]:
    """Return every date that a text may name, with all readings of ambiguous ones."""
    return {day for match in _matches(text, _DATES) for day in _dates_of(match)}


def month_of(text: str) -> date | None:
    """Return the first day of the month if a text consists of a month and a year: 2021-03."""
    matches = (match for match in _matches(text, _MONTHS) if match.span() == (0, len(text)))
    return next((month for match in matches for month in _dates_of(match)), None)


def months_in(text: str) -> set[date]:
    """Return the first day of every month that a text may name, including those of its dates."""
    months = {month for match in _matches(text, _MONTHS) for month in _dates_of(match)}
    return months | {day.replace(day=1) for day in dates_in(text)}


def written_dates(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of dates, of months with a year, and of days without one, in order."""
    end = 0
    matches = (match for match in _matches(text, _WRITTEN) if _is_written(match))
    for start, stop in sorted(map(re.Match.span, matches), key=lambda span: (span[0], -span[1])):
        if start >= end:
            end = stop
            yield start, stop


def _is_written(match: re.Match[str]) -> bool:
    """Return whether a date exists; a month without a day or year is a word if in lower case."""
    parts = match.groupdict()
    if {"year", "day"} <= parts.keys() or "first" in parts:
        return bool(_dates_of(match))
    is_day = "day" not in parts or _date("2000", _month(match["month"]), _day(match)) is not None
    return is_day and not match["month"].islower()


def _matches(text: str, patterns: Iterable[re.Pattern[str]]) -> Iterator[re.Match[str]]:
    for pattern in patterns if _DIGIT.search(text) else ():
        for match in pattern.finditer(text):
            if "month" not in match.re.groupindex or _month(match["month"]):
                yield match


def _dates_of(match: re.Match[str], order: DateOrder | None = None) -> list[date]:
    """Return the readings of a date, the likeliest first."""
    parts, year = match.groupdict(), match["year"]
    if "first" in parts:
        days = [(int(parts["second"]), int(parts["first"]))]
        if parts["mark"] != "." or days[0][0] > _MONTHS_OF_YEAR:
            days.insert(order is not DateOrder.MONTH_FIRST, days[0][::-1])
    else:
        days = [(_month(parts["month"]), _day(match))]
    ages = ("",) if len(year) > 2 else ("20", "19") if year < "69" else ("19", "20")  # noqa: PLR2004
    dates = (_date(f"{age}{year}", *day) for age in ages for day in days)
    return [one for one in dates if one]


def _month(name: str) -> int:
    """Return the number of a month, 0 for another word."""
    return int(name) if name.isdecimal() else _MONTH_OF.get(name.lower(), 0)


def _day(match: re.Match[str]) -> int:
    parts = match.groupdict()
    if words := parts.get("day_in_words"):
        *ten, last = words.lower().replace("-", " ").split()
        return {"twenty": 20, "thirty": 30}.get("".join(ten), 0) + ORDINALS[last]
    return int(parts.get("day", 1))


def _date(year: str, month: int, day: int) -> date | None:
    try:
        return date(int(year), month, day)
    except ValueError:
        return None


# Times of day

_TIME = re.compile(
    r"(?<![\d.,:/])(\d{1,2})(?:([:.])(\d{2}))?(?::\d{2})?"
    r"(?: ?([ap])\.?m(?![a-z])| ?(uhr)(?![a-z]))?(?![\d:/])",
    re.IGNORECASE,
)
_NOON = 12


def times_in(text: str) -> frozenset[time]:
    """Return the times of day in a text, to the minute, such as 14:30, 2:30 p.m. and 14.30 Uhr."""
    return frozenset(moment for match in _TIME.finditer(text) if (moment := _time(match)))


def is_time(text: str) -> bool:
    """Return whether a text consists of times of day."""
    rest = _TIME.sub(lambda match: "" if _time(match) else match[0], text)
    return rest != text and not any(char.isalnum() for char in rest)


def _time(match: re.Match[str]) -> time | None:
    hour, minute, half, word = int(match[1]), int(match[3] or 0), match[4], match[5]
    if match[2] != ":" and not half and not word:
        return None
    if half:
        if not 1 <= hour <= _NOON:
            return None
        hour = hour % _NOON + (_NOON if half in "pP" else 0)
    with suppress(ValueError):
        return time(hour, minute)
    return None
