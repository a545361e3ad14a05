"""Parsing of numbers, currencies, units and dates in the values of documents.

Ambiguous values stay untyped: a wrong number in a table is worse than none. The original text of
the value is always stored beside it. A table states the scale of its amounts once, in its caption:
“(in millions)”.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from chordwise.domain import dates, items, json_values, quantities
from chordwise.domain.analysis_tasks import AnalysisOptions
from chordwise.domain.dates import DateOrder
from chordwise.domain.grounding import Source
from chordwise.domain.items import ColumnKind
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.quantities import CURRENCY, POWER_OF, SCALE, UNSURE_SCALES, Quantity

TRUTHS = {"yes": "true", "true": "true", "no": "false", "false": "false"}
"""The values of a column of yes and no, in SQL."""
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

    def difference(self, other: TypedValue) -> Decimal | None:
        """Return the difference of two numbers, or of two dates in days.

        It is `None` for other values, and for amounts in different currencies.
        """
        if self.date is not None and other.date is not None:
            return Decimal((self.date - other.date).days)
        if self.number is None or other.number is None:
            return None
        is_same_currency = not (self.currency and other.currency) or self.currency == other.currency
        return self.number - other.number if is_same_currency else None


def typed(value: JsonValue, order: DateOrder | None = None) -> TypedValue:
    """Parse a value of an answer; with `order`, also ambiguous dates."""
    if isinstance(value, bool):
        return TypedValue(number=Decimal(value))
    if isinstance(value, int | float):
        number = Decimal(repr(value))
        return TypedValue(number=number if number.is_finite() else None)
    if not isinstance(value, str) or len(value) > _MAX_LENGTH:
        return TypedValue()
    if days := set(dates.readings(value, order)):
        is_day = len(days) == 1 and not dates.is_relative(value)
        return TypedValue(date=days.pop()) if is_day else TypedValue()
    quantity = quantities.parse_single(value)
    if quantity is None:
        return TypedValue()
    unit = quantity.unit if quantity.code else quantity.unit or quantity.currency
    scale = 10**quantity.power if quantity.power else None
    return TypedValue(number=quantity.number, currency=quantity.code, unit=unit, scale=scale)


def is_of_kind(value: JsonValue, kind: ColumnKind) -> bool:
    """Return whether a column of a kind can hold a value; a text column holds any."""
    if kind is ColumnKind.BOOLEAN:
        return (json_values.text_of(value) or "").lower() in TRUTHS
    name = {ColumnKind.DATE: "date", ColumnKind.MONEY: "number", ColumnKind.NUMBER: "number"}
    if kind not in name:
        return True
    return not isinstance(value, bool) and getattr(typed(value), name[kind]) is not None


# The scale of amounts in a table

_STATEMENT = re.compile(
    rf"(?:\b(?i:in|en)[ ]|\([ ]?|^[ ]?|(?P<before>{CURRENCY})[ ]?(?:in[ ])?)"
    rf"(?:(?P<between>{CURRENCY})[ ]?)?(?P<scale>{SCALE}|(?:mm?|k)\b|['’]?000['’]?s?\b)\.?"
    rf"(?:[ ](?:of[ ])?(?:U\.?S\.?[ ])?(?P<after>{CURRENCY}))?"
)
_POWER_OF_ZEROS = 3
_EXCEPTIONS = re.compile(r"\b(?:except|excluding|other than)\b([^()\n]{0,200})", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+")
_COMMON = frozenset(("where", "when", "otherwise", "noted", "stated", "amounts", "amount", "data"))
_SHORTEST_WORD = 4
_MAX_LINES, _MAX_CHARACTERS = 200, 8_000
_PROSE_WORDS = 10


def with_scales(output: JsonObject, source: Source, options: AnalysisOptions) -> JsonObject:
    """Add the scale and currency of a table to located amounts that it gives without them."""
    fields = json_values.objects(output.get("fields"))
    return {**output, "fields": [_scaled(field, source, options) for field in fields]}


def _scaled(field: JsonObject, source: Source, options: AnalysisOptions) -> JsonObject:
    item, quote = json_values.text(field.get("item")), json_values.text(field.get("quote"))
    span = json_values.span_of(field)
    is_money = items.kind_in(options, item) is ColumnKind.MONEY
    if span is None or not is_money or not _is_bare(json_values.text(field.get("value")), quote):
        return field
    start, end = (place - source.offset for place in span)
    head = source.text[source.text.rfind("\n", 0, max(0, start)) + 1 : end]
    for line in itertools.chain([head], _lines_before(source, start, is_table=not _is_prose(head))):
        if (match := _STATEMENT.search(line)) and _is_statement(match, line):
            about = f"{item} {quote}".casefold()
            if " per " in about or any(word in about for word in _excepted(line)):
                return field
            name = match["before"] or match["between"] or match["after"]
            code = Quantity(number=Decimal(1), currency=name).code
            power = POWER_OF.get(match["scale"].lower(), _POWER_OF_ZEROS)
            return {**field, **({"currency": code} if code else {}), "scale": 10**power}
    return field


def _is_bare(value: str, quote: str) -> bool:
    """Return whether a number has no scale or unit, and is in the quote as it is."""
    number = quantities.parse_single(value)
    if number is None or number.power or (number.unit and not number.currency):
        return False
    stated = [reading for readings in quantities.quantities(quote) for reading in readings]
    return {reading.power for reading in stated if abs(reading.number) == abs(number.number)} == {0}


def _lines_before(source: Source, start: int, *, is_table: bool) -> Iterator[str]:
    """Yield the lines of a table before a place, the nearest first, up to its caption."""
    before = source.text[max(0, start - _MAX_CHARACTERS) : max(0, start)]
    above = source.header.text if source.header and start <= _MAX_CHARACTERS else ""
    lines = f"{above}\n{before}".split("\n")[-2::-1] if is_table else []
    for line in lines[:_MAX_LINES]:
        yield line
        if _is_prose(line):
            return


def _is_prose(line: str) -> bool:
    """Return whether a line is a sentence, and no row, which ends with a number or has cells."""
    is_row = line.rstrip()[-1:] in tuple("0123456789)%—–-|") or "\t" in line or "|" in line
    return not is_row and len(_WORD.findall(line)) >= _PROSE_WORDS


def _is_statement(match: re.Match[str], line: str) -> bool:
    """Return whether a scale is that of a table: in a sentence it has to be in brackets."""
    if match["scale"].lower() in UNSURE_SCALES and not (match["before"] or match["between"]):
        return False
    start = match.start() + (match[0][0] == "(")
    return not _is_prose(line) or line.count("(", 0, start) > line.count(")", 0, start)


def _excepted(line: str) -> Iterator[str]:
    for word in _WORD.findall(" ".join(_EXCEPTIONS.findall(line)).casefold()):
        if len(word) >= _SHORTEST_WORD and word not in _COMMON:
            yield word.removesuffix("s")
