"""Tests of corrected answers: facts with verdicts, and the corrected output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

import pytest

from chordwise.domain import json_values
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.items import without_type
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.learning import fields
from chordwise.domain.learning.corrections import Corrected, correct
from chordwise.domain.learning.feedback_input import FeedbackInput, understand
from chordwise.domain.learning.judgments import AnswerWithConfidence
from chordwise.domain.learning.truths import Remark, Truth, Verdict, from_remarks
from chordwise.domain.places import Place, PlaceKind, Places
from chordwise.errors import UsageError
from tests.fakes.generated_answers import a_field

DATA: JsonObject = {
    "data": {"total": 12.5, "parties": ["Ann", "Bob"], "rows": [{"n": 1}, {"n": 2}]},
    "evidence": [{"path": "/total", "quote": "12.50", "confidence": 9, "grounded": True}],
}
SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "total": {"type": "number"},
        "paid": {"type": "boolean"},
        "issued": {"type": "string", "format": "date"},
        "parties": {"type": "array", "items": {"type": "string"}},
        "rows": {"type": "array", "items": {"$ref": "#/$defs/row"}},
    },
    "$defs": {"row": {"type": "object", "properties": {"n": {"type": "integer"}}}},
}
OPTIONS = AnalysisOptions(schema=SCHEMA)
ITEMS = AnalysisOptions(items=("party",))


def items(*values: tuple[str, str | None]) -> JsonObject:
    """Return an extraction with these values of items; `None` means not mentioned."""
    return {"fields": [a_field(item, value, 7, grounded=True) for item, value in values]}


def corrected_by(
    path: str,
    value: JsonValue,
    output: JsonObject,
    options: AnalysisOptions = OPTIONS,
    verdict: Verdict = Verdict.CORRECTED,
    earlier: Sequence[Remark] = (),
) -> Remark:
    answer = AnswerWithConfidence(
        analysis_type=AnalysisType.EXTRACTION, output=output, confidence=0.5
    )
    entered = FeedbackInput(verdict=verdict, path=path, value=value)
    return understand(answer, entered, options, earlier)


def corrected(output: JsonObject, right: Mapping[str, JsonValue], **truth: object) -> Corrected:
    return correct(output, analysis_for(AnalysisType.EXTRACTION), Truth(fields=right, **truth))  # type: ignore[arg-type]


def field(result: Corrected, place: int) -> JsonObject:
    assert result.output is not None
    return json_values.objects(result.output["fields"])[place]


def objects_of(result: Corrected) -> list[JsonObject]:
    assert result.output is not None
    return json_values.objects(result.output["fields"])


def final(result: Corrected) -> list[tuple[str, str | None, str | None, str | None]]:
    return [(f.item, f.value, f.verdict, f.corrected_value) for f in result.facts]


def test_a_wrong_value_of_an_item_is_replaced() -> None:
    result = corrected(items(("fee", "5 USD"), ("law", "Texas")), {"fee": ["7 EUR"]})

    assert final(result) == [("fee", "5 USD", "corrected", "7 EUR"), ("law", "Texas", None, None)]
    fee = result.facts[0]
    assert (fee.number, fee.currency, fee.quote) == (Decimal(7), "EUR", "5 USD")
    assert field(result, 0)["value"] == "7 EUR"


def test_a_selected_value_has_the_selected_quote() -> None:
    output = items(("fee", "5 USD"), ("fee", "9 USD"))
    remarks = [
        Remark(
            path="/fields/0",
            name="fee",
            verdict=Verdict.CORRECTED,
            judged=["5 USD", "9 USD"],
            corrected=["9 USD", "7 EUR"],
            quote="EUR 7 a year",
            span=(20, 32),
        )
    ]
    truth = from_remarks(AnalysisType.EXTRACTION, remarks)
    second = Place(kind=PlaceKind.PAGE, label="p. 2", number=2, start_char=10, end_char=40)

    result = correct(output, analysis_for(AnalysisType.EXTRACTION), truth, Places([second]))

    fee = result.facts[0]
    assert (fee.quote, fee.start_char, fee.end_char, fee.place) == ("EUR 7 a year", 20, 32, "p. 2")
    assert (fee.grounded, fee.value_in_quote) == (True, True)
    assert result.facts[1].quote == "9 USD"
    assert [field(result, place)["quote"] for place in (0, 1)] == ["EUR 7 a year", "9 USD"]
    assert output == items(("fee", "5 USD"), ("fee", "9 USD"))


def test_right_values_are_kept_wrong_ones_removed_and_missing_ones_added() -> None:
    said = items(("party", "Ann"), ("party", "Bob"), ("party", "Cy"), ("law", None))

    result = corrected(said, {"party": ["ann", "Dan"], "law": ["Texas", "Iowa"]})

    assert final(result) == [
        ("party", "Ann", "approved", None),
        ("party", "Bob", "corrected", "Dan"),
        ("party", "Cy", "rejected", None),
        ("law", None, "corrected", "Texas"),
        ("law", None, "corrected", "Iowa"),
    ]
    assert result.output is not None
    values = [(f["item"], f["value"]) for f in json_values.objects(result.output["fields"])]
    assert values == [("party", "Ann"), ("party", "Dan"), ("law", "Texas"), ("law", "Iowa")]


def test_a_value_corrected_to_nothing_is_not_mentioned() -> None:
    """A value that is corrected to nothing is known to be absent, which a rejected one is not."""
    result = corrected(items(("fee", "5")), {"fee": []})

    assert final(result) == [("fee", "5", "corrected", None)]
    assert result.facts[0].number is None
    assert field(result, 0)["status"] == "not mentioned"


@pytest.mark.parametrize(
    ("later", "verdicts"),
    [
        ((("party", "Ann"), ("party", "Cy")), ["rejected", None]),
        ((("party", "Bob"),), ["rejected"]),
        ((("party", "Cy"), ("law", "Ann")), [None, None]),
    ],
)
def test_a_rejected_value_of_an_item_stays_rejected_beside_others(
    later: tuple[tuple[str, str], ...], verdicts: list[str | None]
) -> None:
    truth = Truth(wrong_fields={"party": ["Ann", "Bob"]})

    result = correct(items(*later), analysis_for(AnalysisType.EXTRACTION), truth)

    assert [fact.verdict for fact in result.facts] == verdicts
    output = result.output or items(*later)
    values = [entry.value for entry in fields.entries(output, "party")]
    assert not {"Ann", "Bob"} & set(values)


@pytest.mark.parametrize(
    ("name", "wrong", "rejected"),
    [
        ("/parties/1", ["Ann"], ["/data/parties/0"]),
        ("/parties", ["Ann", "Cy"], ["/data/parties/0"]),
        ("/rows/0/n", [2], ["/data/rows/1/n"]),
        ("/rows/5", [{"n": 2}], ["/data/rows/1/n"]),
        ("/total", [13], []),
        ("/rows/2/n", [1], []),
    ],
)
def test_a_rejected_value_of_a_list_stays_rejected_where_it_moves(
    name: str, wrong: list[JsonValue], rejected: list[str]
) -> None:
    """A member of a row is only found elsewhere if its value is there once."""
    rows: list[JsonValue] = [{"n": 1}, {"n": 2}, {}, {"n": 1}]
    data = json_values.as_object(DATA["data"]) | {"rows": rows}
    truth = Truth(wrong_fields={name: wrong})

    result = correct({"data": data}, analysis_for(AnalysisType.EXTRACTION), truth)

    assert [fact.path for fact in result.facts if fact.verdict] == rejected


def test_approval_changes_only_the_verdict() -> None:
    result = corrected(items(("fee", "5 USD"), ("law", None)), {"fee": ["5 usd"], "law": []})

    assert [fact.verdict for fact in result.facts] == ["approved", "approved"]
    assert result.output is None


def test_data_is_corrected_by_member() -> None:
    rows: list[JsonValue] = [{"n": 1}, {"n": 5}]

    result = corrected(DATA, {"/total": [13], "/parties": ["Bob", "Dan"], "/rows": rows})

    assert result.output is not None
    assert result.output["data"] == {"total": 13, "parties": ["Bob", "Dan"], "rows": rows}
    assert final(result) == [
        ("total", "12.5", "corrected", "13"),
        ("parties", "Ann", "corrected", "Dan"),
        ("parties", "Bob", "approved", None),
        ("rows.n", "1", "approved", None),
        ("rows.n", "2", "corrected", "5"),
    ]


def test_rows_are_added_and_removed() -> None:
    more = corrected(DATA, {"/rows": [{"n": 1}, {"n": 2}, {"n": 3}]})
    fewer = corrected(DATA, {"/rows": [{"n": 1}]})
    none = corrected(DATA, {"/rows": []})

    added = more.facts[-1]
    assert (added.path, added.parent, added.row_index) == ("/data/rows/2/n", "/data/rows/2", 2)
    assert (added.item, added.value, added.corrected_value) == ("rows.n", None, "3")
    assert final(fewer)[-1] == ("rows.n", "2", "rejected", None)
    assert none.output is not None
    assert json_values.as_object(none.output["data"])["rows"] == []
    assert {fact.verdict for fact in none.facts if fact.item == "rows.n"} == {"rejected"}


def test_a_missing_member_is_added() -> None:
    result = corrected(DATA, {"/issued": ["2026-03-01"]})

    assert result.output is not None
    assert json_values.as_object(result.output["data"])["issued"] == "2026-03-01"
    assert final(result)[-1] == ("issued", None, "corrected", "2026-03-01")


def test_a_missing_list_is_added_with_all_of_its_values() -> None:
    result = corrected(DATA, {"/tags": ["a", "b"]})

    assert result.output is not None
    assert json_values.as_object(result.output["data"])["tags"] == ["a", "b"]
    assert [fact.corrected_value for fact in result.facts[-2:]] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "right", "path"),
    [("rows", [{"n": 7}], "/data/rows/0/n"), ("parties", ["Eve"], "/data/parties/0")],
)
def test_a_missing_list_may_have_one_row(name: str, right: list[JsonValue], path: str) -> None:
    """Only the schema says that it is a list."""
    output: JsonObject = {"data": {}, "evidence": []}
    truth = Truth(fields={f"/{name}": right})

    result = correct(output, analysis_for(AnalysisType.EXTRACTION), truth, schema=SCHEMA)

    assert result.output == {"data": {name: right}, "evidence": []}
    assert [fact.path for fact in result.facts] == [path]


def test_a_missing_member_of_a_row_is_added_to_it() -> None:
    row: JsonObject = {"n": 1, "tags": ["a"]}
    output: JsonObject = {"data": {"rows": [row, {}]}, "evidence": []}

    right: JsonObject = {"/rows/1/n": [2], "/rows/0/tags": ["a", "b"], "/rows/1/by": {"x": 3}}
    result = corrected(output, right)

    assert result.output is not None
    assert result.output["data"] == {
        "rows": [{"n": 1, "tags": ["a", "b"]}, {"n": 2, "by": {"x": 3}}]
    }
    assert [(fact.item, fact.parent, fact.corrected_value) for fact in result.facts[-3:]] == [
        ("rows.n", "/data/rows/1", "2"),
        ("rows.tags", "/data/rows/0", "b"),
        ("rows.by.x", "/data/rows/1", "3"),
    ]


def test_a_label_is_corrected() -> None:
    output: JsonObject = {"primary_label": "letter", "confidence": 0.5}
    classification = analysis_for(AnalysisType.CLASSIFICATION)

    result = correct(output, classification, Truth(label="invoice"))
    wrong = correct(output, classification, Truth(wrong_labels=frozenset({"Letter"})))

    assert result.output == {"primary_label": "invoice", "confidence": 0.5}
    assert final(result)[0] == ("primary_label", "letter", "corrected", "invoice")
    assert (final(wrong)[0][2], wrong.output) == ("rejected", None)


def test_a_remark_applies_only_to_the_value_that_it_judged() -> None:
    output: JsonObject = {"main_topic": "Cats", "key_findings": []}
    summary = analysis_for(AnalysisType.SUMMARY)
    remark = Remark(path="/main_topic", verdict=Verdict.CORRECTED, judged="Cats", corrected="Dogs")

    assert correct(output, summary, Truth(remarks=(remark,))).output == {
        **output,
        "main_topic": "Dogs",
    }
    assert correct({"main_topic": "Fish"}, summary, Truth(remarks=(remark,))).output is None


@pytest.mark.parametrize(
    ("path", "typed", "stored"),
    [
        ("/total", "1,300.50", [1300.5]),
        ("total", "13", [13]),
        ("/paid", "true", [True]),
        ("/paid", "No", [False]),
        ("/issued", "March 1, 2026", ["2026-03-01"]),
        ("/parties", "Eve", ["Eve"]),
        ("/rows/1/n", "4", [4]),
        ("rows_1_n", "4", [4]),
    ],
)
def test_a_correction_is_converted_to_the_type_in_the_schema(
    path: str, typed: str, stored: list[JsonValue]
) -> None:
    """Users type text; the schema has numbers, booleans, dates and lists."""
    assert corrected_by(path, typed, DATA).corrected == stored


@pytest.mark.parametrize(
    ("path", "typed", "complaint"),
    [
        ("/total", "a lot", "does not fit /total"),
        ("/issued", "yesterday", "does not fit /issued"),
        ("/issued", "03/04/2025", "is not a date"),
        ("/totl", "5", "has no field"),
        # A row is removed by correcting the list, not by correcting the row to null.
        ("/rows/1", None, "cannot be corrected to null"),
        ("/rows/5/n", 4, "has no field"),
    ],
)
def test_a_correction_must_fit_the_schema(path: str, typed: JsonValue, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as refused:
        corrected_by(path, typed, DATA)

    if "does not fit" in complaint:
        assert refused.value.hint.startswith('Its schema: {"')


@pytest.mark.parametrize(
    ("item", "value", "complaint"),
    [
        ("headcount: number", "abc", "“abc” is not a number, which headcount declares."),
        ("headcount: number", "1.500", "“1.500” is not a number, or can be read in two ways,"),
        ("fee: money", "a lot", "is not an amount of money"),
        ("paid: yes/no", "in part", "is not yes or no"),
        ("signed: date", "spring", "is not a date"),
        ("signed: date", "03/04/2025", "is not a date"),
        ("signing date", "03/04/2025", "is not a date"),
    ],
)
def test_a_correction_must_have_the_declared_type(item: str, value: str, complaint: str) -> None:
    name, options = without_type(item), AnalysisOptions(items=(item,))

    with pytest.raises(UsageError, match=complaint):
        corrected_by(name, value, items((name, "x")), options)


@pytest.mark.parametrize(
    ("item", "value"),
    [
        ("headcount: number", "1,200"),
        ("fee: money", "EUR 5"),
        ("paid: yes/no", "No"),
        ("signed: date", "5 May 2024"),
        ("signed: date", None),
        ("fee: money", ""),
        ("signing date", "on request"),
        ("law: text", "5"),
    ],
)
def test_a_correction_of_the_declared_type_is_stored(item: str, value: str | None) -> None:
    name, options = without_type(item), AnalysisOptions(items=(item,))

    right = corrected_by(name, value, items((name, "x")), options).corrected

    assert right == ([value] if value else [])


def test_a_value_that_its_column_cannot_hold_is_corrected_or_rejected_not_accepted() -> None:
    """Its cell would be empty, and `confirmed`."""
    options, output = AnalysisOptions(items=("signed: date",)), items(("signed", "Q3 2024"))

    with pytest.raises(UsageError, match="“Q3 2024” is not a date") as refused:
        corrected_by("signed", None, output, options, Verdict.APPROVED)

    assert refused.value.hint == "Correct or reject it."
    with pytest.raises(UsageError, match="“Q3 2024” is not a date") as refused:
        corrected_by("", None, output, options, Verdict.APPROVED)
    assert refused.value.hint == "Correct or reject it first: --path 'signed'."
    rejected = corrected_by("signed", None, output, options, Verdict.REJECTED)
    assert rejected.corrected is None
    approved = corrected_by("", None, output, options, Verdict.APPROVED, [rejected])
    assert approved.judged == output
    of_day = items(("signed", "5 May 2024"))
    assert corrected_by("signed", None, of_day, options, Verdict.APPROVED).judged == ["5 May 2024"]


def test_one_of_several_values_is_removed_and_the_others_stay() -> None:
    """What earlier remarks removed or changed by their paths stays so."""
    parties = items(("party", "Ann"), ("party", "Bob"), ("party", "Cy"), ("party", "Dan"))
    remarks: list[Remark] = []
    for path, value, verdict in (
        ("/fields/1", None, Verdict.REJECTED),
        ("/fields/2", "Cyd", Verdict.CORRECTED),
        ("/fields/2", "Cyd", Verdict.CORRECTED),  # said again
        ("/fields/2", "Sid", Verdict.CORRECTED),
        ("/fields/0/value", None, Verdict.REJECTED),
        ("/fields/1", None, Verdict.REJECTED),  # already removed
    ):
        remarks.append(corrected_by(path, value, parties, ITEMS, verdict, remarks))

    truth = from_remarks(AnalysisType.EXTRACTION, remarks)

    assert {remark.verdict for remark in remarks} == {Verdict.CORRECTED}
    assert remarks[1].corrected == remarks[2].corrected == ["Ann", "Dan", "Cyd"]
    assert truth.fields == {"party": ["Sid", "Dan"]}
    corrected_fields = objects_of(correct(parties, analysis_for(AnalysisType.EXTRACTION), truth))
    assert sorted(str(one["value"]) for one in corrected_fields) == ["Dan", "Sid"]


def test_values_after_a_rejection_of_all_are_only_the_new_ones() -> None:
    parties = items(("party", "Ann"), ("party", "Bob"))
    rejected = corrected_by("party", None, parties, ITEMS, Verdict.REJECTED)
    one = corrected_by("/fields/0", "Eve", parties, ITEMS, earlier=[rejected])
    further = corrected_by("party", ["Bob", "Ida"], parties, ITEMS)

    assert (rejected.verdict, one.corrected) == (Verdict.REJECTED, ["Eve"])
    kept = corrected_by("/fields/0", "Eve", parties, ITEMS, earlier=[rejected, further])
    assert kept.corrected == ["Bob", "Ida", "Eve"]


def test_an_unknown_field_gets_a_suggestion() -> None:
    with pytest.raises(UsageError) as refused:
        corrected_by("goverming_law", "x", items(("governing law", "Texas"), ("fee", "5")))

    assert refused.value.hint == "Did you mean “governing law”?"


def a_remark(name: str, verdict: Verdict, right: JsonValue = None) -> Remark:
    judged = fields.values(DATA, name)
    return Remark(path=f"/data{name}", name=name, verdict=verdict, judged=judged, corrected=right)


def test_an_approval_includes_earlier_corrections() -> None:
    whole = Remark(path="", verdict=Verdict.APPROVED, judged=DATA)
    correction = a_remark("/total", Verdict.CORRECTED, [77])

    truth = from_remarks(AnalysisType.EXTRACTION, [correction, whole])

    assert truth.fields["/total"] == [77]
    assert truth.fields["/parties"] == ["Ann", "Bob"]


def test_a_correction_of_a_list_replaces_those_of_its_rows() -> None:
    of_row = a_remark("/rows/0/n", Verdict.CORRECTED, [99])
    of_list = a_remark("/rows", Verdict.CORRECTED, [{"n": 1}])
    truth = from_remarks(AnalysisType.EXTRACTION, [of_row, of_list])

    result = correct(DATA, analysis_for(AnalysisType.EXTRACTION), truth)

    rows = [fact for fact in result.facts if fact.item == "rows.n"]
    assert [(row.verdict, row.corrected_value, row.number) for row in rows] == [
        ("approved", None, Decimal(1)),
        ("rejected", None, None),
    ]


def test_an_approved_list_keeps_the_corrections_of_its_rows() -> None:
    output: JsonObject = {"data": {"rows": [{"n": 1}, {"n": None}, {"n": 2}]}, "evidence": []}
    judged = fields.values(output, "/rows")
    approval = Remark(path="/data/rows", name="/rows", verdict=Verdict.APPROVED, judged=judged)
    correction = Remark(
        path="/data/rows/0/n",
        name="/rows/0/n",
        verdict=Verdict.CORRECTED,
        judged=[1],
        corrected=[9],
    )
    extraction = analysis_for(AnalysisType.EXTRACTION)
    approved = correct(output, extraction, from_remarks(extraction.type, [approval]))
    truth = from_remarks(extraction.type, [correction, approval])
    result = correct(output, extraction, truth)

    assert approved.output is None
    assert {fact.verdict for fact in approved.facts} == {"approved"}
    assert result.output is not None
    rows: list[JsonValue] = [{"n": 9}, {"n": None}, {"n": 2}]
    assert json_values.as_object(result.output["data"])["rows"] == rows
