"""Numbers, currencies, units and dates in a value as a document writes it.

What is ambiguous stays untyped: a wrong number in a table is worse than none. The value as it was
written always stands beside it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from enum import StrEnum

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


class DateOrder(StrEnum):
    """What stands first in a date such as 3/1/03: the month or the day."""

    MONTH_FIRST = "mdy"
    DAY_FIRST = "dmy"


def typed(value: JsonValue, order: DateOrder | None = None) -> TypedValue:
    """Read a value of an answer.

    With an order of dates, those that are ambiguous without it are read, and years of two digits:
    up to 68 as of this century, the others as of the last, as POSIX does.
    """
    if isinstance(value, bool):
        return TypedValue(number=Decimal(value))
    if isinstance(value, int | float):
        return TypedValue(number=_decimal(repr(value)))
    if not isinstance(value, str) or len(value) > _MAX_LENGTH:
        return TypedValue()
    if found := list(_dates(value, order)):
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
_SHORT = re.compile(r"(?<!\d)(\d{1,2})([/.-])(\d{1,2})\2(\d{4}|\d{2})(?!\d)")
_DAYS = """
first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth
fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth
"""
_DAY_IN_WORDS = re.compile(
    rf"\b(?:(twenty|thirty)[ -])?({'|'.join(_DAYS.split())})(?= (?:day )?of\b)", re.IGNORECASE
)
_EAST_ASIAN = re.compile(r"(\d{4})\s?[年년]\s?(\d{1,2})\s?[月월]\s?(\d{1,2})\s?[日일]")


def _dates(text: str, order: DateOrder | None = None) -> Iterator[date | None]:
    """Yield the dates that a text names; `None` for one whose day and month are ambiguous."""
    for year, _, month, day in _ISO.findall(text):
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
    """Tell whether a text names a day that `typed` does not read, as 03/04/2025 is two days."""
    return isinstance(value, str) and None in _dates(value[:_MAX_LENGTH])


def dates_in(text: str) -> set[date]:
    """Return every date that a text may name: an ambiguous one is all that it can be."""
    text = _DAY_IN_WORDS.sub(_day_number, text)
    found = list(_dates(text))
    for first, _, second, year in _SHORT.findall(text):
        for each in (year,) if len(year) > 2 else (f"19{year}", f"20{year}"):  # noqa: PLR2004
            found += [_date(each, int(first), second), _date(each, int(second), first)]
    found += [_date(year, int(month), day) for year, month, day in _EAST_ASIAN.findall(text)]
    return {each for each in found if each is not None}


def _day_number(match: re.Match[str]) -> str:
    ten = {"twenty": 20, "thirty": 30}.get((match[1] or "").lower(), 0)
    return str(ten + _DAYS.split().index(match[2].lower()) + 1)


def _numeric_date(
    first: int, mark: str, second: int, year: str, order: DateOrder | None
) -> date | None:
    """Read 31.12.2024 with the day first, and 12/31/2024 where one number is no month.

    Of others the order decides; without one they are ambiguous.
    """
    if mark == "." or first == second or first > 12:  # noqa: PLR2004 - months
        return _date(year, second, first)
    if second > 12 or order is DateOrder.MONTH_FIRST:  # noqa: PLR2004 - months
        return _date(year, first, second)
    return _date(year, second, first) if order else None


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
_NAMES_OF_CURRENCIES = {
    "USD": "$ US$ U.S.$ dollars Dollars",
    "EUR": "€ euro euros Euro Euros",
    "AUD": "A$ AU$",
    "BRL": "R$",
    "CAD": "C$ CA$",
    "CHF": "Fr.",
    "CNY": "RMB",
    "GBP": "£",
    "HKD": "HK$",
    "ILS": "₪",
    "INR": "₹ Rs. Rs",
    "JPY": "¥",
    "KRW": "₩",
    "MYR": "RM",
    "NZD": "NZ$",
    "RUB": "₽",
    "SGD": "S$",
    "TRY": "₺",
    "TWD": "NT$",
}
_SYMBOLS = {name: code for code, names in _NAMES_OF_CURRENCIES.items() for name in names.split()}
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
_FEWEST_CELLS = 3


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


# Numbers in a text

_UNITS = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen
"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SIMPLE = {name: number for number, name in enumerate(_UNITS.split())}
_SIMPLE |= {name: 10 * number for number, name in enumerate(_TENS.split(), start=2)}
_HUNDRED = 100
_WORD = re.compile(r"[a-z]+")
_PERCENT = ("%", "‰", "percent")


def numbers_in(text: str) -> set[Decimal]:
    """Return every number that a text may name, in figures or in English words.

    What is ambiguous is all that it can be: 1.500 is 1500 and 1.5, and 5 % is 5 and 0.05. In a
    record of CSV the numbers of its cells count, too.
    """
    found = {number for cell in _cells(text) for number in numbers_in(cell)} | {*_in_words(text)}
    for match in _AMOUNT.finditer(text):
        scale = Decimal(10) ** _SCALES.get(match["scale"] or "", 0)
        for number in _readings(match["digits"]):
            own = {number, number * scale}
            own |= {number / _HUNDRED} if match["unit"] in _PERCENT else set()
            own |= {-each for each in own} if match["open"] else set()
            found |= {-each for each in own} if _is_negative(match, text) else own
    return found


def _cells(text: str) -> Iterator[str]:
    """Yield the cells of records with three cells or more, none of which begins with a blank."""
    for record in csv.reader(text.splitlines()):
        if len(record) >= _FEWEST_CELLS and not any(cell[:1].isspace() for cell in record):
            yield from record


def _is_negative(match: re.Match[str], text: str) -> bool:
    """Tell a minus before a number from a hyphen between words and from the dash of a list."""
    start, end = match.span("sign")
    if match["sign"] not in ("-", "−"):
        return False
    return not text[end].isspace() and not (start and text[start - 1].isalnum())


def _readings(digits: str) -> set[Decimal]:
    """Return the numbers that digits with marks and blanks between them may be."""
    pieces = _BLANKS.split(digits)
    groups = [_MARKS.split(piece)[0] for piece in pieces[1:]]
    if groups and len(pieces[0]) <= _GROUP and all(len(each) == _GROUP for each in groups):
        pieces.append("".join(pieces))
    found: set[Decimal] = set()
    for piece in pieces:
        whole = {each for each in (_read_as(piece, ",", "."), _read_as(piece, ".", ",")) if each}
        found.update(map(Decimal, whole or _MARKS.split(piece)))
    return found


def _read_as(piece: str, mark: str, point: str) -> str:
    """Return a number with this mark between its thousands; empty where it is none."""
    whole, _, decimals = piece.partition(point)
    is_number = not _MARKS.search(decimals) and (mark not in whole or _is_grouped(whole, mark))
    return f"{whole.replace(mark, '')}.{decimals or 0}" if is_number else ""


def _in_words(text: str) -> Iterator[Decimal]:
    """Yield the numbers in English words: two million, five hundred and ten."""
    total = current = 0
    is_open = False
    for word in [*_WORD.findall(text.lower()), ""]:
        if word in _SIMPLE:
            current += _SIMPLE[word]
        elif is_open and word == "hundred":
            current *= _HUNDRED
        elif is_open and word in ("thousand", "million", "billion"):
            total, current = total + current * 10 ** _SCALES[word], 0
        elif is_open and word != "and":
            yield Decimal(total + current)
            total = current = 0
        is_open = word in _SIMPLE or (is_open and (word == "and" or total + current > 0))
