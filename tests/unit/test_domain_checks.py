"""Tests of the checks between values of an answer, and of their validation."""

from __future__ import annotations

import pytest

from chordwise.domain import checks, grounding, validation
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType, Example
from chordwise.domain.grounding import Source
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.errors import UsageError

LINE: JsonObject = {
    "type": "object",
    "properties": {
        "amount": {"type": ["number", "string", "null"]},
        "start": {"type": "string"},
        "end": {"type": "string"},
        "parts": {"type": "array", "items": {"type": "number"}},
    },
}
PROPERTIES: JsonObject = {
    "lines": {"type": "array", "items": LINE},
    "others": {"type": "array", "items": LINE},
    "total": {"type": ["number", "string", "null"]},
    "net": {"type": "number"},
    "method": {"type": "string"},
    "iban": {"type": ["string", "null"]},
}
SUM: JsonObject = {"check": "sum", "of": "/lines/*/amount", "equals": "/total"}
ORDER: JsonObject = {"check": "order", "before": "/lines/*/start", "after": "/lines/*/end"}
NET: JsonObject = {"check": "compare", "left": "/net", "operator": "<=", "right": "/total"}
IBAN: JsonObject = {"check": "required", "field": "/iban", "if": "/method", "equals": "Transfer"}


def with_checks(*declared: JsonValue) -> JsonObject:
    return {"type": "object", "properties": PROPERTIES, "x-checks": list(declared)}


def failing(declared: JsonObject, data: JsonObject) -> list[tuple[str, str | None, str | None]]:
    schema = validation.check_schema(with_checks(declared))
    failures = checks.failures({"data": data, "evidence": []}, AnalysisOptions(schema=schema))
    return [(failure.path, failure.found, failure.expected) for failure in failures]


def amounts(*values: JsonValue) -> list[JsonValue]:
    return [{"amount": value} for value in values]


@pytest.mark.parametrize(
    ("declared", "data"),
    [
        (SUM, {"lines": amounts(0.1, 0.2), "total": 0.3}),
        (SUM, {"lines": amounts("1,200.50 EUR", 10), "total": "€ 1,210.50"}),
        (SUM | {"tolerance": 0.05}, {"lines": amounts(10, 20), "total": 30.05}),
        (SUM | {"equals": 100}, {"lines": amounts(60, 40)}),
        (SUM | {"of": "/lines/*/parts/*", "equals": "/lines/*/amount"},
         {"lines": [{"amount": 3, "parts": [1, 2]}, {"amount": 7, "parts": [7]}]}),
        (SUM | {"of": ["/net", "/lines/*/amount"]}, {"net": 1, "lines": amounts(2), "total": 3}),
        (ORDER, {"lines": [{"start": "2024-01-31", "end": "1 March 2024"}, {"start": "May"}]}),
        (ORDER, {"lines": [{"start": "2024-01-31", "end": "2024-01-31"}]}),
        (NET, {"net": 84.03, "total": 100}),
        (NET | {"right": 84}, {"net": 84}),
        (NET | {"left": "/method", "operator": "=", "right": "Card"}, {"method": " card"}),
        (IBAN, {"method": "card", "iban": None}),
        (IBAN, {"method": "transfer", "iban": "DE02"}),
        (SUM, {}),
        (SUM, {"lines": [], "total": 30}),
        (SUM, {"lines": amounts(10, None), "total": 30}),
        (SUM, {"lines": amounts(10, "1.500"), "total": 30}),
        (SUM, {"lines": amounts(10), "total": None}),
        (ORDER, {"lines": [{"start": "01/02/2024", "end": "2023-01-01"}]}),
        (NET, {"net": 10}),
        (NET | {"right": "EUR 5"}, {"net": "USD 10"}),
        (NET | {"left": "/method", "right": "a"}, {"method": "b"}),
    ],
)  # fmt: skip
def test_checks_that_hold_or_do_not_apply_pass(declared: JsonObject, data: JsonObject) -> None:
    """Amounts are parsed as written; missing and ambiguous values are not checked."""
    assert failing(declared, data) == []


