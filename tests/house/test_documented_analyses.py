"""Tests that the examples in docs/analyses.md are valid, with quotes from the samples."""

from __future__ import annotations

import json
import re

import pytest

from chordwise.domain import grounding, validation
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask, AnalysisType, Stage
from chordwise.domain.json_values import JsonObject
from tests.house.checkout import ROOT

TEXT = (ROOT / "docs" / "analyses.md").read_text("utf-8")
SAMPLES = [
    file.read_text("utf-8")
    for file in sorted((ROOT / "samples").iterdir())
    if file.suffix in (".txt", ".md")
]
OPTIONS = {
    AnalysisType.EXTRACTION: AnalysisOptions(instructions="annual fee, arbitration"),
    AnalysisType.CLASSIFICATION: AnalysisOptions(labels=("contract", "letter", "report")),
}
OWN_SCHEMA = AnalysisOptions(
    schema={"type": "object", "properties": {"annual_fee": {"type": "number"}}}
)


def described(analysis_type: AnalysisType) -> str:
    (content,) = re.findall(rf"(?ms)^## {analysis_type}\n(.*?)(?=^## |\Z)", TEXT)
    return str(content)


def examples(analysis_type: AnalysisType) -> list[tuple[AnalysisOptions, JsonObject]]:
    blocks = re.findall(r"(?ms)^```json\n(.*?)^```", described(analysis_type))
    options = [OPTIONS.get(analysis_type, AnalysisOptions()), OWN_SCHEMA]
    return [(option, json.loads(block)) for option, block in zip(options, blocks, strict=False)]


@pytest.mark.parametrize("analysis_type", list(AnalysisType))
def test_every_member_of_an_answer_is_explained(analysis_type: AnalysisType) -> None:
    """Every property of the schema is in the table of its type."""
    text = described(analysis_type)

    for options, _ in examples(analysis_type):
        members = analysis_for(analysis_type).schema(options)["properties"]
        assert isinstance(members, dict)
        assert [name for name in members if not re.search(rf"`{name}[`\[]", text)] == []


@pytest.mark.parametrize("analysis_type", list(AnalysisType))
def test_examples_are_valid(analysis_type: AnalysisType) -> None:
    """An example passes schema and checks, and is not changed by completion."""
    analysis = analysis_for(analysis_type)

    listed = examples(analysis_type)

    assert len(listed) == (2 if analysis_type == AnalysisType.EXTRACTION else 1)
    for options, output in listed:
        schema = analysis.schema(options)
        properties = schema["properties"]
        assert isinstance(properties, dict)
        answer = {name: value for name, value in output.items() if name in properties}
        bare = grounding.without_spans(answer)
        assert isinstance(bare, dict)
        task = AnalysisTask(analysis_type=analysis_type, stage=Stage.ANALYZE, options=options)
        assert validation.problems(bare, schema) + analysis.problems(bare, task) == []
        assert analysis.complete(answer, options) == output


@pytest.mark.parametrize("analysis_type", list(AnalysisType))
def test_quotes_of_examples_are_in_a_sample(analysis_type: AnalysisType) -> None:
    """Each grounded quote is found at its offsets in one of the files."""
    quotes = [item for _, output in examples(analysis_type) for item in grounding.quotes(output)]

    assert quotes
    for item in quotes:
        start, end = item["start_char"], item["end_char"]
        assert isinstance(start, int)
        assert isinstance(end, int)
        assert item["quote"] in [text[start:end] for text in SAMPLES]
