"""Tests of the scales that tables state for their amounts."""

from __future__ import annotations

from decimal import Decimal

import pytest

from chordwise.domain import grounding
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.facts import Fact, facts
from chordwise.domain.grounding import Source
from chordwise.domain.scales import with_scales
from tests.fakes.generated_answers import a_field

SENTENCE = "The plant in the north of the country had sold goods worth much more than before"


def fact_of(text: str, quote: str, value: str, item: str = "total assets") -> Fact:
    source = Source(text)
    output = grounding.ground({"fields": [a_field(item, value, 9, quote=quote)]}, source)
    scaled = with_scales(output, source, AnalysisOptions(items=(item,)))
    (fact,) = facts(scaled, analysis_for(AnalysisType.EXTRACTION))
    return fact


@pytest.mark.parametrize(
    ("caption", "factor", "currency"),
    [
        ("Balance sheet (in millions)", 10**6, None),
        ("BALANCE SHEET\n(In thousands of U.S. dollars)\n2024 2023", 10**3, "USD"),
        ("$ in thousands", 10**3, "USD"),
        ("(€m)", 10**6, "EUR"),
        ("Bilanz (in Mio. EUR)", 10**6, "EUR"),
        ("(£'000)", 10**3, "GBP"),
        ("(in millions, except per share data)", 10**6, None),
        ("In millions, except ratios and percentages", 10**6, None),
        (f"{SENTENCE} (in millions):", 10**6, None),
        ("(in thousands)\nSales 12 11\n(in millions)", 10**6, None),
        ("(in millions, except assets)", 1, None),
        (f"Used in millions of homes. {SENTENCE}", 1, None),
        (f"(in millions)\n{SENTENCE}.", 1, None),
        ("The million dollar plan", 1, None),
        ("", 1, None),
    ],
)
def test_an_amount_has_the_scale_of_its_table(
    caption: str, factor: int, currency: str | None
) -> None:
    """The caption nearest above counts, unless a sentence parts it from the row."""
    fact = fact_of(f"{caption}\nTotal assets 1,234 1,100\n", "Total assets 1,234 1,100", "1,234")

    assert (fact.number, fact.scale) == (Decimal(1234 * factor), factor if factor > 1 else None)
    assert fact.currency == currency
    assert fact.value == "1,234"


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