@pytest.mark.parametrize(
    ("declared", "data", "failed"),
    [
        (SUM, {"lines": amounts(10, 20.01), "total": 30}, ("/data/total", "30.01", "30")),
        (SUM | {"equals": 100}, {"lines": amounts(60, 41)},
         ("/data/lines/*/amount", "101", "100")),
        (SUM | {"of": "/lines/*/parts/*", "equals": "/lines/*/amount"},
         {"lines": [{"amount": 3, "parts": [1, 2]}, {"amount": 7, "parts": [6]}]},
         ("/data/lines/1/amount", "6", "7")),
        (ORDER, {"lines": [{"start": "2024-01-31", "end": "2024-03-01"},
                           {"start": "31 May 2024", "end": "2024-03-01"}]},
         ("/data/lines/1/start", "31 May 2024", "2024-03-01")),
        (ORDER | {"strict": True}, {"lines": [{"start": "2024-01-31", "end": "2024-01-31"}]},
         ("/data/lines/0/start", "2024-01-31", "2024-01-31")),
        (SUM | {"of": ["/net", "/lines/*/amount"]}, {"net": 1, "lines": amounts(2), "total": 4},
         ("/data/total", "3", "4")),
        (NET, {"net": 101, "total": 100}, ("/data/net", "101", "100")),
        (NET | {"left": "/method", "operator": "!=", "right": "Card"}, {"method": "card"},
         ("/data/method", "card", "Card")),
        (IBAN, {"method": "transfer", "iban": None}, ("/data/iban", None, None)),
        (IBAN, {"method": "transfer"}, ("/data/iban", None, None)),
    ],
)  # fmt: skip
def test_checks_that_do_not_hold_fail(
    declared: JsonObject, data: JsonObject, failed: tuple[str, str | None, str | None]
) -> None:
    assert failing(declared, data) == [failed]


def test_a_check_reports_the_message_of_the_user() -> None:
    check = SUM | {"message": "the invoice does not add up"}
    output: JsonObject = {"data": {"lines": amounts(1), "total": 4711}}

    (usual,) = checks.failures(output, AnalysisOptions(schema=with_checks(SUM)))
    (said,) = checks.failures(output, AnalysisOptions(schema=with_checks(check)))

    assert usual.problem == "the sum of /lines/*/amount is not /total"
    assert said.problem == "the invoice does not add up"


