"""Tests of `x-count`: a model states how many rows its text has, and missing ones are reported."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from chordwise.domain import json_values, schemas, validation
from chordwise.domain.analyses.extraction import Extraction
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask, AnalysisType, Example
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.missing_rows import MissingRows
from chordwise.domain.validation import check_schema
from chordwise.errors import UsageError
from chordwise.llm import schema_dialects
from chordwise.llm.providers.extractive import ExtractiveModel
from chordwise.pipeline.asking import ask
from chordwise.pipeline.asking.answers import merged
from tests.fakes.asking import question
from tests.fakes.completion_requests import a_task
from tests.fakes.pipeline import PARAGRAPH
from tests.fakes.scripted_model import Line, ScriptedModel

COUNTED: JsonObject = {"type": "array", "items": {"type": "string"}, "x-count": True}


def closed(**properties: JsonValue) -> JsonObject:
    return schemas.closed(properties)


SCHEMA = closed(town={"type": "string"}, events=COUNTED, report=closed(causes=COUNTED))
OPTIONS = AnalysisOptions(schema=SCHEMA)
TEXT = PARAGRAPH + "The mole followed in 1860. A storm broke it in 1871."
EVENTS = ("rebuilt in 1856", "followed in 1860", "storm broke it in 1871")
TASK = a_task(AnalysisType.EXTRACTION, TEXT, OPTIONS)


def an_answer(number: int, counted: int | None = None, causes: int = 0) -> str:
    """Return an answer with some of the events; `counted` are those that it states."""
    evidence: list[JsonValue] = [
        {"path": f"/events/{row}", "quote": event, "confidence": 9}
        for row, event in enumerate(EVENTS[:number])
    ]
    data = {"town": "Lindau", "events": EVENTS[:number], "report": {"causes": []}}
    counts = {"events": counted, "report": {"causes": causes}}
    stated = {} if counted is None else {"counts": counts}
    return json.dumps({**stated, "data": data, "evidence": evidence})


@pytest.mark.parametrize("first", [an_answer(1, 3), an_answer(2)], ids=["rows", "no number"])
def test_rows_that_the_model_counts_and_omits_are_missing(first: str) -> None:
    """It is asked once more; the numbers are no values of the answer."""
    model = ScriptedModel([first, an_answer(2, 3)])

    answer = ask(question(model, TASK, TEXT))

    assert answer.missing_rows == (MissingRows(path="/data/events", kept=2, found=3, records=1),)
    assert answer.output.keys() == {"data", "evidence"}
    assert answer.quality == pytest.approx(2 / 3 * 0.8, abs=0.001)
    remark = model.requests[1].user
    assert ("has 1 rows, and counts has 3" if first == an_answer(1, 3) else "counts") in remark


@pytest.mark.parametrize(
    "script",
    [
        [an_answer(1, 3), an_answer(3, 3)],
        [an_answer(1, 3), an_answer(1, 1)],
        *([an_answer(3, counted)] for counted in (3, 2, 0)),
    ],
)
def test_a_number_that_the_rows_reach_is_no_loss(script: list[Line]) -> None:
    """The model may add rows or correct its number in its second answer."""
    assert ask(question(ScriptedModel(script), TASK, TEXT)).missing_rows == ()


def test_missing_rows_of_chunks_add_up() -> None:
    answers = [
        ask(question(ScriptedModel([an_answer(1, number)], repeat_last=True), TASK, TEXT))
        for number in (3, 2)
    ]

    joined = merged([answers[0], replace(answers[1], output=answers[0].output)], TASK)

    (row_list,) = joined.missing_rows
    assert (row_list.found - row_list.kept, row_list.records) == (3, 3)


def test_counts_are_asked_about_texts_only() -> None:
    synthesis: AnalysisTask = replace(TASK, text="", answers=(json.loads(an_answer(1)),))
    model = ScriptedModel([an_answer(3, 3), an_answer(1)])

    ask(question(model, TASK, TEXT))
    ask(question(model, synthesis, ""))

    about_text, about_answers = (request.schema["properties"] for request in model.requests)
    assert list(json_values.as_object(about_text)) == ["counts", "data", "evidence"]
    assert list(json_values.as_object(about_answers)) == ["data", "evidence"]


@pytest.mark.parametrize(
    "translated",
    [
        schema_dialects.for_openai_strict,
        schema_dialects.for_anthropic,
        schema_dialects.for_llama_cpp,
    ],
)
def test_every_dialect_can_ask_for_counts(translated: object) -> None:
    assert callable(translated)
    schema = translated(Extraction().question_schema(OPTIONS))

    validation.problems({}, schema)
    assert schema["required"] == ["counts", "data", "evidence"]
    counts = schema["properties"]["counts"]
    assert list(counts["properties"]) == ["events", "report"]
    assert counts["additionalProperties"] is False
    assert counts["properties"]["events"]["type"] == "integer"


def test_examples_and_the_built_in_model_count_their_own_rows() -> None:
    example = Example(
        analysis_type=AnalysisType.EXTRACTION, text=TEXT, answer=json.loads(an_answer(3))
    )
    model = ScriptedModel([an_answer(3, 3)])

    ask(question(model, replace(TASK, options=replace(OPTIONS, examples=(example,))), TEXT))
    built_in = ask(question(ExtractiveModel(), TASK, TEXT))

    assert '{"counts": {"events": 3, "report": {"causes": 0}}, "data"' in model.requests[0].system
    assert built_in.missing_rows == ()
    assert built_in.output.keys() == {"data", "evidence"}


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        (closed(a={**COUNTED, "x-count": 3}), "not true or false"),
        (closed(a={"type": "string", "x-count": True}), "not on a list"),
        ({**closed(a=COUNTED), "x-count": True}, "not on a list"),
        (closed(a={**COUNTED, "uniqueItems": True}), "not on a list of rows that may repeat"),
        (closed(a={**COUNTED, "minItems": 2, "maxItems": 2}), "not on a list"),
        (closed(a={"type": "array", "items": closed(b=COUNTED)}), "inside of another list"),
        (closed(a={"type": "array", "items": COUNTED}), "inside of another list"),
        (closed(a={**COUNTED, "items": closed(b=COUNTED)}), "inside of another list"),
        (
            {
                **closed(a={"type": "array", "items": {"$ref": "#/$defs/row"}}),
                "$defs": {"row": closed(b=COUNTED)},
            },
            "inside of another list",
        ),
    ],
)
def test_a_misused_count_is_rejected(schema: JsonObject, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        check_schema(schema)

    assert '"x-count": true' in str(caught.value.hint)


def test_a_member_may_have_the_name_of_the_keyword() -> None:
    members: JsonObject = {"x-count": {"type": "string"}, "items": COUNTED}
    assert check_schema(closed(**members))
    assert check_schema({**closed(a={"$ref": "#/$defs/rows"}), "$defs": {"rows": COUNTED}})
    assert check_schema(closed(a={**COUNTED, "x-count": False, "uniqueItems": True}))
