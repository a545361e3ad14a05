"""Parsing of numbers, currencies, units and dates in the values of documents.

Ambiguous values stay untyped: a wrong number in a table is worse than none. The original text of
the value is always stored beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from enum import StrEnum

from chordwise.domain import quantities
from chordwise.domain.json_values import JsonValue

_MAX_LENGTH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedValue:
    """A value as a number or a date; both are `None` if it is neither, or ambiguous.

    `currency` is an ISO 4217 code, `unit` is the unit of a number: `%`, `days`, `kg`; `scale` is
    the factor that the text has in words: 1,000,000 for “1.5 million”.
    """

    number: Decimal | None = None
    currency: str | None = None
    unit: str | None = None
    scale: int | None = None
    date: date | None = None


class DateOrder(StrEnum):
    """The order in a date such as 3/1/03: the month or the day first."""

    MONTH_FIRST = "mdy"
    DAY_FIRST = "dmy"


def typed(value: JsonValue, order: DateOrder | None = None) -> TypedValue:
    """Parse a value of an answer; with `order`, also ambiguous dates.

    Two-digit years up to 68 are in this century, the others in the last, as in POSIX.
    """
    if isinstance(value, bool):
        return TypedValue(number=Decimal(value))
    if isinstance(value, int | float):
        number = Decimal(repr(value))
        return TypedValue(number=number if number.is_finite() else None)
    if not isinstance(value, str) or len(value) > _MAX_LENGTH:
        return TypedValue()
    if dates := list(_dates(value, order)):
        return TypedValue(date=dates[0]) if len(set(dates)) == 1 else TypedValue()
    quantity = quantities.parse_single(value)
    if quantity is None:
        return TypedValue()
    unit = quantity.unit if quantity.code else quantity.unit or quantity.currency
    scale = 10**quantity.power if quantity.power else None
    return TypedValue(number=quantity.number, currency=quantity.code, unit=unit, scale=scale)


def order_in(texts: Iterable[str]) -> DateOrder | None:
    """Return the order that the dates with a day above 12 have; `None` if they differ, or none."""
    dates = [match for text in texts for match in _SHORT.findall(text) if match[1] != "."]
    orders = {DateOrder.DAY_FIRST for first, *_ in dates if int(first) > _MONTHS_OF_YEAR}
    orders |= {DateOrder.MONTH_FIRST for _, _, second, _ in dates if int(second) > _MONTHS_OF_YEAR}
    return orders.pop() if len(orders) == 1 else None


# Dates

_MONTHS_OF_YEAR = 12
# Prefixes of the names in English, German, French, Spanish, Italian, Portuguese, Dutch, Russian.
_MONTHS = {
    1: "jan ene gen янва",
    2: "feb fév fev февр",
    3: "mar mär maa mrt март",
    4: "apr avr abr апре",
    5: "may mai mei mag май мая",
    6: "jun juin giu июн",
    7: "jul juil lug июл",
    8: "aug aoû ago авгу",
    9: "sep set сент",
    10: "oct okt ott out октя",
    11: "nov нояб",
    12: "dec dez déc dic дека",
}
# Whole names in Polish, Czech, Turkish, Ukrainian and Scandinavian languages. “Listopad” is
# November in Polish and Czech, and October in Croatian.
_WHOLE_MONTHS = {
    1: "stycznia styczeń ledna leden ocak січня січень",
    2: "lutego luty února únor şubat лютого лютий",
    3: "března březen березня березень",
    4: "kwietnia kwiecień dubna duben nisan квітня квітень",
    5: "maj maja května květen травня травень",
    6: "czerwca czerwiec června červen haziran червня червень",
    7: "lipca lipiec července červenec temmuz липня липень",
    8: "sierpnia sierpień srpna srpen ağustos серпня серпень",
    9: "września wrzesień září eylül вересня вересень",
    10: "października październik října říjen ekim жовтня жовтень",
    11: "kasım листопада листопад",
    12: "grudnia grudzień prosince prosinec aralık грудня грудень",
}
_MONTH_OF = {
    name: number
    for months in (_MONTHS, _WHOLE_MONTHS)
    for number, names in months.items()
    for name in names.split()
}
_ISO = re.compile(r"(?<!\d)(\d{4})([-/.])(\d{1,2})\2(\d{1,2})(?!\d)")
_MONTH_FIRST = re.compile(r"\b([^\W\d]{3,})\.?\s+(\d{1,2})(?:st|nd|rd|th)?(?:,|\s)\s*(\d{4})\b")
_DAY_FIRST = re.compile(
    r"(?<!\d)(\d{1,2})(?:s ?t|n ?d|r ?d|t ?h|er|\.|º)?\)?[\s-]+(?:day\s+of\s+|of\s+|de\s+)?"
    r"([^\W\d]{3,})\.?,?(?:\s+de|\s+of)?[\s-]+(\d{4})\b",
    re.IGNORECASE,
)
_NUMERIC = re.compile(r"(?<!\d)(\d{1,2})([/.-])(\d{1,2})\2(\d{4})(?!\d)")
_SHORT = re.compile(r"(?<!\d)(\d{1,2})([/.-])(\d{1,2})\2(\d{4}|\d{2})(?!\d)")
_ORDINAL = "|".join(sorted(quantities.ORDINALS, key=len, reverse=True))
_DAY_IN_WORDS = re.compile(
    rf"\b(?:(twenty|thirty)[ -])?({_ORDINAL})(?= (?:day )?of\b)", re.IGNORECASE
)
_YEAR_OF_TWO = re.compile(
    r"\b(\d{1,2})[ -]([^\W\d]{3,})[ -]'?(\d{2})(?!\d)"
    r"|\b([^\W\d]{3,})\.? (\d{1,2}), ?'?(\d{2})(?!\d)"
)
_MONTH_OF_YEAR = re.compile(r"(?<!\d)(?:(\d{4})[-/](\d{2})|(\d{2})[/.](\d{4}))(?![-/.]?\d)")
_NAMED_MONTH = re.compile(r"(?<![^\W\d])([^\W\d]{3,}+)\.?,?(?: de| of)? (\d{4})\b")
_EAST_ASIAN = re.compile(r"(\d{4})\s?[年년]\s?(\d{1,2})\s?[月월]\s?(\d{1,2})\s?[日일]")


def _dates(text: str, order: DateOrder | None = None) -> Iterator[date | None]:
    for year, _, month, day in _ISO.findall(text):
        yield _date(year, int(month), day)
    for year, month, day in _EAST_ASIAN.findall(text):
        yield _date(year, int(month), day)
    for name, day, year in _MONTH_FIRST.findall(text):
        if month := _month(name):
            yield _date(year, month, day)
    for day, name, year in _DAY_FIRST.findall(text):
        if month := _month(name):
            yield _date(year, month, day)
    for first, mark, second, year in (_SHORT if order else _NUMERIC).findall(text):
        whole = year if len(year) > 2 else f"{'20' if year < '69' else '19'}{year}"  # noqa: PLR2004
        yield _numeric_date(int(first), mark, int(second), whole, order)


def has_unread_date(value: JsonValue) -> bool:
    """Return whether a text contains a date that `typed` does not parse, such as 03/04/2025."""
    return isinstance(value, str) and None in _dates(value[:_MAX_LENGTH])


def dates_in(text: str) -> set[date]:
    """Return every date that a text may name, with all readings of ambiguous ones."""
    text = _DAY_IN_WORDS.sub(_day_number, text)
    dates = list(_dates(text))
    for first, mark, second, year in _SHORT.findall(text):
        for full_year in (year,) if len(year) > 2 else (f"19{year}", f"20{year}"):  # noqa: PLR2004
            day_first = _date(full_year, int(second), first)
            dates.append(day_first)
            if mark != "." or day_first is None:
                dates.append(_date(full_year, int(first), second))
    for day, name, year, other_name, other_day, other_year in _YEAR_OF_TWO.findall(text):
        if month := _month(name or other_name):
            short = year or other_year
            dates += [_date(f"{age}{short}", month, day or other_day) for age in (19, 20)]
    return {candidate for candidate in dates if candidate is not None}


def month_of(text: str) -> date | None:
    """Return the first day of the month if a text consists of a month and a year: 2021-03."""
    is_whole = _MONTH_OF_YEAR.fullmatch(text) or _NAMED_MONTH.fullmatch(text)
    return next(iter(_named_months(text)), None) if is_whole else None


def months_in(text: str) -> set[date]:
    """Return the first day of every month that a text may name, including those of its dates."""
    return {day.replace(day=1) for day in dates_in(text)} | set(_named_months(text))


def _named_months(text: str) -> Iterator[date]:
    for year, month, other_month, other_year in _MONTH_OF_YEAR.findall(text):
        if first_day := _date(year or other_year, int(month or other_month), 1):
            yield first_day
    for name, year in _NAMED_MONTH.findall(text):
        if (month := _month(name)) and (first_day := _date(year, month, 1)):
            yield first_day


def _day_number(match: re.Match[str]) -> str:
    ten = {"twenty": 20, "thirty": 30}.get((match[1] or "").lower(), 0)
    return str(ten + quantities.ORDINALS[match[2].lower()])


def _numeric_date(
    first: int, mark: str, second: int, year: str, order: DateOrder | None
) -> date | None:
    """31.12.2024 has the day first; without `order`, 1/2/2024 is ambiguous."""
    if mark == "." or first == second or first > _MONTHS_OF_YEAR:
        return _date(year, second, first)
    if second > _MONTHS_OF_YEAR or order is DateOrder.MONTH_FIRST:
        return _date(year, first, second)
    return _date(year, second, first) if order else None


def _month(name: str) -> int | None:
    lowered = name.lower()
    numbers = (_MONTH_OF.get(prefix) for prefix in (lowered, lowered[:4], lowered[:3]))
    return next(filter(None, numbers), None)


def _date(year: str, month: int, day: str | int) -> date | None:
    try:
        return date(int(year), month, int(day))
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
