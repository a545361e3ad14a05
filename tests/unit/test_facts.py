"""Tests of the facts of an output."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chordwise.domain import json_values
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.facts import Fact, facts
from chordwise.domain.json_values import JsonObject, JsonValue
from tests.fakes.generated_answers import a_field, grounded_answers, options_for

NUMBERS = st.integers(-(10**300), 10**300) | st.floats(allow_nan=False, allow_infinity=False)
DATA = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["quote", "a/b", "~", "", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


def resolve(path: str, value: JsonValue) -> JsonValue:
    for step in json_values.steps(path):
        value = value[int(step)] if isinstance(value, list) else json_values.as_object(value)[step]
    return value


def facts_of(output: JsonObject, analysis_type: AnalysisType) -> list[Fact]:
    return list(facts(output, analysis_for(analysis_type)))


@pytest.mark.parametrize("analysis_type", list(AnalysisType))
@settings(deadline=None, max_examples=20, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_the_path_of_a_fact_resolves_to_its_value(
    analysis_type: AnalysisType, data: st.DataObject
) -> None:
    (part,) = data.draw(grounded_answers(analysis_type, max_chunks=1))
    output = analysis_for(analysis_type).complete(part, options_for(analysis_type))

    output_facts = facts_of(output, analysis_type)

    assert len({fact.path for fact in output_facts}) == len(output_facts)
    for fact in output_facts:
        value = resolve(fact.path, output)
        if isinstance(value, dict):
            assert fact.quote == (value["quote"] or None)
            assert fact.grounded is value["grounded"]
            assert fact.start_char == value["start_char"]
        assert fact.confidence is None or 0 <= fact.confidence <= 1


@given(DATA)
def test_data_of_a_users_schema_has_one_fact_for_each_value(data: JsonValue) -> None:
    """Members may have any name, such as `quote`; null, `[]` and `{}` are facts, too."""
    output: JsonObject = {"data": data, "evidence": []}
    leaves = {
        path: value
        for path, value in json_values.walk(data, "/data")
        if not (isinstance(value, dict | list) and value) and (path, value) != ("/data", {})
    }

    by_path = {fact.path: fact for fact in facts_of(output, AnalysisType.EXTRACTION)}

    assert by_path.keys() == leaves.keys()
    for path, value in leaves.items():
        assert by_path[path].grounded is None
        if isinstance(value, str):
            assert by_path[path].value == (value or None)
        elif isinstance(value, int | float):
            assert by_path[path].number == Decimal(repr(value + 0))
        else:
            assert by_path[path].value is None


@given(NUMBERS)
def test_the_text_of_a_number_has_all_its_digits(number: float) -> None:
    (fact,) = facts_of({"data": {"n": number}}, AnalysisType.EXTRACTION)

    assert json.loads(fact.value or "") == number


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1_234_567, "1234567"),
        (1_250_000.5, "1250000.5"),
        (3.0, "3"),
        (-0.1, "-0.1"),
        (10**18 + 1, "1000000000000000001"),
        (True, "true"),
    ],
)
def test_numbers_are_written_in_decimal_notation(number: float, text: str) -> None:
    (fact,) = facts_of({"data": {"n": number}}, AnalysisType.EXTRACTION)

    assert (fact.value, float(fact.number or 0)) == (text, float(number))


def test_a_finding_is_one_fact() -> None:
    span: JsonObject = {"quote": "costs 5 USD", "start_char": 10, "end_char": 21}
    location: JsonObject = {"grounded": True, "grounding": "exact", "value_in_quote": True}
    field = a_field("price", "5 USD", 7, **span, **location)
    scored: JsonObject = {
        "quote": "I loved it.",
        "score": 0.75,
        "grounded": False,
        "grounding": "none",
    }

    (fact,) = facts_of({"fields": [field]}, AnalysisType.EXTRACTION)
    (sentence,) = facts_of({"sentences": [scored]}, AnalysisType.SENTIMENT)

    assert fact == Fact(
        path="/fields/0",
        item="price",
        value="5 USD",
        number=Decimal(5),
        currency="USD",
        confidence=0.7,
        quote="costs 5 USD",
        start_char=10,
        end_char=21,
        grounding="exact",
        value_in_quote=True,
    )
    assert (sentence.value, sentence.number) == ("I loved it.", Decimal("0.75"))
    assert (sentence.item, sentence.row_index) == ("sentences", 0)
    assert (sentence.grounded, sentence.start_char) == (False, None)


@pytest.mark.parametrize(
    ("quote", "number"),
    [
        ("a fee of One Million Dollars ($1,000,000) to the Seller", 1_000_000),
        ("the sum of ($1,000,000) is due", 1_000_000),
        ("| Transfers | ($1,000,000) |", -1_000_000),
        ("Transfers ($1,000,000)", -1_000_000),
    ],
)
def test_a_sum_in_brackets_is_negative_in_a_table_only(quote: str, number: int) -> None:
    field = a_field("amount", "($1,000,000)", 7, quote=quote, value_in_quote=True)

    (fact,) = facts_of({"fields": [field]}, AnalysisType.EXTRACTION)

    assert (fact.value, fact.number, fact.currency) == ("($1,000,000)", Decimal(number), "USD")


def test_the_evidence_of_a_summary_is_not_listed_twice() -> None:
    """It repeats the findings; under a user's schema, only the evidence has the quotes."""
    evidence: list[JsonValue] = [{"path": "/total", "quote": "q", "grounded": False}]

    assert facts_of({"evidence": evidence}, AnalysisType.SUMMARY) == []
    (fact,) = facts_of({"data": {}, "evidence": evidence}, AnalysisType.EXTRACTION)
    assert (fact.path, fact.item, fact.value, fact.quote) == ("/evidence/0", "/total", None, "q")


