"""Tests of comparing an answer with the truth, and of deriving the truth from a user's remarks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType, options_to_json
from chordwise.domain.dates import DateOrder, order_in
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.learning import fields, truths
from chordwise.domain.learning.feedback_input import FeedbackInput, parsed, understand
from chordwise.domain.learning.fields import Rule
from chordwise.domain.learning.judgments import (
    AnswerWithConfidence,
    correct_by_field,
    difference,
    is_refuted,
    judge,
)
from chordwise.domain.learning.truths import Remark, Truth, Verdict
from chordwise.errors import UsageError
from tests.fakes.generated_answers import a_field

FIELDS: JsonObject = {
    "fields": [
        a_field("party", "ACME Corp.", 9),
        a_field("party", "Miller & Sons", 4),
        a_field("penalty", None, 6),
    ]
}
DATA: JsonObject = {
    "data": {"total": 1200.0, "lines": [{"sku": "A-1"}, {"sku": "B-2"}], "buyer": {"name": "Ada"}},
    "evidence": [
        {"path": "/total", "quote": "1200", "confidence": 8},
        {"path": "/lines/1/sku", "quote": "B-2", "confidence": 5},
    ],
}


def an_extraction(output: JsonObject) -> AnswerWithConfidence:
    """Return an extraction with an overall confidence of 0.7."""
    return AnswerWithConfidence(
        analysis_type=AnalysisType.EXTRACTION, output=output, confidence=0.7
    )


def a_sentiment(label: str) -> AnswerWithConfidence:
    return AnswerWithConfidence(
        analysis_type=AnalysisType.SENTIMENT, output={"label": label, "score": 0.1}, confidence=0.8
    )


def a_summary(topic: str, confidence: float = 0.6) -> AnswerWithConfidence:
    output: JsonObject = {"main_topic": topic, "conclusions": ["So it is."]}
    return AnswerWithConfidence(
        analysis_type=AnalysisType.SUMMARY, output=output, confidence=confidence
    )


NEGATIVE = Truth(label="negative")
APPROVAL, REJECTION = (
    FeedbackInput(verdict=verdict) for verdict in (Verdict.APPROVED, Verdict.REJECTED)
)


def verdicts(answer: AnswerWithConfidence, truth: Truth) -> list[tuple[str, float | None, bool]]:
    judged = judge(answer, truth).judgments
    return [(judgment.path, judgment.confidence, judgment.is_right) for judgment in judged]


def said(answer: AnswerWithConfidence, *entered: FeedbackInput) -> Truth:
    remarks = [understand(answer, remark, AnalysisOptions()) for remark in entered]
    return truths.from_remarks(answer.analysis_type, remarks)


@pytest.mark.parametrize(("value", "text"), [(7, "7"), (7.0, "7"), (True, "true")])
def test_a_value_of_json_is_the_same_as_its_text(value: JsonValue, text: str) -> None:
    assert fields.keys(value) == fields.keys(text)


def test_every_value_of_a_field_is_judged_separately() -> None:
    answer = an_extraction(FIELDS)
    truth = Truth(fields={"party": ["acme corp", "Smith"], "penalty": None})

    judged = judge(answer, truth)
    filled, empty = (judge(answer, Truth(fields={"place": place})) for place in ("Bonn", None))

    assert verdicts(answer, truth) == [
        ("", 0.7, False),
        ("/fields/0", 0.9, True),
        ("/fields/1", 0.4, False),
        ("/fields/2", 0.6, True),
    ]
    party, penalty = judged.scores
    assert (party.shared, party.only_found, party.only_expected) == (1, 1, 1)
    assert (penalty.is_right, penalty.is_exact) == (True, True)
    assert (filled.judgments[0].is_right, filled.scores[0].only_expected) == (False, 1)
    assert empty.judgments[0].is_right


@pytest.mark.parametrize(
    ("name", "schema", "field"),
    [
        ("Buyer ", None, "buyer"),
        ("annual_fee", None, "annual fee"),
        ("Annual fee", None, "annual fee"),
        ("Net total", {"properties": {"total": {"properties": {"n": {}}}}}, None),
        ("Total", {"properties": {"total": {}}}, "/total"),
        ("total_net", {"properties": {"total": {"properties": {"net": {}}}}}, "/total/net"),
        ("seller", None, None),
        ("/total", {"properties": {"total": {}}}, "/total"),
        ("total/net", {"properties": {"total": {}}}, "total/net"),
        ("/sum", {"properties": {"total": {}}}, None),
        ("/sum", {"properties": {"total": {}}, "additionalProperties": False}, None),
        ("/sum", {"properties": {"total": {}}, "allOf": [{}]}, "/sum"),
        ("/sum", {"$ref": "#/$defs/whole"}, "/sum"),
    ],
)
def test_only_fields_of_the_question_are_accepted(
    name: str, schema: JsonObject | None, field: str | None
) -> None:
    options = AnalysisOptions(instructions="buyer, annual fee: money", schema=schema)

    assert fields.requested_fields([name], options).get(name) == field


def test_data_of_a_schema_is_compared_by_pointers() -> None:
    """Numbers are compared as numbers, lists in any order, and claims come from the evidence."""
    truth = Truth(
        fields={"/total": 1200, "/lines": [{"sku": "b-2"}, {"sku": "a-1"}], "buyer": {"name": "Bo"}}
    )

    assert verdicts(an_extraction(DATA), truth) == [
        ("", 0.7, False),
        ("/data/total", 0.8, True),
        ("/data/lines/0/sku", None, True),
        ("/data/lines/1/sku", 0.5, True),
        ("/data/buyer/name", None, False),
    ]


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ([APPROVAL], "mixed", True),
        ([APPROVAL], "neutral", False),
        ([REJECTION], "mixed", False),
        ([REJECTION], "neutral", None),
        (
            [FeedbackInput(verdict=Verdict.CORRECTED, path="label", value="Neutral")],
            "neutral",
            True,
        ),
        ([REJECTION, APPROVAL], "mixed", True),
        ([APPROVAL, REJECTION], "mixed", False),
        ([FeedbackInput(verdict=Verdict.REJECTED, path="/score")], "mixed", None),
    ],
)
def test_remarks_on_one_answer_judge_another(
    before: list[FeedbackInput],
    now: str,
    expected: bool | None,  # noqa: FBT001 - the expectation
) -> None:
    outcome = verdicts(a_sentiment(now), said(a_sentiment("mixed"), *before))

    assert outcome == ([] if expected is None else [("/label", 0.8, expected)])


def test_an_approved_extraction_approves_every_field() -> None:
    """A rejected extraction is wrong as a whole; a rejected value is wrong until it changes."""
    answer = an_extraction(FIELDS)
    approved, rejected = said(answer, APPROVAL), said(answer, REJECTION)
    value = said(answer, FeedbackInput(verdict=Verdict.REJECTED, path="penalty"))
    changed = an_extraction({"fields": [a_field("penalty", "5 %", 3)]})

    assert [right for _, _, right in verdicts(answer, approved)] == [True] * 4
    assert verdicts(answer, rejected) == [("", 0.7, False)]
    assert verdicts(an_extraction({"fields": []}), rejected) == []
    assert verdicts(answer, value) == [("", 0.7, False), ("/fields/2", 0.6, False)]
    assert verdicts(changed, value) == []
    assert is_refuted(answer, rejected, "party")
    assert is_refuted(answer, value)
    assert is_refuted(answer, value, "penalty")
    assert not is_refuted(answer, value, "party")
    assert not is_refuted(changed, value)
    assert not is_refuted(answer, said(answer, REJECTION, APPROVAL))


@pytest.mark.parametrize("verdict", [Verdict.APPROVED, Verdict.CORRECTED, Verdict.REJECTED])
def test_a_rejected_extraction_is_wrong_where_no_field_has_its_own_verdict(
    verdict: Verdict,
) -> None:
    """A verdict on a field holds before and after it; the approval of the whole is taken back."""
    answer = an_extraction(FIELDS)
    penalty = FeedbackInput(verdict=verdict, path="penalty", value="5 %")
    names = dict.fromkeys(fields.names(FIELDS), False)
    expected = {**names, "penalty": verdict is Verdict.APPROVED}

    for order in ([APPROVAL, REJECTION], [REJECTION]):
        assert correct_by_field(answer, said(answer, *order)) == names
    for order in ([penalty, REJECTION], [REJECTION, penalty], [APPROVAL, penalty, REJECTION]):
        truth = said(answer, *order)
        assert correct_by_field(answer, truth) == expected
        assert verdicts(answer, truth)[0] == ("", 0.7, False)
        assert is_refuted(answer, truth)
        assert is_refuted(answer, truth, "party")
        assert is_refuted(answer, truth, "penalty") is (verdict is Verdict.REJECTED)
    party = FeedbackInput(verdict=Verdict.APPROVED, path="party")
    truth = said(answer, party, penalty, REJECTION)
    assert verdicts(answer, truth)[0] == ("", 0.7, False)
    assert is_refuted(answer, truth)
    assert not is_refuted(answer, truth, "party")
    assert correct_by_field(answer, said(answer, REJECTION, APPROVAL)) == dict.fromkeys(names, True)


def test_one_of_several_values_is_corrected() -> None:
    entered = FeedbackInput(verdict=Verdict.CORRECTED, path="/fields/1", value="Smith")

    remark = understand(an_extraction(FIELDS), entered, AnalysisOptions())

    assert remark.corrected == ["ACME Corp.", "Smith"]
    assert remark.confidence is None
    truth = truths.from_remarks(AnalysisType.EXTRACTION, [remark])
    assert verdicts(an_extraction(FIELDS), truth) == [
        ("", 0.7, False),
        ("/fields/0", 0.9, True),
        ("/fields/1", 0.4, False),
    ]


def test_a_field_is_addressed_by_name_or_pointer() -> None:
    """So is a member of the data of a schema."""
    entered = FeedbackInput(verdict=Verdict.CORRECTED, value="5 %")
    of_field = Remark(
        path="/fields/2",
        name="penalty",
        verdict=Verdict.CORRECTED,
        judged=[],
        corrected=["5 %"],
        confidence=0.6,
    )
    for path in ("penalty", "Penalty", "/fields/2", "/fields/2/value"):
        at_path = replace(entered, path=path)
        assert understand(an_extraction(FIELDS), at_path, AnalysisOptions()) == of_field
    for path in ("total", "/total", "/data/total"):
        remark = understand(an_extraction(DATA), replace(APPROVAL, path=path), AnalysisOptions())
        assert (remark.name, remark.path, remark.judged) == ("/total", "/data/total", [1200.0])


@pytest.mark.parametrize("path", ["", "/lines", "/buyer"])
def test_approved_rows_and_objects_are_right(path: str) -> None:
    answer = an_extraction(DATA)
    approved = said(answer, FeedbackInput(verdict=Verdict.APPROVED, path=path))
    rejected = said(answer, FeedbackInput(verdict=Verdict.REJECTED, path=path))
    names = [path] if path else ["/total", "/lines", "/buyer"]

    assert correct_by_field(answer, approved) == dict.fromkeys(names, True)
    assert all(right for _, _, right in verdicts(answer, approved))
    assert correct_by_field(answer, rejected) == dict.fromkeys(names, False)


def test_a_list_with_a_corrected_value_is_wrong() -> None:
    answer = an_extraction(DATA)
    approval = FeedbackInput(verdict=Verdict.APPROVED, path="/lines/0/sku")
    correction = FeedbackInput(verdict=Verdict.CORRECTED, path="/lines/1/sku", value="B-3")

    assert correct_by_field(answer, said(answer, approval)) == {"/lines/0/sku": True}
    assert correct_by_field(answer, said(answer, correction)) == {"/lines": False}
    assert correct_by_field(answer, said(answer, APPROVAL, correction)) == {
        "/total": True,
        "/lines": False,
        "/buyer": True,
    }


def test_a_summary_is_judged_while_its_values_are_the_same() -> None:
    """Any correction makes the whole wrong; the latest remark on a value counts."""
    answer = a_summary("A bridge.")
    correction = FeedbackInput(verdict=Verdict.CORRECTED, path="/main_topic", value="A dam.")

    assert verdicts(answer, said(answer, APPROVAL)) == [("", 0.6, True)]
    assert verdicts(answer, said(answer, APPROVAL, correction)) == [("", 0.6, False)]
    assert verdicts(answer, said(answer, REJECTION, APPROVAL)) == [("", 0.6, True)]
    assert verdicts(a_summary("B."), said(answer, APPROVAL)) == []


@pytest.mark.parametrize(
    ("answer", "path", "value", "what"),
    [
        (a_sentiment("mixed"), "label", "glad", "“glad” is not one of the labels"),
        (a_sentiment("mixed"), "label", None, "null is not one of the labels"),
        (an_extraction(FIELDS), "place", "x", "no field “place”"),
        (an_extraction(FIELDS), "", "x", "names no value"),
        (a_sentiment("mixed"), "/scores", "x", "no value at"),
    ],
)
def test_an_invalid_path_or_value_is_reported(
    answer: AnswerWithConfidence, path: str, value: str | None, what: str
) -> None:
    with pytest.raises(UsageError, match=what) as refused:
        understand(
            answer,
            FeedbackInput(verdict=Verdict.CORRECTED, path=path, value=value),
            AnalysisOptions(),
        )

    assert refused.value.hint


def test_a_hint_names_the_values_at_the_top_level_first() -> None:
    """A label is corrected more often than the end of a quote."""
    evidence: list[JsonValue] = [{"quote": str(number), "start": number} for number in range(20)]
    answer = replace(a_sentiment("mixed"), output={"evidence": evidence, "topic": "tea"})

    with pytest.raises(UsageError) as refused:
        understand(
            answer, FeedbackInput(verdict=Verdict.APPROVED, path="/nothing"), AnalysisOptions()
        )

    assert refused.value.hint.startswith("It has /topic, ")
    assert refused.value.hint.endswith(" more.")


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("12 %", "12 %"),
        ('["A", "B"]', ["A", "B"]),
        ('"null"', "null"),
        ("null", None),
        ("  ", None),
        ("[sic]", "[sic]"),
        ("7", "7"),
        ("[NaN]", "[NaN]"),
        ("[1e999]", "[1e999]"),
        ('["\\u0000"]', '["\\u0000"]'),
        ('["\\ud800"]', '["\\ud800"]'),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_a_typed_value_is_a_text_unless_it_is_json(typed: str, value: JsonValue) -> None:
    """Lists, objects and quoted texts are JSON; numbers are compared as written."""
    assert parsed(typed) == value


@pytest.mark.parametrize(
    ("rule", "value", "right", "same"),
    [
        (Rule.EQUAL, "EUR 1,300.50", "1300.5", True),
        (Rule.EQUAL, "June 1, 2020", "2020-06-01", True),
        (Rule.EQUAL, "June 1, 2020", "2020-06-02", False),
        (Rule.EQUAL, "$1.5 million", "USD 1,500,000", True),
        (Rule.EQUAL, "$1,500,000", "EUR 1,500,000", False),
        (Rule.EQUAL, "$100m", "100", False),
        (Rule.EQUAL, "24 months", "2 years", True),
        (Rule.EQUAL, "30 days", "30 months", False),
        (Rule.EQUAL, "2019", "2020", False),
        (Rule.EQUAL, "some", "other", False),
        (Rule.TYPED, "EUR 1,300.50", 1300.5, True),
        (Rule.TYPED, "1,301.00", "1300.5", True),
        (Rule.TYPED, "1,302.00", "1300.5", False),
        (Rule.TYPED, "May 3, 2024", "2024-05-03", True),
        (Rule.TYPED, "May 3, 2024", 3, False),
        (Rule.TYPED, "some", "other", False),
        (Rule.TYPED, "Some.", "some", True),
        (Rule.CONTAINS, "the laws of the State of New York", "New York", True),
        (Rule.CONTAINS, "the laws of New Yorkshire", "New York", False),
        (Rule.CONTAINS, "anything", None, False),
        (Rule.CONTAINS, "as of June 1, 2020", "2020-06-01", True),
        (Rule.EQUAL, "ACME, Inc.", "Acme Incorporated", True),
        (Rule.EQUAL, "Acme", 'ACME L.L.C. ("Lessor")', True),
        (Rule.EQUAL, "The Acme Company", "Acme Co.", True),
        (Rule.EQUAL, "Acme Inc.", "Acme LLC", False),
        (Rule.EQUAL, "Inc.", "Corp.", False),
        (Rule.EQUAL, "Acme North Inc.", "Acme Inc.", False),
        (Rule.EQUAL, "Delaware", "State of Delaware | Delaware", True),
        (Rule.EQUAL, "Ohio", "State of Delaware | Delaware", False),
    ],
)
def test_a_rule_determines_when_a_value_is_right(
    rule: Rule, value: str, right: JsonValue, *, same: bool
) -> None:
    answer = an_extraction({"fields": [a_field("total", value, 9)]})
    truth = Truth(fields={"total": right}, rules={"total": rule}, alternatives=True)

    judged = judge(answer, truth)

    assert [score.is_right for score in judged.scores] == [same]
    assert [judgment.is_right for judgment in judged.judgments] == [same, same]


@pytest.mark.parametrize(
    ("dates", "same"), [(None, False), (DateOrder.MONTH_FIRST, True), (DateOrder.DAY_FIRST, False)]
)
def test_dates_have_the_order_of_the_truth(dates: DateOrder | None, *, same: bool) -> None:
    answer = an_extraction({"fields": [a_field("signed", "March 1, 2003", 9)]})
    truth = Truth(fields={"signed": "3/1/03"}, rules={"signed": Rule.TYPED}, dates=dates)

    assert [score.is_right for score in judge(answer, truth).scores] == [same]


@pytest.mark.parametrize(
    ("texts", "order"),
    [
        (["1/2/03", "1/22/03"], DateOrder.MONTH_FIRST),
        (["22/1/2003"], DateOrder.DAY_FIRST),
        (["22/1/2003", "1/22/2003"], None),
        (["1/2/03", "22.1.2003", "2003-01-22"], None),
    ],
)
def test_unambiguous_dates_show_the_order_of_the_others(
    texts: list[str], order: DateOrder | None
) -> None:
    assert order_in(texts) is order


def test_pages_are_compared_with_those_of_the_facts() -> None:
    """Items have pages; in data of a schema, the evidence of the value or its parent does."""
    on: JsonObject = {"grounded": True, "grounding": "exact", "start_char": 0, "end_char": 4}
    items: JsonObject = {
        "fields": [
            {**a_field("party", "ACME Corp.", 9), **on, "page": 1},
            {**a_field("party", "Miller & Sons", 4), **on, "page": 3},
            a_field("penalty", None, 6),
        ]
    }
    evidence: list[JsonValue] = [
        {"path": "/total", "quote": "1200", **on, "page": 2},
        {"path": "/lines/1", "quote": "B-2", **on, "page": 4},
    ]
    by_item = Truth(
        fields={"party": ["ACME Corp.", "Miller & Sons"], "penalty": "5 %"},
        pages={"party": frozenset({1, 2}), "penalty": frozenset({1})},
    )
    by_path = Truth(
        fields={"/total": 1200, "/lines": [{"sku": "B-2"}], "/buyer/name": "Ada"},
        pages={"/total": frozenset({2}), "/lines": frozenset({4})},
    )

    judged = judge(an_extraction({**DATA, "evidence": evidence}), by_path)
    scores = [*judge(an_extraction(items), by_item).scores, *judged.scores]

    assert {score.name: (score.pages_found, score.pages) for score in scores} == {
        "party": (1, 2),
        "penalty": (0, 1),
        "/total": (1, 1),
        "/lines": (1, 1),
        "/buyer/name": (0, 0),
    }


def test_repeated_rows_are_counted() -> None:
    one: JsonObject = {"sku": "A-1", "n": 1}
    two: JsonObject = {"sku": "B-2", "n": 2}
    rows: JsonValue = [{**one}, {**one}, {**two}]
    answer_rows: JsonValue = [{"n": "2.0", "sku": "b-2"}, {**one}, {**one, "n": 3}]
    answer = an_extraction({"data": {"lines": answer_rows}, "evidence": []})

    (score,) = judge(answer, Truth(fields={"/lines": rows})).scores

    assert (score.rows, score.rows_found) == (3, 2)


@pytest.mark.parametrize(
    ("before", "after", "truth", "expected"),
    [
        (
            an_extraction({"fields": [a_field("party", "ACME Corp.", 9), a_field("term", "1", 5)]}),
            an_extraction({"fields": [a_field("party", "acme corp", 4), a_field("law", "NY", 5)]}),
            Truth(fields={"party": ["ACME"], "term": []}),
            (3, 2, 2, 1, 0),
        ),
        (a_sentiment("positive"), a_sentiment("negative"), NEGATIVE, (1, 1, 1, 1, 0)),
        (a_sentiment("negative"), a_sentiment("positive"), NEGATIVE, (1, 1, 1, 0, 1)),
        (a_sentiment("positive"), a_sentiment("Positive"), NEGATIVE, (1, 0, 1, 0, 0)),
        (a_summary("A bridge."), a_summary("A bridge.", 0.9), Truth(), (1, 0, 0, 0, 0)),
        (a_summary("A bridge."), a_summary("A harbour."), Truth(), (1, 1, 0, 0, 0)),
    ],
)
def test_answers_are_compared_by_field_by_label_or_as_a_whole(
    before: AnswerWithConfidence,
    after: AnswerWithConfidence,
    truth: Truth,
    expected: tuple[int, ...],
) -> None:
    counts = difference(before, after, truth)

    assert list(counts) == ["fields", "changed", "checked", "better", "worse"]
    assert tuple(counts.values()) == expected


def of_items(instructions: str) -> JsonObject:
    return options_to_json(AnalysisOptions(instructions=instructions))


def of_schema(instructions: str = "", **properties: JsonValue) -> JsonObject:
    schema: JsonObject = {"type": "object", "properties": properties}
    return options_to_json(AnalysisOptions(schema=schema, instructions=instructions))


def of_labels(*labels: str, **meanings: str) -> JsonObject:
    return options_to_json(AnalysisOptions(labels=labels, label_descriptions=meanings))


NUMBER: JsonObject = {"type": "number"}


@pytest.mark.parametrize(
    ("name", "original", "question", "holds"),
    [
        ("party", of_items("party, term"), of_items("party; law"), True),
        ("term", of_items("party, term"), of_items("party; law"), False),
        ("", of_items("party, term"), of_items("party; law"), False),
        ("", of_items("party, term"), of_items("party, term"), True),
        ("/total", of_schema(total=NUMBER), of_schema("Look.", total=NUMBER, tax=NUMBER), True),
        ("/total", of_schema(total=NUMBER), of_schema(total={"type": "string"}), False),
        ("/tax/0", of_schema(total=NUMBER), of_schema(total=NUMBER), True),
        ("/tax/0", of_schema(total=NUMBER), of_schema("Look.", total=NUMBER), False),
        ("total", of_items("total"), of_schema(total=NUMBER), False),
    ],
)
def test_a_remark_applies_if_the_question_about_its_field_is_the_same(
    name: str, original: JsonObject, question: JsonObject, *, holds: bool
) -> None:
    """Other fields are ignored; a remark on a whole answer applies only to the same question."""
    remark = Remark(path=name, name=name, verdict=Verdict.CORRECTED, judged=None)

    assert truths.holds_for(AnalysisType.EXTRACTION, remark, original, question) is holds


@pytest.mark.parametrize(
    ("verdict", "question", "holds"),
    [
        (Verdict.CORRECTED, of_labels("invoice", "bill"), True),
        (Verdict.CORRECTED, of_labels("letter", "bill"), False),
        (Verdict.CORRECTED, of_labels("invoice", "bill", invoice="It has a sum."), False),
        (Verdict.APPROVED, of_labels("letter", "bill"), True),
        (Verdict.REJECTED, of_labels("invoice", "bill"), False),
    ],
)
def test_a_remark_applies_if_its_label_has_the_same_meaning(
    verdict: Verdict, question: JsonObject, *, holds: bool
) -> None:
    """The label is the corrected one, otherwise the judged one."""
    original, path = of_labels("invoice", "letter"), "/primary_label"
    right = "invoice" if verdict is Verdict.CORRECTED else None
    remark = Remark(path=path, verdict=verdict, judged="letter", corrected=right)

    assert truths.holds_for(AnalysisType.CLASSIFICATION, remark, original, question) is holds
