"""Tests of the reasons to check values."""

from __future__ import annotations

import pytest

from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask, AnalysisType, Stage
from chordwise.domain.facts import Fact
from chordwise.domain.json_values import JsonObject, JsonValue, objects
from chordwise.domain.trust import (
    WHOLE,
    Doubt,
    Reason,
    by_path,
    chosen_from_rows,
    contradictions,
    disagreements,
    named_elsewhere,
    of_other_type,
    with_doubts,
)

KIND = AnalysisType.EXTRACTION
TASK = AnalysisTask(analysis_type=KIND, stage=Stage.ANALYZE)
LEASE = (
    "LEASE of May 9, 2004."
    + " The parties have agreed on the following." * 15
    + " This lease is made as of the 1st day of March, 2003 by Miller, Inc. and Smith, Inc."
    + " The tenant keeps the premises clean." * 10
    + " The term begins on April 5, 2003 (the “Commencement Date”), and the deposit is 500 EUR."
    + " Heating is included." * 10
    + " The landlord had bought the house on June 7, 1998 from a cousin who lived in Lindau."
    + " Repairs are made by the landlord." * 10
    + " This agreement is governed by the laws of Bavaria."
)


def fields(*values: tuple[str, str | None], text: str = LEASE) -> JsonObject:
    """Return an extraction with these items and values, each quoted as it is."""
    listed: list[JsonValue] = []
    for item, value in values:
        start = text.find(value) if value else -1
        span: JsonObject = {"start_char": start, "end_char": start + len(value or "")}
        status = "found" if value else "not mentioned"
        said: JsonObject = {"item": item, "status": status, "value": value, "quote": value}
        marks: JsonObject = {"grounded": start >= 0, "value_in_quote": True}
        listed.append({**said, **(span if start >= 0 else {}), **marks})
    return {"fields": listed}


@pytest.mark.parametrize(
    ("item", "value", "is_elsewhere"),
    [
        ("commencement date", "April 5, 2003", False),
        ("commencement date", "June 7, 1998", True),
        ("agreement date", "1st day of March, 2003", False),
        ("governing law", "Bavaria", False),
        ("governing law", "Lindau", True),
        ("deposit", "500 EUR", False),
        ("purchase date", "June 7, 1998", False),  # no passage names it
        ("commencement date", "May 9, 2004", False),  # in the first lines
        ("parties", "Lindau", False),  # a list
        ("date", "June 7, 1998", False),  # any date will do
    ],
)
def test_a_value_is_doubted_if_another_passage_names_the_item(
    item: str, value: str, *, is_elsewhere: bool
) -> None:
    paths = named_elsewhere(LEASE, fields((item, value)), TASK)

    assert paths == (["/fields/0"] if is_elsewhere else [])


def test_a_date_of_another_paragraph_is_no_value_of_an_item() -> None:
    """The date of a running head may stand close to a passage that names the item."""
    term = "The term begins on April 5, 2003 (the “Commencement Date”)"
    text = LEASE.replace(term, "\n\nFiled on 8/15/2019\n\nThe term begins on the commencement")
    answer = fields(("commencement date", "June 7, 1998"), text=text)

    assert named_elsewhere(text, answer, TASK) == []
    assert named_elsewhere(text.replace("\n", " "), answer, TASK) == ["/fields/0"]


ROWS = """Company,Country,Total
Acme Ltd,France,1000
Beta GmbH,Germany,2000
Total,,3000
"""
PAIRS = "| Company | Fee |\n|---|---|\n| Acme Ltd | EUR 5.50 |\n| Beta GmbH | USD 6 |\n"
BILLS = '[{"company": "Acme Ltd", "billTotal": 5}, {"company": "Beta", "billTotal": 6}]'
BILL = '{"fee": 9, "lines": [{"fee": 4, "tax": 1}, {"fee": 5, "tax": 2}], "end": {"tax": 3}}'


