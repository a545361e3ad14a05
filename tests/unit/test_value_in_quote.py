"""Tests of checking whether values are in their quotes, and of the effects on an answer."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.domain import value_in_quote
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.answers import quality_of
from chordwise.domain.facts import facts
from chordwise.domain.grounding import Source, ground
from chordwise.domain.json_values import JsonObject, JsonValue

EXTRACTION = analysis_for(AnalysisType.EXTRACTION)


@pytest.mark.parametrize(
    ("value", "quote"),
    [
        ("1,234.50", "a total of 1234.5"),
        ("1.234,50 EUR", "EUR 1,234.50"),
        (1234.5, "Summe 1.234,50"),
        (1500, "Es sind 1.500 Euro"),
        (0.05, "5 % of the price"),
        (-1200, "a loss of (1,200)"),
        (8.74, "Widget B,2,4.37,8.74"),
        (12.5, "x,3,12.50"),
        (2_000_000, "two million dollars"),
        ("30 days", "within thirty days"),
        ("12 of 30 employees", "12 of the 30 employees"),
        ("2024-03-01", "on March 1, 2024"),
        ("2024-03-01", "am 01.03.2024"),
        ("2018-12-25", "25/12/18 8:13"),
        ("2017-07-21", "this twenty-first day of July, 2017"),
        ("March 1, 2024", "2024\u5e743\u67081\u65e5"),
        ("Acme Corp.", "ACME CORPORATION, a company"),
        ("John Smith", "Smith, John"),
        ("State of New York", "the laws of New York"),
        ("Rene Muller", "Ren\u00e9 M\u00fcller"),
        ("INV-2024/001", "Invoice INV-2024/001"),
        ("AB-12-34", "code AB1234"),
        ("\u4f1a\u8b70", "\u4e94\u6708\u306e\u4f1a\u8b70\u306f"),
        ("48,600.00 EUR", "€48,600"),
        ("EUR", "a fee of €48,600"),
        ("CAD 500", "a fee of $500"),
        ("$5 million", "five million dollars ($5,000,000)"),
        ("12 months", "for one (1) year"),
        ("30 days", "within thirty (30) calendar days"),
        ("5 kg", "5000 g of it"),
        ("2/3", "two-thirds of the votes"),
        ("0.99 %", "the prime rate minus 0.99%"),
        (48600, "48\u202f600,00 €"),
        (48600, "CHF 48’600.00"),
        (2500, "\uff12\uff0c\uff15\uff10\uff10\u5186"),
        (500_000, "Rs. 5 lakh"),
        (100_000_000, "a fund of $100m."),
        ("$5 million", "$5\nmillion"),
        (1_000_000, "a fee of ($1,000,000) to the Seller"),
        ("($1,000,000)", "a fee of ($1,000,000) to the Seller"),
        (-1_000_000, "Transfers\t($1,000,000)\t$500,000"),
        (-1_000_000, "Transfers ($1,000,000) ($500,000)"),
        (1_500_000_000, "EUR 1,5 Mrd."),
        (2_350_000, "two million three hundred and fifty thousand"),
        (5, "5–10 days"),
        (10, "5-10 days"),
        (-5, "a change of –5 %"),
        (0.5, "50 basis points"),
        (2.5, "2½ years"),
        (3, "on the third anniversary"),
        ("2021-03-12", "12-Mar-21"),
        ("2021-03", "on 3 March 2021"),
        ("1.2.3", "version 1.2.3"),
        ("Mary Jones", "John Smith and Mary Jones"),
        ("Jones, Mary", "John Smith and Mary Jones"),
        ("Acme Corp and Beta Ltd", "Acme Corp., a Delaware corporation, and Beta Ltd."),
        ("Maple Slate", "1、商品Maple Slate、数量3件、单价7.50元。"),
        ("Acme", "ขายให้Acmeแล้ว"),
        ("DE89370400440532013000", "IBAN DE89 3704 0044 0532 0130 00"),
        ("14:30", "The hearing begins at 2:30 p.m."),
        ("12:30", "um 12.30 Uhr"),
        ("9 a.m. - 5 pm", "open from 09:00 to 17:00"),
        ("00:15", "at 12:15 AM"),
        ("Mueller GmbH", "die Müller GmbH, Berlin"),
        ("Jörg Møller", "Joerg Moeller"),
        ("2024-03-01", "от 1 марта 2024 года"),
        ("2024-07-05", "dne 5. července 2024"),
        (120_000_000, "資本金 1億2000万円"),
        ("1,5 млн рублей", "1500000 RUB"),
        ("500 SEK", "500 kr"),
    ],
)
def test_a_value_is_in_its_quote_in_another_format(value: JsonValue, quote: str) -> None:
    assert value_in_quote.occurs_in(value, quote) is True


@pytest.mark.parametrize(
    ("value", "quote"),
    [
        (150, "a total of 1500"),
        ("Acme Ltd", "Acme GmbH, Berlin"),
        (-67.5, "Total: 67.50 EUR"),
        (437.87, "a price of 2,437.87 EUR"),
        (874, "sold 2,437,874 units, in all, in March"),
        ("1,500.00", "a total of 1,800.00"),
        (1200, "a result of -1200"),
        (31, "within thirty days"),
        ("2024-03-02", "on March 1, 2024"),
        ("Nevada", "the laws of Delaware"),
        ("Ann", "The Annual report"),
        ("Acme Corp.", "Apex Corp."),
        ("Ivan Ivanov", "signed by Petr Ivanov"),
        ("S. Smith", "Jane Smith"),
        ("500 kr", "500 EUR"),
        ("2024-07-05", "dne 5. června 2024"),
        ("Maple", "1、商品Birch、数量3件。"),
        ("INV-2024/001", "Invoice INV-2024/007"),
        ("AB12", "code AB123"),
        ("\u4f1a\u8b70", "\u4e94\u6708"),
        ("48,600.00 USD", "a fee of 48,600.00 EUR"),
        ("USD", "a fee of 48,600.00 EUR"),
        ("30 months", "within thirty (30) days"),
        ("10 weeks", "within ten (10) days"),
        ("5 months", "5-10 days"),
        ("5 %", "50 employees and 5 bps"),
        ("20 °C", "20 °F"),
        ("5 %", "a change of -5 %"),
        (5, "minus 5 degrees"),
        ("3.31 %", "1.1 -3.31%"),
        (-5, "payable in less than 30 days, a Lessor's fee of 5"),
        (1234, "a result of (1,234)"),
        (-1_000_000, "a fee of ($1,000,000) to the Seller"),
        (-5_000, "Five Thousand Dollars ($5,000)"),
        (1_000_000, "| Transfers | ($1,000,000) |"),
        (100, "a fund of $100m"),
        (1234, "a result of $(1,234) thousand"),
        (5, "5 million"),
        (5e9, "5 Mio."),
        (2, "two-thirds of the votes"),
        (600, "48\u202f600 EUR"),
        (1.2, "version 1.2.3"),
        ("1.2.4", "version 1.2.3"),
        ("2021-05-12", "am 05.12.2021"),
        ("2021-04", "on 3 April 2022"),
        ("2021-03-04", "on 4 May 2021 all 3"),
        ("John Jones", "John Smith and Mary Jones"),
        ("John Jones", "Smith, John and Jones, Mary"),
        ("Hartmann AG", "Hartmann GmbH and Weber AG"),
        ("3\u65e5", "13\u65e5\u4ee5\u5185"),
        ("14:30", "at 2:30 a.m."),
        ("09:00", "at 9 pm"),
        ("09:00-17:00", "from 09:00 to 18:00"),
        ("12:30", "in room 12.30"),
        ("Mueller", "Möller"),
        ("Muller", "Mueller"),
    ],
)
def test_a_value_that_is_not_in_its_quote_is_detected(value: JsonValue, quote: str) -> None:
    assert value_in_quote.occurs_in(value, quote) is False


@pytest.mark.parametrize(
    ("value", "quote", "question", "expected"),
    [
        (5, "5 million EUR", "revenue in millions", True),
        (24, "for two years", "term in months", True),
        (2, "for 24 months", "term_years", True),
        (30, "within 30 months", "notice_period_days", False),
        (1234, "a loss of (1,234)", "net_loss", True),
        (1234, "a loss of (1,234)", "net income or loss", False),
    ],
)
def test_the_name_of_an_item_supplies_scale_unit_and_sign(
    value: JsonValue,
    quote: str,
    question: str,
    expected: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    assert value_in_quote.occurs_in(value, quote, question) is expected


def test_a_long_title_with_further_names_is_not_in_its_quote() -> None:
    """Two rows that were merged into one are found, and prose is not judged."""
    title = "Consulting and Product Development Agreement"
    merged = f"{title} and Emerald Health Nutraceuticals Inc. of Vancouver"

    assert value_in_quote.occurs_in(merged, title) is False
    amended = f"{title} as amended and restated in full in May"
    assert value_in_quote.occurs_in(amended, title) is None


@pytest.mark.parametrize(
    ("value", "quote", "question"),
    [
        (None, "x", ""),
        (True, "x", ""),
        ("yes", "x", ""),
        ("paid quarterly", "every three months", ""),
        ("English law", "the laws of England", ""),
        ("The Seller has to pay for all of the damages that it caused", "x", ""),
        ("Contract", "x", "document_type What kind of document it is."),
        ("High Risk", "x", "a summary of the risks"),
        (3, "Ann, Bob and Cid", "number of parties (count them)"),
    ],
)
def test_incomparable_values_are_not_judged(value: JsonValue, quote: str, question: str) -> None:
    assert value_in_quote.occurs_in(value, quote, question) is None


@given(st.text(max_size=60), st.text(max_size=80))
def test_any_value_is_compared_without_an_error(value: str, quote: str) -> None:
    value_in_quote.occurs_in(value, quote)
    assert value_in_quote.occurs_in(value, f"{value} {quote}") is not False


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
