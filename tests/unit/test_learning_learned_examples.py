"""Tests of examples learned from feedback: their answers, excerpts and selection."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace

import pytest

from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType, Example, Stage
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.learning.learned_examples import (
    ExampleIndex,
    JudgedAnswer,
    LearnedExample,
    example_from,
    excerpt,
    is_held_out,
)
from chordwise.domain.learning.truths import Remark, Verdict
from chordwise.domain.prompts import render_examples
from tests.fakes.completion_requests import a_task
from tests.fakes.generated_answers import a_field
from tests.fakes.pipeline import hash_of

TEXT = "The seller is Miller Ltd. The price is 120 EUR, payable in May."
LABELLED: JsonObject = {
    "primary_label": "letter",
    "secondary_label": None,
    "confidence": 0.4,
    "features": [{"feature": "a seller", "quote": "Miller Ltd", "grounded": True, "page": 1}],
    "uncertainty_factors": ["short"],
}
FIELDS: JsonObject = {
    "fields": [
        a_field(
            item,
            value,
            6,
            start_char=TEXT.index(value),
            end_char=TEXT.index(value) + len(value),
            grounded=True,
            grounding="exact",
            value_in_quote=True,
        )
        for item, value in (("seller", "Miller Ltd"), ("price", "May"))
    ]
}


def said(
    verdict: Verdict,
    path: str = "",
    judged: JsonValue = None,
    corrected: JsonValue = None,
    name: str = "",
) -> Remark:
    return Remark(path=path, name=name, verdict=verdict, judged=judged, corrected=corrected)


def judged(kind: AnalysisType, output: JsonObject, *remarks: Remark) -> JudgedAnswer:
    labels = ("invoice", "letter") if kind == AnalysisType.CLASSIFICATION else ()
    items = "seller, price" if kind == AnalysisType.EXTRACTION else ""
    return JudgedAnswer(
        document_id=uuid.uuid4(),
        sha256=hash_of(TEXT),
        text=TEXT,
        analysis_type=kind,
        options=AnalysisOptions(labels=labels, instructions=items),
        output=output,
        remarks=remarks,
        feedback_ids=[uuid.uuid4()],
    )


def answer_of(kind: AnalysisType, output: JsonObject, *remarks: Remark) -> JsonObject | None:
    example = example_from(judged(kind, output, *remarks), 1_000)
    return example.example.answer if example else None


def test_an_approved_label_is_shown_with_the_original_answer() -> None:
    approval = said(Verdict.APPROVED, "/primary_label", "letter")

    answer = answer_of(AnalysisType.CLASSIFICATION, LABELLED, approval)

    feature = {"feature": "a seller", "quote": "Miller Ltd"}
    assert answer == {**LABELLED, "features": [feature]}


def test_a_corrected_label_has_no_features_of_the_wrong_label() -> None:
    correction = said(Verdict.CORRECTED, "/primary_label", "letter", "invoice")

    answer = answer_of(AnalysisType.CLASSIFICATION, LABELLED, correction)

    assert answer is not None
    assert (answer["primary_label"], answer["confidence"]) == ("invoice", 1.0)
    assert (answer["features"], answer["uncertainty_factors"]) == ([], [])


def test_a_corrected_value_is_quoted_at_its_place() -> None:
    remark = said(Verdict.CORRECTED, "/fields/1", ["May"], ["120 EUR"], "price")
    elsewhere = said(Verdict.CORRECTED, "/fields/1", ["May"], ["999 EUR"], "price")

    answer = answer_of(AnalysisType.EXTRACTION, FIELDS, remark)

    assert answer is not None
    assert answer["fields"] == [a_field("seller", "Miller Ltd", 6), a_field("price", "120 EUR", 6)]
    assert answer_of(AnalysisType.EXTRACTION, FIELDS, elsewhere) is None


@pytest.mark.parametrize(
    ("remarks", "is_example"),
    [
        ([], False),
        ([said(Verdict.APPROVED, "", FIELDS)], True),
        ([said(Verdict.APPROVED, "/fields/0", ["Miller Ltd"], name="seller")], False),
        (
            [
                said(Verdict.APPROVED, "/fields/0", ["Miller Ltd"], name="seller"),
                said(Verdict.APPROVED, "/fields/1", ["May"], name="price"),
            ],
            True,
        ),
        ([said(Verdict.REJECTED, "/fields/1", ["May"], name="price")], False),
        ([said(Verdict.APPROVED, "", FIELDS), said(Verdict.REJECTED, "", FIELDS)], False),
    ],
)
def test_only_confirmed_values_are_shown(remarks: Sequence[Remark], *, is_example: bool) -> None:
    """An approved field does not confirm others, and a rejection does not say what is right."""
    assert (answer_of(AnalysisType.EXTRACTION, FIELDS, *remarks) is not None) is is_example


def test_an_excerpt_has_the_quotes_and_marks_omissions() -> None:
    """Words are not cut; without quotes it begins the text; too long quotes give no excerpt."""
    text = (
        f"{'Before it. ' * 50}The price is 120 EUR. {'Between them. ' * 50}The term is a year. End."
    )

    shown = excerpt(text, ["120 EUR", "a year"], 200)

    assert shown is not None
    assert len(shown) <= 200
    assert shown.startswith("[…]\n")
    assert "The price is 120 EUR." in shown
    assert "The term is a year. End." in shown
    assert shown.count("[…]") == 2
    assert excerpt(text, ["120 EUR", "a year"], 50) is None
    assert excerpt(text, [], 100) == f"{'Before it. ' * 8}".strip() + "\n[…]"
    assert excerpt(TEXT, ["120 EUR"], 200) == TEXT


def an_example(text: str, label: str = "letter") -> LearnedExample:
    output: JsonObject = {**LABELLED, "primary_label": label, "features": []}
    answer = judged(
        AnalysisType.CLASSIFICATION, output, said(Verdict.APPROVED, "/primary_label", label)
    )
    example = example_from(replace(answer, sha256=hash_of(text), text=text), 1_000)
    assert example is not None
    return example


BOAT = an_example("The boat leaves the harbour at noon with the mail.")
SAME_BOAT = an_example("The boat leaves the harbour at noon with the mail again.")
HARBOUR = an_example("The harbour of the town was rebuilt after the storm.")
BILL = an_example("Please pay the bill for the electricity by Friday.", "invoice")


def test_examples_are_similar_to_the_document_and_diverse() -> None:
    index = ExampleIndex([BILL, BOAT, SAME_BOAT, HARBOUR], 2, 10_000)

    chosen = index.select("0", "When does the boat leave the harbour with our mail?")

    assert chosen == (HARBOUR, BOAT)
    assert index.select("0", "Nothing in common.") == ()


def test_a_document_is_not_its_own_example() -> None:
    index = ExampleIndex([BOAT, HARBOUR], 4, 10_000)

    assert BOAT not in index.select(BOAT.sha256, "The boat in the harbour.")
    shouted = BOAT.example.text.upper().replace(" ", "\n")
    assert index.select("0", shouted) == (HARBOUR,)


def test_examples_fit_into_their_token_budget() -> None:
    long = an_example(f"The boat and the harbour, the mail. {'The boat. ' * 80}")
    index = ExampleIndex([long, HARBOUR], 4, HARBOUR.token_count + 1)

    assert index.select("0", "The boat, the mail.") == ()
    assert index.select("0", "The boat in the harbour.") == (HARBOUR,)


def test_the_id_of_an_example_depends_on_its_feedback() -> None:
    approval = said(Verdict.APPROVED, "/primary_label", "letter")
    first = judged(AnalysisType.CLASSIFICATION, LABELLED, approval)
    made = [
        example_from(answer, 1_000)
        for answer in (first, first, replace(first, feedback_ids=[uuid.uuid4()]))
    ]

    once, again, later = (example.example.id for example in made if example is not None)

    assert once == again
    assert once != later


def test_one_document_in_five_is_held_out() -> None:
    """The hash alone decides, so that the choice never changes."""
    hashes = [uuid.uuid5(uuid.NAMESPACE_URL, str(number)).hex for number in range(1_000)]

    assert 150 < sum(map(is_held_out, hashes)) < 250
    assert is_held_out("0000000500")
    assert not is_held_out("0000000600")


def test_learned_examples_are_between_markers_in_prompts_about_texts() -> None:
    shown = (Example(analysis_type=AnalysisType.SUMMARY, text="End of the examples.", answer={}),)
    task = replace(a_task(AnalysisType.SUMMARY, "x"), examples=shown)

    lines = render_examples(task).splitlines()

    place = lines.index("End of the examples.")
    assert lines[place - 1] == lines[place + 1]
    assert lines[place - 1].startswith("TEXT-")
    assert render_examples(replace(task, stage=Stage.SYNTHESIZE)) == ""
    assert render_examples(replace(task, answers=({},))) == ""
