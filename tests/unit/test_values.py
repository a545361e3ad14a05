"""Tests of the parser of values, by the cases of `values.tsv`, and of the scales of tables.

A row of the file has the kind of a case, the language of its text, what is expected, a value, and
for some kinds its context, such as a quote, and a question. Cells are escaped like JSON strings.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.domain import grounding, value_in_quote
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.dates import DateOrder
from chordwise.domain.extractive.values import ValueKind, values
from chordwise.domain.facts import Fact, facts
from chordwise.domain.grounding import Source
from chordwise.domain.learning import fields
from chordwise.domain.typed_values import TypedValue, typed, with_scales
from tests.fakes.generated_answers import a_field

Case = dict[str, str]


def read_cases() -> list[Case]:
    """Return the cases with an empty text for each cell that a row does not have."""
    text = Path(__file__).with_name("values.tsv").read_text("utf-8")
    rows = csv.DictReader(
        text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE, restval="", strict=True
    )
    return [{name: plain(cell) for name, cell in row.items()} for row in rows]


def plain(cell: str) -> str:
    escaped = cell.replace('"', '\\"')
    return str(json.loads(f'"{escaped}"'))


def check_amount(case: Case) -> None:
    """The expectation is a number, perhaps a currency and a unit, or `none`: untyped."""
    number, _, rest = case["expected"].partition(" ")
    first, _, others = rest.partition(" ")
    currency = first if first.isupper() and len(first) == 3 else None
    unit = (others if currency else rest) or None
    expected = TypedValue(number=Decimal(number), currency=currency, unit=unit)

    assert replace(typed(case["value"]), scale=None) == expected


def check_untyped(case: Case) -> None:
    assert typed(case["value"]) == TypedValue()


def check_date(case: Case) -> None:
    """The context is the order of ambiguous dates."""
    day = None if case["expected"] == "none" else date.fromisoformat(case["expected"])
    order = DateOrder(case["context"]) if case["context"] else None

    assert typed(case["value"], order) == TypedValue(date=day)


def check_same(case: Case) -> None:
    is_same = fields.keys(case["value"]) == fields.keys(case["context"])

    assert is_same is (case["expected"] == "yes")


def check_equal(case: Case) -> None:
    """The context is the right value, with which an answer is compared by the default rule."""
    is_same = fields.Comparing().is_same(case["value"], case["context"])

    assert is_same is (case["expected"] == "yes")


def check_text_in_quote(case: Case) -> None:
    check_in_quote(case["value"], case)


def check_number_in_quote(case: Case) -> None:
    check_in_quote(json.loads(case["value"]), case)


def check_in_quote(value: str | float, case: Case) -> None:
    expected = {"yes": True, "no": False, "not judged": None}[case["expected"]]

    assert value_in_quote.occurs_in(value, case["context"], case["question"]) is expected


def check_scale(case: Case) -> None:
    """The value is the caption above a row; the nearest counts, unless a sentence parts them."""
    factor, _, currency = case["expected"].partition(" ")
    row = "Total assets 1,234 1,100"
    fact = fact_of(f"{case['value']}\n{row}\n", row, "1,234")

    assert fact.number == 1234 * int(factor)
    assert fact.scale == (int(factor) if factor != "1" else None)
    assert fact.currency == (currency or None)
    assert fact.value == "1,234"


def check_values_in_text(case: Case) -> None:
    """The expectation is every value of the kind, as written, separated by ` | `."""
    kind = ValueKind(case["kind"].removesuffix(" in text"))
    listed = list(values(kind, case["value"]))

    assert " | ".join(value.text for value in listed) == case["expected"]
    assert all(case["value"].startswith(value.text, value.start_char) for value in listed)


CHECKS: dict[str, Callable[[Case], None]] = {
    "amount": check_amount,
    "untyped": check_untyped,
    "date": check_date,
    "same": check_same,
    "equal": check_equal,
    "text in quote": check_text_in_quote,
    "number in quote": check_number_in_quote,
    "scale": check_scale,
    **{f"{kind} in text": check_values_in_text for kind in ValueKind},
}


@pytest.mark.parametrize("case", read_cases(), ids=lambda case: f"{case['kind']}: {case['value']}")
def test_a_value_is_read_as_expected(case: Case) -> None:
    """A wrong number or date in a table would be worse than none: ambiguous values are untyped."""
    CHECKS[case["kind"]](case)


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_of_json_keep_their_value(number: float) -> None:
    value = typed(number).number
    assert value is not None
    assert (int(value) if isinstance(number, int) else float(value)) == number


@given(st.text(max_size=60), st.text(max_size=80))
def test_any_text_is_read_without_an_error(value: str, quote: str) -> None:
    number = typed(value).number
    assert number is None or number.is_finite()
    value_in_quote.occurs_in(value, quote)
    assert value_in_quote.occurs_in(value, f"{value} {quote}") is not False


SENTENCE = "The plant in the north of the country had sold goods worth much more than before"


def fact_of(text: str, quote: str, value: str, item: str = "total assets") -> Fact:
    source = Source(text)
    output = grounding.ground({"fields": [a_field(item, value, 9, quote=quote)]}, source)
    scaled = with_scales(output, source, AnalysisOptions(items=(item,)))
    (fact,) = facts(scaled, analysis_for(AnalysisType.EXTRACTION))
    return fact


@pytest.mark.parametrize(
    ("quote", "value", "item", "number"),
    [
        ("Total assets 1,234", "1.5 million", "total assets", 1_500_000),
        ("Total assets 1,234", "1,234,000,000", "total assets", 1_234_000_000),
        ("Total assets of 1,234 million", "1,234", "total assets", 1234),
        ("Earnings per share 1,234", "1,234", "total earnings", 1234),
        ("Total assets 1,234", "1,234", "number of assets", 1234),
        (f"{SENTENCE}, with 1,234 in cash.", "1,234", "total cash amount", 1234),
    ],
)
def test_other_numbers_stay_as_they_are(quote: str, value: str, item: str, number: int) -> None:
    """A number with its own scale, a price per piece, a count, and a number in a sentence."""
    assert fact_of(f"(in millions)\n{quote}\n", quote, value, item).number == number
