"""Tests of examples: their validation and their place in the prompt."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from chordwise.domain import examples
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import (
    AnalysisOptions,
    AnalysisTask,
    AnalysisType,
    Example,
    Stage,
)
from chordwise.domain.json_values import JsonValue
from chordwise.domain.prompts import render
from chordwise.errors import UsageError
from chordwise.prompts import library
from tests.fakes.pipeline import a_summary

TEXT = "The mill burned down in 1911. Nobody was hurt."
GIVEN: dict[str, JsonValue] = {"type": "summary", "text": TEXT, "answer": a_summary("burned down")}


def an_example() -> Example:
    (example,) = examples.parse([dict(GIVEN)])
    return example


def test_an_answer_is_an_object_or_its_json() -> None:
    """TOML has no null, so JSON text is accepted instead of an object."""
    as_object = GIVEN | {"answer": json.loads(a_summary("burned down"))}

    assert examples.parse([as_object]) == (an_example(),)


@pytest.mark.parametrize(
    ("stored", "complaint"),
    [
        (None, "a list of 1 to 10"),
        ([], "a list of 1 to 10"),
        ([GIVEN] * 11, "a list of 1 to 10"),
        ([GIVEN | {"type": "poem"}], "Example 1 needs type, text"),
        ([GIVEN | {"text": " "}], "Example 1 needs type, text"),
        ([GIVEN | {"text": "x" * 4_001}], "Example 1 needs type, text"),
        ([GIVEN, GIVEN | {"answer": "{"}], "answer of example 2 is not JSON"),
        ([GIVEN | {"answer": "[]"}], "Example 1 needs type, text"),
    ],
)
def test_an_invalid_example_is_rejected(stored: JsonValue, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        examples.parse(stored)


def test_the_answer_of_an_example_must_be_a_valid_answer() -> None:
    example, options = an_example(), AnalysisOptions()
    foreign = replace(example, text="Another text.")
    as_classification = replace(example, analysis_type=AnalysisType.CLASSIFICATION)

    assert examples.problem(example, options) == ""
    assert examples.problem(foreign, options) == "a quote of its answer is not in its text"
    assert "primary_label" in examples.problem(as_classification, options)


@pytest.mark.parametrize(
    ("stage", "kind", "is_shown"),
    [
        (Stage.ANALYZE, AnalysisType.SUMMARY, True),
        (Stage.SYNTHESIZE, AnalysisType.SUMMARY, False),
        (Stage.ANALYZE, AnalysisType.SENTIMENT, False),
    ],
)
def test_prompts_include_the_examples_of_their_type(
    stage: Stage, kind: AnalysisType, *, is_shown: bool
) -> None:
    options = AnalysisOptions(examples=(an_example(),))
    task = AnalysisTask(analysis_type=kind, stage=stage, text="t", options=options)

    prompt = render(library.template_for(task), task, analysis_for(kind).schema(options))

    shown = f"Example 1, the text:\n{TEXT}\nExample 1, the answer:\n{{"
    assert (shown in prompt.system) is is_shown
    assert ("do not take values or quotes from them" in prompt.system) is is_shown
    assert TEXT not in prompt.user
