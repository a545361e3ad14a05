"""Tests of detecting passages of prose that seem to be records without a row."""

from __future__ import annotations

import textwrap

import pytest

from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.answers import Answer
from chordwise.domain.grounding import Source, ground
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.unanswered_passages import SparseList, sparse_lists
from chordwise.pipeline.asking.assessment import AssessedAnswer
from tests.fakes.completion_requests import a_task

INCIDENTS: dict[str, JsonObject] = {
    "Pump P-101 failed on 3 March 2021 and was out of service for a day.": {
        "pump": "P-101",
        "date": "2021-03-03",
    },
    "On 19 March 2021 a seal of P-207 had to be renewed.": {"pump": "P-207", "date": "2021-03-19"},
    "The noise in P-112 was reported by the night shift (2 April 2021).": {
        "pump": "P-112",
        "date": "2021-04-02",
    },
    "Since 11 May 2021, P-330 has been running with a new motor.": {
        "pump": "P-330",
        "date": "2021-05-11",
    },
    "Oil was found below P-118. A fitter came on 30 May 2021.": {
        "pump": "P-118",
        "date": "2021-05-30",
    },
    "Nobody knows why P-204 stopped on 8 June 2021.": {"pump": "P-204", "date": "2021-06-08"},
    "A short circuit of 24 July 2021 destroyed the control of P-109.": {
        "pump": "P-109",
        "date": "2021-07-24",
    },
    "P-315 overheated; the inspection of 5 August 2021 found dust in its fan.": {
        "pump": "P-315",
        "date": "2021-08-05",
    },
}
FEES: dict[str, JsonObject] = {
    "Birch Consulting Ltd received $14,000 for the plan.": {
        "payee": "Birch Consulting Ltd",
        "fee": 14000,
    },
    "For printing, $2,380 went to Harbour Press Inc. in spring.": {
        "payee": "Harbour Press Inc.",
        "fee": 2380,
    },
    "Legal advice was not cheap: Whitman Partners LLP asked for $31,200.": {
        "payee": "Whitman Partners LLP",
        "fee": 31200,
    },
    "Of the fund, $4,400 supported the Riverside Theatre.": {
        "payee": "Riverside Theatre",
        "fee": 4400,
    },
    "Snow removal by Alpine Services cost the town $9,150.": {
        "payee": "Alpine Services",
        "fee": 9150,
    },
    "Castle Security Ltd was given $1,060 for guarding the fair.": {
        "payee": "Castle Security Ltd",
        "fee": 1060,
    },
    "Finally the treasurer released $650 to Meadow Catering after a dispute.": {
        "payee": "Meadow Catering",
        "fee": 650,
    },
    "The roof, done by Northern Timber in May, came to $7,750.": {
        "payee": "Northern Timber",
        "fee": 7750,
    },
}
DATED = [
    "The agreement was signed on 3 January 2017.",
    "A first delivery was accepted on 20 March 2017.",
    "Prices were reviewed on 1 July 2017, without result.",
    "The warehouse moved on 15 October 2017.",
    "Birch Logistics Ltd terminated the agreement on 14 June 2019.",
    "The keys were returned on 30 June 2019.",
    "Stock was counted on 1 July 2019.",
    "The last invoice followed on 12 July 2019.",
    "The file was closed on 3 September 2019.",
]


def of_rows(text: str, *rows: tuple[str, JsonObject]) -> tuple[JsonObject, AnalysisOptions]:
    """Return a grounded answer with these rows, each with its quote, and its options."""
    data: list[JsonValue] = [row for _, row in rows]
    evidence: list[JsonValue] = [
        {"path": f"/rows/{number}", "quote": quote} for number, (quote, _) in enumerate(rows)
    ]
    output = ground({"data": {"rows": data}, "evidence": evidence}, Source(text))
    items: JsonObject = {"type": "object", "properties": {name: {} for name in rows[0][1]}}
    schema: JsonObject = {"properties": {"rows": {"type": "array", "items": items}}}
    return output, AnalysisOptions(schema=schema)


def sparse(text: str, *rows: tuple[str, JsonObject]) -> tuple[SparseList, ...]:
    output, options = of_rows(text, *rows)
    task = a_task(AnalysisType.EXTRACTION, options=options)
    return tuple(sparse_lists(text, output, task, ()))


@pytest.mark.parametrize("end", [" ", "\n", "\n\n"])
@pytest.mark.parametrize("records", [INCIDENTS, FEES], ids=["incidents", "fees"])
def test_one_row_of_passages_with_the_same_kinds_of_values_is_reported(
    records: dict[str, JsonObject], end: str
) -> None:
    """The passages share neither words nor an order; some have two sentences, or wrapped lines."""
    every = list(records.items())
    wrapped = [textwrap.fill(record, 40) if end == "\n\n" else record for record in records]
    text = (
        f"Report of the year\n\nWe thank the office.\n\n{end.join(wrapped)}\n\nIt was a hard year."
    )

    for number in (0, 3, 7):
        (sparse_list,) = sparse(text, (wrapped[number], every[number][1]))
        assert sparse_list.passages == 8 or (end == " " and sparse_list.passages > 5)
    rows = [(quote, row) for quote, (_, row) in zip(wrapped, every, strict=True)]
    assert sparse(text, *rows) == sparse(text, *rows[::3]) == ()


@pytest.mark.parametrize("end", [" ", "\n", "\n\n"])
def test_one_row_among_passages_without_its_other_values_is_not_reported(end: str) -> None:
    text, quote = end.join(DATED), DATED[4]
    party: JsonObject = {"date": "2019-06-14", "party": "Birch Logistics Ltd"}
    kind: JsonObject = {"date": "14 June 2019", "kind": "termination"}

    assert sparse(text, (quote, party)) == ()
    assert sparse(text, (quote, kind)) == ()


def test_one_value_of_an_item_for_several_is_reported() -> None:
    text, quote = "\n".join(INCIDENTS), next(iter(INCIDENTS))
    options = AnalysisOptions(instructions="incidents")
    field: JsonObject = {"item": "incidents", "status": "found", "value": "failure", "quote": quote}
    output = ground({"fields": [field]}, Source(text))

    task = a_task(AnalysisType.EXTRACTION, options=options)
    (sparse_list,) = sparse_lists(text, output, task, ())

    assert (sparse_list.path, sparse_list.rows, sparse_list.passages > 5) == (
        "/fields/incidents",
        1,
        True,
    )


def test_a_sparse_list_lowers_the_quality_and_needs_review() -> None:
    text, first = "\n".join(INCIDENTS), next(iter(INCIDENTS.items()))
    output, options = of_rows(text, first)
    task = a_task(AnalysisType.EXTRACTION, options=options)

    answer = Answer(
        output=output,
        confidence=1.0,
        quality=1.0,
        repaired=False,
        provider="scripted",
        model="script-1",
        prompt_version="1",
    )

    assessed = AssessedAnswer(answer=answer).with_unread_records(
        text, task, [(0, len(text))], lambda *_: ""
    )

    assert assessed.answer.missing_rows == ()
    assert assessed.quality(task) == 1 / 8
    _, _, doubts = assessed.assessment([output], task)
    assert any("7 rows seem to be missing" in doubt.sentence for doubt in doubts)
