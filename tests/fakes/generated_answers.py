"""Generates answers: valid ones from the schemas, and those of the built-in model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import strategies as st

from chordwise.domain import grounding, json_values
from chordwise.domain.analyses import extraction
from chordwise.domain.analysis import AnalysisDefinition, analysis_for
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask, AnalysisType, Stage
from chordwise.domain.grounding import Source
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.llm.providers.extractive import answer

SENTENCES = (
    "The harbour was rebuilt in 1856.",
    "It cost more than the town had planned.",
    "Das Café öffnet um 8 Uhr.",
    "会議は五月に開かれた。",
)
TEXT = " ".join(SENTENCES)
WORDS = st.sampled_from([*SENTENCES, "A thing nobody wrote.", "It", "Sports", "sports", "x" * 30])
OPTIONS = {
    AnalysisType.EXTRACTION: AnalysisOptions(instructions="harbour, cost"),
    AnalysisType.CLASSIFICATION: AnalysisOptions(labels=("news", "sports", "law")),
}


def options_for(analysis_type: AnalysisType) -> AnalysisOptions:
    """Return the options under which the answers of a type are generated."""
    return OPTIONS.get(analysis_type, AnalysisOptions())


def task_for(analysis_type: AnalysisType, text: str = TEXT) -> AnalysisTask:
    options = options_for(analysis_type)
    return AnalysisTask(
        analysis_type=analysis_type, stage=Stage.ANALYZE, options=options, text=text
    )


def a_field(item: str, value: str | None, points: int | None = 5, **more: JsonValue) -> JsonObject:
    """Return an entry of an extraction, quoted as it is; without a value it is not mentioned."""
    status = extraction.NOT_MENTIONED if value is None else extraction.FOUND
    entry = {"item": item, "status": status, "value": value, "quote": value, "confidence": points}
    return {**json_values.as_object(entry), **more}


@st.composite
def grounded_answers(
    draw: st.DrawFn, analysis_type: AnalysisType, max_chunks: int = 5
) -> list[JsonObject]:
    """Draw the grounded answers of consecutive chunks; the text of each chunk is `TEXT`."""
    count = draw(st.integers(1, max_chunks))
    without_reasoning = analysis_for(analysis_type).without_reasoning
    drawn = [without_reasoning(draw(answers(analysis_type))) for _ in range(count)]
    offsets = [place * (len(TEXT) + 1) for place in range(count)]
    return [
        grounding.ground(answer, Source(TEXT, offset=offset))
        for answer, offset in zip(drawn, offsets, strict=True)
    ]


def answers(analysis_type: AnalysisType) -> st.SearchStrategy[JsonObject]:
    """Return valid answers of a type, before grounding."""
    analysis = analysis_for(analysis_type)
    made = from_schema(analysis.schema(options_for(analysis_type))).map(json_values.as_object)
    if analysis_type == AnalysisType.EXTRACTION:
        made = made.map(_complete_fields)
    return made.filter(lambda answer: _holds(analysis, answer))


def from_schema(schema: JsonObject) -> st.SearchStrategy[JsonValue]:
    """Return values of a schema that consists of the building blocks of `domain.schemas`."""
    if isinstance(choices := schema.get("enum"), list):
        return st.sampled_from(choices)
    match schema["type"]:
        case "object":
            return _objects(schema)
        case "array":
            items = from_schema(json_values.as_object(schema["items"]))
            low, high = _min_items(schema), _max_items(schema)
            return st.lists(items, min_size=low, max_size=high).map(list)
        case "integer" | "number":
            return _numbers(schema)
        case [_, "null"]:
            return st.one_of(st.none(), WORDS)
        case _:
            return WORDS


def _objects(schema: JsonObject) -> st.SearchStrategy[JsonValue]:
    members = json_values.as_object(schema["properties"])
    parts = {name: from_schema(json_values.as_object(part)) for name, part in members.items()}
    return st.fixed_dictionaries(parts).map(json_values.as_object)


def _numbers(schema: JsonObject) -> st.SearchStrategy[JsonValue]:
    low, high = json_values.number(schema["minimum"]), json_values.number(schema["maximum"])
    assert low is not None
    assert high is not None
    if schema["type"] == "integer":
        return st.integers(int(low), int(high))
    return st.floats(low, high)


def _min_items(schema: JsonObject) -> int:
    return int(json_values.number(schema.get("minItems")) or 0)


def _max_items(schema: JsonObject) -> int:
    return int(json_values.number(schema.get("maxItems")) or 6)


def _holds(analysis: AnalysisDefinition, answer: JsonObject) -> bool:
    return not analysis.problems(answer, task_for(analysis.type))


def _complete_fields(answer: JsonObject) -> JsonObject:
    """Give every item an entry, and every found entry a value and a quote."""
    fields = json_values.objects(answer["fields"])
    for item in extraction.items(options_for(AnalysisType.EXTRACTION)):
        if item not in {field["item"] for field in fields}:
            fields.append({"item": item, "status": extraction.NOT_MENTIONED, "confidence": 5})
    entries: Sequence[JsonObject] = [_consistent(field) for field in fields]
    return {"fields": list(entries)}


def _consistent(field: JsonObject) -> JsonObject:
    if field["status"] == extraction.NOT_MENTIONED:
        return {**field, "value": None, "quote": None}
    return {
        **field,
        "value": field.get("value") or "a value",
        "quote": field.get("quote") or SENTENCES[0],
    }


def answer_from_chunks(
    analysis_type: AnalysisType, texts: Sequence[str], options: AnalysisOptions
) -> JsonObject:
    """Return the built-in model's answer about a document with these chunks."""
    task = AnalysisTask(analysis_type=analysis_type, stage=Stage.ANALYZE, options=options)
    stored = tuple(answer(replace(task, text=text)) for text in texts)
    return answer(replace(task, stage=Stage.SYNTHESIZE, answers=stored))