@pytest.mark.parametrize(
    ("declared", "complaint"),
    [
        ("sum", '"check" has to be one of sum, order, compare, required'),
        ({"check": "eval", "of": "1 + 1"}, '"check" has to be one of'),
        ({"check": "sum", "of": "/lines/*/amount"}, '"equals" is a required property'),
        (SUM | {"tollerance": 1}, "'tollerance' was unexpected"),
        (SUM | {"tolerance": -1}, '"tolerance": -1 is less than the minimum of 0'),
        (SUM | {"of": "lines"}, '"of": "lines" does not match'),
        (SUM | {"of": "/lines/*/price"}, "the schema does not define /lines/*/price"),
        (NET | {"operator": "=="}, '"operator": "==" is not one of'),
        (ORDER | {"after": "/others/*/end"}, "are in different lists"),
    ],
)
def test_an_invalid_check_is_rejected(declared: JsonValue, complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        validation.check_schema(with_checks(NET, declared))

    assert caught.value.what.startswith("x-checks, check 2: ")
    assert complaint in caught.value.what


def test_an_ungrounded_quote_from_an_example_fails() -> None:
    shown = Example(analysis_type=AnalysisType.SUMMARY, text="The mill burned down.", answer={})
    options = AnalysisOptions(examples=(shown,))
    output: JsonObject = {
        "key_findings": [
            {"quote": "the mill burned", "grounded": False},
            {"quote": "the mill burned", "grounded": True},
            {"quote": "invented otherwise", "grounded": False},
        ],
        "data": {"quote": "the mill burned", "grounded": False},
    }

    (leak,) = checks.failures(output, options)

    assert (leak.check, leak.path) == ("example", "/key_findings/0/quote")
    assert checks.failures_of_part(output, AnalysisOptions()) == ()


def test_a_row_that_repeats_a_place_is_reported() -> None:
    """Equal rows pass if the text has as many of them."""
    options = AnalysisOptions(schema={"properties": {"lines": {"type": "array", "items": LINE}}})

    def failing_in(text: str) -> list[tuple[str, str]]:
        rows: list[JsonValue] = [{"amount": amount} for amount in (3, 4, 3, 3)]
        quotes = ("Tea: 3 EUR", "Milk: 4 EUR", "Tea: 3 EUR", "Tea: 3 EUR")
        entries: list[JsonValue] = [
            {"path": f"/lines/{row}", "quote": quote} for row, quote in enumerate(quotes)
        ]
        answer: JsonObject = {"data": {"lines": rows}, "evidence": entries}
        failures = checks.failures_of_part(grounding.ground(answer, Source(text)), options)
        return [(failure.path, failure.problem) for failure in failures]

    text = "Tea: 3 EUR\nMilk: 4 EUR\nTea: 3 EUR\n"

    assert failing_in(f"{text}Tea: 3 EUR\n") == []
    problem = "1 row repeats the values of another one at the same place"
    assert failing_in(text) == [("/data/lines", problem)]


def test_models_do_not_see_the_checks() -> None:
    """A model that knew them could make its answer fit."""
    options = AnalysisOptions(schema=with_checks(SUM))

    assert "x-checks" not in str(analysis_for(AnalysisType.EXTRACTION).schema(options))


@pytest.mark.parametrize(("read", "failed"), [(1, []), (2, []), (3, ["/fields/towns"])])
def test_a_value_may_be_repeated_as_often_as_its_quote_has_it(read: int, failed: list[str]) -> None:
    quote = "The train from Hull goes by York to Hull."
    field: JsonObject = {"item": "towns", "status": "found", "value": "Hull", "quote": quote}
    output = grounding.ground({"fields": [field] * read}, Source(quote))

    failures = checks.failures_of_part(output, AnalysisOptions(instructions="towns"))

    assert [failure.path for failure in failures] == failed
    assert {failure.check for failure in failures} <= {"repetition"}


STREET = "One Birch Park Way, Cupertino, California 95014"


@pytest.mark.parametrize(
    ("item", "value", "quote", "kind"),
    [
        ("registrant", "Birch Park Way", STREET, "an address"),
        ("name of the registrant", STREET, STREET, "an address"),
        ("company", "P.O. Box 12, Springfield", "", "an address"),
        ("parties", "Cupertino, California", STREET, "a place"),
        ("name", "June 1, 2020", "", "a date"),
        ("supplier", "001-2345", "", "a number"),
        ("supplier", "3M", "", ""),
        ("registrant", "1-800-BIRCH.COM, INC.", "", ""),
        ("parties", "Birch Street Bank", f"Birch Street Bank, {STREET}", ""),
        ("company", "Birch", f"Birch, {STREET}", ""),
        ("company address", STREET, STREET, ""),
        ("date of the parties", "June 1, 2020", "", ""),
        ("document name", "June 1, 2020", "", ""),
    ],
)
def test_an_address_a_place_a_date_or_a_number_is_no_name(
    item: str, value: str, quote: str, kind: str
) -> None:
    rows: JsonObject = {item: [{"name": value}]}
    evidence: list[JsonValue] = [{"path": f"/{item}/0/name", "quote": quote}]
    field: JsonObject = {"item": item, "status": "found", "value": value, "quote": quote}

    of_item = checks.failures_of_part({"fields": [field]}, AnalysisOptions())
    of_schema = checks.failures_of_part({"data": {item: value}, "evidence": []}, AnalysisOptions())
    of_row = checks.failures_of_part({"data": rows, "evidence": evidence}, AnalysisOptions())

    expected = [f"the value is {kind}, not a name"] if kind else []
    assert [failure.problem for failure in of_item] == expected
    assert not of_schema or [failure.problem for failure in of_schema] == expected
    assert not of_row or [failure.problem for failure in of_row] == expected
