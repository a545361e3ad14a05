"""Tests of checking whether values are in their quotes, and of the effects on an answer."""

from __future__ import annotations

from decimal import Decimal

import pytest

from chordwise.domain import value_in_quote
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.answers import quality_of
from chordwise.domain.facts import facts
from chordwise.domain.grounding import Source, ground
from chordwise.domain.json_values import JsonObject, JsonValue

EXTRACTION = analysis_for(AnalysisType.EXTRACTION)


def test_a_long_title_with_further_names_is_not_in_its_quote() -> None:
    """Two rows that were merged into one are found, and prose is not judged."""
    title = "Consulting and Product Development Agreement"
    merged = f"{title} and Emerald Health Nutraceuticals Inc. of Vancouver"

    assert value_in_quote.occurs_in(merged, title) is False
    amended = f"{title} as amended and restated in full in May"
    assert value_in_quote.occurs_in(amended, title) is None


@pytest.mark.parametrize("value", [None, True])
def test_incomparable_values_are_not_judged(value: JsonValue) -> None:
    assert value_in_quote.occurs_in(value, "x", "") is None


SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "total": {"type": "number"},
        "rows": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "amount": {"type": "number"},
                    "vat": {"enum": ["Full", "Reduced"]},
                },
            },
        },
    },
}
TEXT = "Total: 25.00\nBolts 12.50 EUR\nNuts 12.50 EUR\n"


def judged(total: float, amount: float) -> JsonObject:
    answer: JsonObject = {
        "data": {"total": total, "rows": [{"name": "Bolts", "amount": amount, "vat": "Full"}]},
        "evidence": [
            {"path": "/total", "quote": "Total: 25.00", "confidence": 9},
            {"path": "/rows/0", "quote": "Bolts 12.50 EUR", "confidence": 9},
        ],
    }
    return EXTRACTION.with_marks(ground(answer, Source(TEXT)), AnalysisOptions(schema=SCHEMA))


def test_values_outside_their_quotes_lower_the_quality() -> None:
    """A quote counts by the share of its values; choices of the schema do not count."""
    assert quality_of(judged(25, 12.5), repaired=False) == 1.0
    assert quality_of(judged(52, 12.5), repaired=False) == 0.5
    assert quality_of(judged(25, 21.5), repaired=False) == 0.75
    assert value_in_quote.values_not_in_quotes(judged(52, 21.5)) == ["/total", "/rows/0/amount"]


def test_each_fact_has_whether_its_value_is_in_the_quote() -> None:
    """This includes rows with one quote; null means not judged.

    A number without a currency gets that of a quote with the same number.
    """
    right, wrong = (list(facts(judged(25, amount), EXTRACTION)) for amount in (12.5, 21.5))

    assert {fact.path: fact.value_in_quote for fact in wrong} == {
        "/data/total": True,
        "/data/rows/0/name": True,
        "/data/rows/0/amount": False,
        "/data/rows/0/vat": None,
    }
    assert [(fact.number, fact.currency) for fact in right if fact.number] == [
        (25, None),
        (Decimal("12.5"), "EUR"),
    ]
    assert {fact.currency for fact in wrong} == {None}


def test_marks_of_rows_are_kept_when_answers_are_merged() -> None:
    options = AnalysisOptions(schema=SCHEMA)

    merged = EXTRACTION.merge([judged(25, 12.5), judged(25, 21.5)], options)

    assert value_in_quote.values_not_in_quotes(merged) == ["/rows/1/amount"]
    assert EXTRACTION.with_marks(merged, options) == merged


def test_values_without_evidence_are_reported() -> None:
    """Neither they nor their parents have evidence; only kinds that are judged are reported."""
    text: JsonObject = {"type": "string"}
    row: JsonObject = {"type": "object", "properties": {"name": text, "paid": {"type": "boolean"}}}
    schema: JsonObject = {
        "type": "object",
        "properties": {
            "supplier": text,
            "total": {"type": "number"},
            "currency": {"enum": ["EUR", "USD"]},
            "rows": {"type": "array", "items": row},
        },
    }
    answer: JsonObject = {
        "data": {
            "supplier": "Ghost Holdings",
            "total": 9,
            "currency": "EUR",
            "rows": [{"name": "Bolt 1", "paid": True}, {"name": "Bolt 2", "paid": False}],
        },
        "evidence": [
            {"path": "", "quote": "Invoice"},
            {"path": "/nowhere", "quote": "Invoice"},
            {"path": "/total", "quote": "9"},
            {"path": "/rows/0", "quote": "Bolt 1"},
        ],
    }

    paths = EXTRACTION.without_evidence(answer, AnalysisOptions(schema=schema))

    assert paths == ["/supplier", "/rows/1/name"]
