"""Parsing of numbers, currencies, units and dates in the values of documents.

Ambiguous values stay untyped: a wrong number in a table is worse than none. The original text of
the value is always stored beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from chordwise.domain import dates, quantities
from chordwise.domain.dates import DateOrder
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
        return TypedValue(date=days.pop()) if len(days) == 1 else TypedValue()
    quantity = quantities.parse_single(value)
    if quantity is None:
        return TypedValue()
    unit = quantity.unit if quantity.code else quantity.unit or quantity.currency
    scale = 10**quantity.power if quantity.power else None
    return TypedValue(number=quantity.number, currency=quantity.code, unit=unit, scale=scale)