FOUND: JsonObject = {"grounded": True, "grounding": "exact"}
NOT_FOUND: JsonObject = {"grounded": False, "grounding": "none"}
ROWS: JsonObject = {
    "data": {
        "vendor": "Acme",
        "issued": "2026-03-01",
        "paid": None,
        "tags": ["a", "b"],
        "line_items": [
            {"what": "Bolts", "amount": 12.5},
            {"what": "Nuts", "amount": 3, "taxes": [{"rate": 0.2}]},
        ],
        "notes": [],
    },
    "evidence": [
        {"path": "/vendor", "quote": "Acme Ltd", "confidence": 9, **FOUND},
        {"path": "/vendor", "quote": "acme", "confidence": 10, **NOT_FOUND},
        {"path": "/line_items/1", "quote": "Nuts 3", "confidence": 8, **FOUND},
        {"path": "/nowhere", "quote": "lost", "confidence": 8, **FOUND},
    ],
}


def test_a_fact_has_the_evidence_item_and_row_of_its_value() -> None:
    by_path = {fact.path: fact for fact in facts_of(ROWS, AnalysisType.EXTRACTION)}

    vendor = by_path["/data/vendor"]
    assert (vendor.item, vendor.value, vendor.quote) == ("vendor", "Acme", "Acme Ltd")
    assert (vendor.confidence, vendor.grounded) == (0.9, True)
    assert by_path["/data/issued"].date == date(2026, 3, 1)
    tag = by_path["/data/tags/1"]
    assert (tag.item, tag.row_index, tag.parent) == ("tags", 1, None)
    amount = by_path["/data/line_items/1/amount"]
    assert (amount.item, amount.row_index) == ("line_items.amount", 1)
    assert (amount.parent, amount.number) == ("/data/line_items/1", Decimal(3))
    rate = by_path["/data/line_items/1/taxes/0/rate"]
    assert (rate.item, rate.parent) == ("line_items.taxes.rate", "/data/line_items/1/taxes/0")
    # The quote of an invoice line supports each value in it, and no other line.
    assert by_path["/data/line_items/1/what"].quote == "Nuts 3"
    assert by_path["/data/line_items/0/what"].quote is None


def test_items_without_a_value_are_facts_without_a_value() -> None:
    empty = {f.path: f for f in facts_of(ROWS, AnalysisType.EXTRACTION) if f.value is None}

    assert empty.keys() == {"/data/paid", "/data/notes", "/evidence/3"}
    assert (empty["/evidence/3"].item, empty["/evidence/3"].quote) == ("/nowhere", "lost")
