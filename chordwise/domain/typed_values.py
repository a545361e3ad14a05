"""Numbers, currencies, units and dates in a value as a document writes it.

What is ambiguous stays untyped: a wrong number in a table is worse than none. The value as it was
written always stands beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation

from chordwise.domain.json_values import JsonValue

_MAX_LENGTH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedValue:
    """What a value says as a number or a date; `None` where it says neither, or is ambiguous.

    `currency` is a code of ISO 4217, `unit` what follows a number: `%`, `days`, `kg`.
    """

    number: Decimal | None = None
    currency: str | None = None
    unit: str | None = None
    date: date | None = None


def typed(value: JsonValue) -> TypedValue:
    """Read a value of an answer."""
    if isinstance(value, bool):
        return TypedValue(number=Decimal(value))
    if isinstance(value, int | float):
        return TypedValue(number=_decimal(repr(value)))
    if not isinstance(value, str) or len(value) > _MAX_LENGTH:
        return TypedValue()
    if found := list(_dates(value)):
        return TypedValue(date=found[0]) if len(set(found)) == 1 else TypedValue()
    return _amount(value)


# Dates

# The beginnings of the names in English, German, French, Spanish, Italian, Portuguese and Dutch.
_MONTHS = {
    1: "jan ene gen",
    2: "feb fév fev",
    3: "mar mär maa mrt",
    4: "apr avr abr",
    5: "may mai mei mag",
    6: "jun juin giu",
    7: "jul juil lug",
    8: "aug aoû ago",
    9: "sep set",
    10: "oct okt ott out",
    11: "nov",
    12: "dec dez déc dic",
}
_MONTH_OF = {name: number for number, names in _MONTHS.items() for name in names.split()}
_ISO = re.compile(r"(?<!\d)(\d{4})([-/.])(\d{1,2})\2(\d{1,2})(?!\d)")
_MONTH_FIRST = re.compile(r"\b([^\W\d]{3,})\.?\s+(\d{1,2})(?:st|nd|rd|th)?(?:,|\s)\s*(\d{4})\b")
_DAY_FIRST = re.compile(
    r"(?<!\d)(\d{1,2})(?:st|nd|rd|th|er|\.|º)?[\s-]+(?:day\s+of\s+|of\s+|de\s+)?([^\W\d]{3,})\.?,?"
    r"(?:\s+de|\s+of)?[\s-]+(\d{4})\b",
    re.IGNORECASE,
)
_NUMERIC = re.compile(r"(?<!\d)(\d{1,2})([/.-])(\d{1,2})\2(\d{4})(?!\d)")


def _dates(text: str) -> Iterator[date | None]:
    """Yield the dates that a text names; `None` for one whose day and month are ambiguous."""
    for year, _, month, day in _ISO.findall(text):
        yield _date(year, int(month), day)
    for name, day, year in _MONTH_FIRST.findall(text):
        if month := _month(name):
            yield _date(year, month, day)
    for day, name, year in _DAY_FIRST.findall(text):
        if month := _month(name):
            yield _date(year, month, day)
    for first, mark, second, year in _NUMERIC.findall(text):
        yield _numeric_date(int(first), mark, int(second), year)


def _numeric_date(first: int, mark: str, second: int, year: str) -> date | None:
    """Read 31.12.2024 with the day first, and 12/31/2024 only where one number is no month."""
    if mark == "." or first == second or first > 12:  # noqa: PLR2004 - months
        return _date(year, second, first)
    return _date(year, first, second) if second > 12 else None  # noqa: PLR2004 - months


def _month(name: str) -> int | None:
    lowered = name.lower()
    return _MONTH_OF.get(lowered[:4]) or _MONTH_OF.get(lowered[:3])


def _date(year: str, month: int, day: str | int) -> date | None:
    try:
        return date(int(year), month, int(day))
    except ValueError:
        return None


# Numbers

_CODES = """
AED ARS AUD BDT BGN BRL CAD CHF CLP CNY COP CZK DKK EGP EUR GBP HKD HUF IDR ILS INR ISK JPY KES KRW
KZT LKR MAD MXN MYR NGN NOK NZD PEN PHP PKR PLN QAR RON RSD RUB SAR SEK SGD THB TRY TWD UAH USD VND
ZAR
"""
_SYMBOLS = {
    "US$": "USD",
    "U.S.$": "USD",
    "A$": "AUD",
    "AU$": "AUD",
    "C$": "CAD",
    "CA$": "CAD",
    "HK$": "HKD",
    "NZ$": "NZD",
    "S$": "SGD",
    "R$": "BRL",
    "NT$": "TWD",
    "$": "USD",
    "€": "EUR",
    "£": "GBP",
    "¥": "JPY",
    "₹": "INR",
    "₽": "RUB",
    "₩": "KRW",
    "₺": "TRY",
    "₪": "ILS",
    "RM": "MYR",
    "RMB": "CNY",
    "Fr.": "CHF",
    "Rs.": "INR",
    "Rs": "INR",
    "euro": "EUR",
    "euros": "EUR",
    "Euro": "EUR",
    "Euros": "EUR",
    "dollars": "USD",
    "Dollars": "USD",
}
_CURRENCY = "|".join(
    re.escape(name) + ("(?![A-Za-z])" if name[-1].isalpha() else "")
    for name in sorted({*_SYMBOLS, *_CODES.split()}, key=len, reverse=True)
)
_SPACES = " \u00a0\u2009\u202f"
_DIGITS = rf"\d+(?:[.,'’{_SPACES}]\d+)*"
_BLANKS = re.compile(f"['’{_SPACES}]")
_MARKS = re.compile("[.,]")
_SCALES = {
    "thousand": 3,
    "k": 3,
    "million": 6,
    "mio": 6,
    "mn": 6,
    "m": 6,
    "billion": 9,
    "bn": 9,
    "mrd": 9,
}
_GAP = f"[{_SPACES}]*+"
_AMOUNT = re.compile(
    rf"(?P<open>\()?(?:(?P<before>{_CURRENCY}){_GAP})?(?:(?P<sign>[-−+]){_GAP})?"
    rf"(?:(?P<inside>{_CURRENCY}){_GAP})?(?P<digits>{_DIGITS})"
    rf"(?:[{_SPACES}]?(?P<scale>{'|'.join(sorted(_SCALES, key=len, reverse=True))})\b\.?)?"
    rf"(?:,?[-–—])?\)?{_GAP}(?:(?P<after>{_CURRENCY})|(?P<unit>%|‰|(?:per )?[^\W\d]+))?"
)
# A number in words before its figures: "thirty (30) days".
_IN_WORDS = re.compile(r"^[A-Za-z-]+(?: [A-Za-z-]+)? \(")
_GROUP = 3


def _amount(text: str) -> TypedValue:
    """Read a text that is one number, or names one sum of money or percentage."""
    text = text.strip()
    found = list(_AMOUNT.finditer(text))
    if len(found) != 1:
        return TypedValue()
    match = found[0]
    name = match["before"] or match["inside"] or match["after"]
    is_marked = name is not None or match["unit"] in ("%", "‰")
    if not (is_marked or match.start() == 0 or _IN_WORDS.match(text)):
        return TypedValue()
    number = _number(match["digits"], is_money=name is not None)
    if number is None:
        return TypedValue()
    number *= 10 ** _SCALES.get(match["scale"] or "", 0)
    is_negative = match["sign"] in ("-", "−") or _is_in_brackets(match, text)
    return TypedValue(
        number=-number if is_negative else number,
        currency=_SYMBOLS.get(name, name) if name else None,
        unit=match["unit"],
    )


def _is_in_brackets(match: re.Match[str], text: str) -> bool:
    """Tell whether an amount is negative as accountants write it: (1,200)."""
    return bool(match["open"]) and match.start() == 0 and text.rstrip().endswith(")")


def _number(digits: str, *, is_money: bool) -> Decimal | None:
    """Read digits with marks; `None` where a mark may divide thousands or decimals."""
    plain = _BLANKS.sub("", digits)
    marks = [mark for mark in plain if mark in ".,"]
    if not marks:
        return _decimal(plain)
    last = marks[-1]
    whole, _, rest = plain.rpartition(last)
    if len(set(marks)) > 1:
        return _decimal(f"{_MARKS.sub('', whole)}.{rest}")
    if len(marks) > 1:
        return _decimal(plain.replace(last, "")) if _is_grouped(plain, last) else None
    divides_thousands = len(rest) == _GROUP and whole != "0" and (is_money or last == ",")
    if last == "." and len(rest) == _GROUP and whole != "0" and not is_money:
        return None  # 1.500 is 1500 in German, and 1.5 in English
    return _decimal(whole + rest if divides_thousands else f"{whole}.{rest}")


def _is_grouped(plain: str, mark: str) -> bool:
    """Tell whether marks stand before groups of three, or of two as in India: 12,34,567."""
    groups = plain.split(mark)[1:]
    return len(groups[-1]) == _GROUP and all(len(group) in (2, _GROUP) for group in groups)


def _decimal(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
