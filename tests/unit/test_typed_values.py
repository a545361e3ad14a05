"""Tests of parsing numbers, currencies, units and dates as documents write them."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.domain.typed_values import DateOrder, TypedValue, typed


@pytest.mark.parametrize(
    ("text", "number", "currency", "unit"),
    [
        ("US$ 1,234.50", "1234.50", "USD", None),
        ("1.234,50 EUR", "1234.50", "EUR", None),
        ("EUR 1.234", "1234", "EUR", None),
        ("0.125", "0.125", None, None),
        ("CHF 120'000", "120000", "CHF", None),
        ("1\u202f200,50 €", "1200.50", "EUR", None),
        ("12,34,567", "1234567", None, None),
        ("$1.5 million", "1500000", "USD", None),
        ("£12m", "12000000", "GBP", None),
        ("$100m", "100000000", "USD", None),
        ("US$2bn", "2000000000", "USD", None),
        ("£1.2tn", "1200000000000.0", "GBP", None),
        ("$1.5T", "1500000000000.0", "USD", None),
        ("$5k", "5000", "USD", None),
        ("$100-million", "100000000", "USD", None),
        ("$5\nmillion", "5000000", "USD", None),
        ("1.5 billion US dollars", "1500000000.0", "USD", None),
        ("$1.234 billion", "1234000000.000", "USD", None),
        ("1.234 Mio. EUR", "1234000000", "EUR", None),
        ("3 Mrd. €", "3000000000", "EUR", None),
        ("R$ 5 mil", "5000", "BRL", None),
        ("Five Thousand Dollars ($5,000)", "5000", "USD", None),
        ("100 m", "100", None, "m"),
        ("100 m sprint", "100", None, "m"),
        ("$500 M&A fee", "500", "USD", "M"),
        ("(1,200)", "-1200", None, None),
        ("($1,000,000)", "-1000000", "USD", None),
        ("-5", "-5", None, None),
        ("25%", "25", None, "%"),
        ("30 days", "30", None, "days"),
        ("thirty (30) days", "30", None, "days"),
        ("$10,000 per year", "10000", "USD", "per year"),
        ("USD1,000,000.00", "1000000.00", "USD", None),
        ("1,5 млн рублей", "1500000.0", "RUB", None),
        ("1億2000万円", "120000000", "JPY", None),
        ("500 kr", "500", None, "kr"),
    ],
)
def test_amounts_are_parsed(text: str, number: str, currency: str | None, unit: str | None) -> None:
    value = replace(typed(text), scale=None)

    assert value == TypedValue(number=Decimal(number), currency=currency, unit=unit)


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2020-01-02", date(2020, 1, 2)),
        ("2020-01-02T10:00:00", date(2020, 1, 2)),
        ("May 3, 2020", date(2020, 5, 3)),
        ("Sept. 5, 2019", date(2019, 9, 5)),
        ("3rd day of May, 2020", date(2020, 5, 3)),
        ("this first (1st) day of May, 2020", date(2020, 5, 1)),
        ("14t h day of May, 2020", date(2020, 5, 14)),
        ("as of 31 December 2021", date(2021, 12, 31)),
        ("3. März 2021", date(2021, 3, 3)),
        ("1er mars 2020", date(2020, 3, 1)),
        ("3 de mayo de 2021", date(2021, 5, 3)),
        ("12.05.2021", date(2021, 5, 12)),
        ("25/12/2020", date(2020, 12, 25)),
        ("12/25/2020", date(2020, 12, 25)),
        ("2024年3月1日", date(2024, 3, 1)),
        ("1 марта 2024 года", date(2024, 3, 1)),
        ("5 czerwca 2024", date(2024, 6, 5)),
        ("5. července 2024", date(2024, 7, 5)),
    ],
)
def test_dates_are_parsed(text: str, day: date) -> None:
    assert typed(text) == TypedValue(date=day)


@pytest.mark.parametrize(
    ("text", "month_first", "day_first"),
    [
        ("3/1/03", date(2003, 3, 1), date(2003, 1, 3)),
        ("03/01/2003", date(2003, 3, 1), date(2003, 1, 3)),
        ("5-6-68", date(2068, 5, 6), date(2068, 6, 5)),
        ("5-6-69", date(1969, 5, 6), date(1969, 6, 5)),
        ("5/25/99", date(1999, 5, 25), date(1999, 5, 25)),
        ("25/5/1999", date(1999, 5, 25), date(1999, 5, 25)),
        ("1.3.2003", date(2003, 3, 1), date(2003, 3, 1)),
        ("March 1, 2003", date(2003, 3, 1), date(2003, 3, 1)),
        ("2/30/03", None, None),
    ],
)
def test_the_date_order_decides_ambiguous_dates(
    text: str, month_first: date | None, day_first: date | None
) -> None:
    """Other dates are not affected; two-digit years are interpreted as in POSIX."""
    assert typed(text, DateOrder.MONTH_FIRST).date == month_first
    assert typed(text, DateOrder.DAY_FIRST).date == day_first


@pytest.mark.parametrize(
    "text",
    [
        "",
        "laws of Taiwan",
        "Section 4.2",
        "1.2.3",
        "5-10 days",
        "5 listopada 2024",
        "03/04/2020",
        "3/1/03",
        "31 February 2020",
        "between 3 May 2020 and 4 June 2021",
        "AUDIT 12",
        "1.500",
        "12 of 30 employees",
        "5 k run",
        "5b",
        "$3 mil",
        "$1-2 million",
    ],
)
def test_ambiguous_values_stay_untyped(text: str) -> None:
    """A wrong number or date in a table would be worse than none."""
    assert typed(text) == TypedValue()


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_of_json_keep_their_value(number: float) -> None:
    value = typed(number).number
    assert value is not None
    assert (int(value) if isinstance(number, int) else float(value)) == number


@given(st.text(max_size=60))
def test_any_text_is_parsed_without_an_error(text: str) -> None:
    value = typed(text)
    assert value.number is None or value.number.is_finite()