@pytest.mark.parametrize(
    ("item", "value", "text", "is_one"),
    [
        ("company", "Acme Ltd", ROWS, True),
        ("companies", "Acme Ltd", ROWS, False),  # a list
        ("customer", "Acme Ltd", ROWS, False),  # no column has this name
        ("total", "1000", ROWS, True),
        ("total", "3000", ROWS, False),  # its row is named like the item
        ("company", "Acme Ltd", "\n".join(ROWS.splitlines()[:2]), False),
        ("company", "Acme Ltd", ROWS.replace("Beta GmbH", "Acme Ltd")[:-12], False),
        ("company", "Acme Ltd", ROWS.replace(",", " | "), True),
        ("company", "Acme Ltd", "Company,Acme Ltd\nCountry,France\nTotal,3000\n", False),
        ("company", "Acme Ltd", PAIRS, True),
        ("company", "Acme Ltd", "Company,Acme Ltd\nFee,EUR 5\nTerm,2 years\n", False),
        ("company", "Acme Ltd", BILLS, True),
        ("bill total", "5", BILLS, True),
        ("total", "5", BILLS, False),
        ("company", "Acme Ltd", BILLS[1:-1].replace("}, ", "}\n"), True),
        ("fee", "9", BILL, False),
        ("tax", "1", BILL, False),
        ("company", "Acme Ltd", f"Quoted: {BILLS}", False),
        ("company", "Acme Ltd", f"{'[' * 5_000}{BILLS}{']' * 5_000}", False),
        ("company", "Acme Ltd", "Company,Acme Ltd\nFee,EUR 5\nRebate,EUR 2\n", False),
        ("company", "Acme Ltd", "| Company | Acme Ltd |\n|---|---|\n| A | 5 |\n| B | 6 |\n", False),
    ],
)
def test_a_value_of_one_of_several_rows_is_doubted(
    item: str, value: str, text: str, *, is_one: bool
) -> None:
    paths = chosen_from_rows(text, fields((item, value), text=text), TASK)

    assert paths == (["/fields/0"] if is_one else [])


def disagreeing(*parts: JsonObject, output: JsonObject) -> list[str]:
    """Return the paths of an output to check for the contradictions of chunks."""
    rows = contradictions(parts, output, TASK, is_by_rule=True)
    return list(disagreements(rows, output))


def test_chunks_disagree_on_single_values_only() -> None:
    """The same value in more words, or as another form of a date or number, is no disagreement."""
    merged = fields(
        *(("law", "Bavaria"), ("law", "Saxony"), ("start", "April 5, 2003"), ("start", "5.4.2003")),
        *(("tenants", "Miller"), ("tenants", "Smith")),
        *(("landlord", "Ann Ash"), ("landlord", "Ash")),
    )

    assert disagreeing(merged, merged, output=merged) == ["/fields/0", "/fields/1"]
    assert disagreeing(merged, output=merged) == []


def test_chunks_disagree_on_members_of_a_schema_outside_of_lists() -> None:
    parts: list[JsonObject] = [
        {"data": {"total": total, "law": law, "rows": [{"id": total}]}}
        for total, law in ((5, None), (7, "Bavaria"))
    ]
    merged: JsonObject = {"data": {"total": 5, "law": "Bavaria", "rows": [{"id": 5}, {"id": 7}]}}

    assert disagreeing(*parts, output=merged) == ["/data/total"]


@pytest.mark.parametrize(
    ("kept", "other"),
    [
        ("5,000 EUR", "EUR 5000"),
        ("5,000 EUR", "€ 5,000.00"),
        ("Acme Ltd.", "ACME LTD"),
        ("laws of Bavaria", "law of Bavaria"),
        ("April 5, 2003", "2003-04-05"),
        (5, "5.0"),
    ],
)
def test_the_same_value_in_another_form_is_no_contradiction(
    kept: JsonValue, other: JsonValue
) -> None:
    parts: list[JsonObject] = [{"data": {"fee": kept}}, {"data": {"fee": other}}]

    assert contradictions(parts, parts[0], TASK, is_by_rule=False) == []


def test_each_other_value_is_recorded_once_with_its_quote() -> None:
    quoted: JsonObject = {"path": "/fee", "quote": "a fee of 7", "start_char": 3, "end_char": 13}
    others: list[JsonObject] = [
        {"data": {"fee": fee}, "evidence": [quoted]} for fee in (7, "7.0", *range(100, 140))
    ]
    output: JsonObject = {"data": {"fee": 5}, "evidence": []}

    rows = contradictions([output, *others], output, TASK, is_by_rule=False)

    span = {"quote": "a fee of 7", "start_char": 3, "end_char": 13}
    because = {"kept_because": "decided by the model"}
    assert rows[0] == {"path": "/data/fee", "value": "7", **span, **because}
    assert [row["value"] for row in rows] == ["7", *map(str, range(100, 119))]


@pytest.mark.parametrize(
    ("confidence", "start", "reason", "to_check"),
    [
        (9, 5_000, "higher confidence", []),
        (4, 2_000, "first in the document", []),
        (4, 5_000, "first in the document", ["/fields/0"]),
    ],
)
def test_the_one_value_that_the_built_in_model_keeps_is_doubted_unless_it_was_surer_of_it(
    confidence: int, start: int, reason: str, to_check: list[str]
) -> None:
    """The first page of a document has its own dates; later passages mention others."""
    other, *kept = (
        {"confidence": 4, **field, "start_char": start, "end_char": start + 7}
        for field in objects(fields(("law", "Saxony"), ("law", "Bavaria"))["fields"])
    )
    output: JsonObject = {"fields": [{**field, "confidence": confidence} for field in kept]}

    (row,) = contradictions([{"fields": [other]}, output], output, TASK, is_by_rule=True)

    assert (row["value"], row["kept_because"]) == ("Saxony", reason)
    assert list(disagreements([row], output)) == to_check


def test_a_weaker_contradiction_does_not_remove_the_doubt() -> None:
    claims = (("EUR 300", 3, 9_000), ("EUR 200", 3, 9_500), ("EUR 100", 2, 9_900))
    parts: list[JsonObject] = [
        {
            "fields": [
                {**field, "confidence": claim, "start_char": start, "end_char": start + 7}
                for field in objects(fields(("fee", value))["fields"])
            ]
        }
        for value, claim, start in claims
    ]

    for order in (parts, [parts[0], parts[2], parts[1]]):
        assert disagreeing(*order, output=parts[0]) == ["/fields/0"]


def test_reasons_belong_to_the_values_that_they_are_about() -> None:
    output: JsonObject = {"data": {"total": 5, "rows": [{"id": 1}]}, "evidence": []}
    answer_doubts = (
        Doubt(sentence="Checks failed: sum.", reason=Reason.CHECK_FAILED, paths=["/data/total"]),
        Doubt(sentence="1 of 2 chunks failed."),
        Doubt(sentence="Lost.", reason=Reason.QUOTE_NOT_FOUND, paths=["/data/total", "/data/x"]),
    )
    facts = [
        Fact(path="/data/total", item="total", grounding="none", value_in_quote=False),
        Fact(path="/data/rows/0/id", item="rows.id", value_in_quote=False),
    ]

    doubts = by_path(answer_doubts, output, KIND)

    assert doubts == {
        "/data/total": [Reason.CHECK_FAILED],
        WHOLE: ["1 of 2 chunks failed.", "Lost."],
    }
    assert [fact.doubts for fact in with_doubts(facts, doubts)] == [
        [Reason.CHECK_FAILED, Reason.QUOTE_NOT_FOUND],
        [Reason.VALUE_NOT_IN_QUOTE],
    ]
    of_label = by_path(answer_doubts, {"primary_label": "letter"}, AnalysisType.CLASSIFICATION)
    assert of_label == {
        "/primary_label": [Reason.CHECK_FAILED, Reason.QUOTE_NOT_FOUND],
        WHOLE: ["1 of 2 chunks failed."],
    }


@pytest.mark.parametrize(
    ("item", "value", "is_other"),
    [
        ("fee: money", "US$ 450", False),
        ("fee: money", "TEUR four hundred", True),
        ("due: date", "5 May 2020", False),
        ("due: date", "03/04/2020", True),  # March or April
        ("due: date", None, False),
        ("due date", "on request", False),  # not declared
        ("law: text", "Bavaria", False),
        ("paid: yes/no", "No", False),
        ("paid: yes/no", "in part", True),
    ],
)
def test_a_value_should_have_the_declared_type(
    item: str, value: str | None, *, is_other: bool
) -> None:
    options = AnalysisOptions(items=(item,))

    paths = of_other_type(fields((item.partition(":")[0], value)), options)

    assert paths == (["/fields/0"] if is_other else [])
