"""The built-in model as a whole: valid, verbatim and repeatable answers to any text."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chordwise.domain import grounding, json_values, validation
from chordwise.domain.analyses.catalog import analysis_for
from chordwise.domain.json_values import JsonObject
from chordwise.domain.tasks import AnalysisOptions, AnalysisTask, AnalysisType, Stage
from chordwise.errors import AnswerTimeoutError
from chordwise.llm.model import CompletionRequest, FinishReason
from chordwise.llm.providers.extractive import ExtractiveModel, answer

LETTER = """Dear Ms. Miller,

thank you for your order of March 3, 2026. The total of $1,250.00 is due by April 2, 2026.
However, we were disappointed by the terrible packaging, and we regret the delay.
According to our records, 12 percent of the parcels arrived damaged. Therefore we conclude that
the carrier must be replaced. Please write to billing@example.com or call +1 555 010 9999.

Sincerely,
John Smith, Acme Corporation, Berlin
"""
SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "total": {"type": "number", "description": "The total amount"},
        "due_date": {"type": ["string", "null"], "format": "date"},
        "emails": {"type": "array", "items": {"type": "string", "format": "email"}},
        "carrier": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "sender": {"type": "object", "properties": {"name": {"type": "string"}}},
    },
    "required": ["emails"],
}
OPTIONS = (
    AnalysisOptions(),
    AnalysisOptions(instructions="total amount due, due date, e-mail address, weather; people"),
    AnalysisOptions(labels=("invoice", "letter", "news")),
    AnalysisOptions(labels=("positive", "negative")),
    AnalysisOptions(schema=SCHEMA),
)
EDGES = (
    "word",
    "...!?",
    "12345",
    " \n\t ",
    "",
    "。",
    "สวัสดี",
    "\x00\x01",
    "\U0001d4b3\U0001d4b4 🙂",
    "a\u0301b" * 9,
)
TEXTS = st.one_of(
    st.text(max_size=300),
    st.lists(st.sampled_from(LETTER.split(" ") + list(EDGES)), min_size=25, max_size=60).map(
        " ".join
    ),
)


def tasks(text: str) -> Iterator[AnalysisTask]:
    """Build a task for every type and each of its options."""
    for analysis_type in AnalysisType:
        for options in OPTIONS:
            if options.schema is None or analysis_type is AnalysisType.EXTRACTION:
                yield AnalysisTask(
                    analysis_type=analysis_type, stage=Stage.ANALYZE, options=options, text=text
                )


def problems(found: JsonObject, task: AnalysisTask) -> list[str]:
    """List everything that the pipeline would object to."""
    analysis = analysis_for(task.analysis_type)
    return validation.problems(found, analysis.schema(task.options)) + analysis.problems(
        found, task
    )


def quotes(found: JsonObject) -> list[str]:
    """List the quotes of an answer."""
    return [json_values.text(item["quote"]) for item in grounding.quotes(found)]


def request(task: AnalysisTask) -> CompletionRequest:
    """Ask about a task with a prompt that says nothing."""
    return CompletionRequest(
        task=task,
        system="",
        user="",
        schema={},
        schema_name="answer",
        prompt_version="none@1",
        max_output_tokens=1,
    )


@given(TEXTS)
@settings(deadline=None, max_examples=100)
def test_any_text_gets_a_valid_answer_with_verbatim_quotes(text: str) -> None:
    """Whatever the text, the answer keeps to the schema and quotes only what stands there."""
    for task in tasks(text):
        found = answer(task)

        assert problems(found, task) == []
        assert [quote for quote in quotes(found) if quote not in text or len(quote) > 400] == []


@pytest.mark.parametrize("text", EDGES)
def test_edge_texts_get_valid_answers(text: str) -> None:
    """One word, signs, digits, nothing at all: never an error, always a valid answer."""
    for task in tasks(text):
        assert problems(answer(task), task) == []


@given(st.lists(TEXTS, min_size=1, max_size=3))
@settings(deadline=None, max_examples=30)
def test_a_synthesis_is_valid_and_keeps_quotes(texts: list[str]) -> None:
    """Answers of chunks join to a valid answer in the form a model gives, with their quotes."""
    for position in range(len(list(tasks("")))):
        chunk_tasks = [list(tasks(text))[position] for text in texts]
        stored = [
            grounding.ground(answer(task), grounding.Source(task.text)) for task in chunk_tasks
        ]
        task = AnalysisTask(
            analysis_type=chunk_tasks[0].analysis_type,
            stage=Stage.SYNTHESIZE,
            options=chunk_tasks[0].options,
            answers=tuple(stored),
        )

        found = answer(task)

        assert problems(found, task) == []
        assert set(quotes(found)) <= {quote for one in stored for quote in quotes(one)}


@pytest.mark.parametrize("task", list(tasks(LETTER)), ids=lambda task: str(task.analysis_type))
def test_the_same_task_gets_the_same_answer(task: AnalysisTask) -> None:
    """Two instances agree to the byte."""
    one = ExtractiveModel().complete(request(task))
    other = ExtractiveModel().complete(request(task))

    assert one == other
    assert json.loads(one.text) == answer(task)


def test_a_completion_says_who_answered_and_what_it_took() -> None:
    """The rows must admit that no language model answered."""
    task = AnalysisTask(analysis_type=AnalysisType.SUMMARY, stage=Stage.ANALYZE, text=LETTER)

    completion = ExtractiveModel().complete(request(task))

    assert (completion.provider, completion.model) == ("extractive", "textrank-1")
    assert completion.finish_reason is FinishReason.STOP
    assert (completion.usage.input_tokens or 0) > 100
    assert (completion.usage.output_tokens or 0) > 50
    assert not ExtractiveModel().profile.understands_language


def test_a_repair_is_an_analysis_anew() -> None:
    """The stage repair reads the text again."""
    analyze, repair = (
        AnalysisTask(analysis_type=AnalysisType.SENTIMENT, stage=stage, text=LETTER)
        for stage in (Stage.ANALYZE, Stage.REPAIR)
    )

    assert answer(analyze) == answer(repair)


UNITS = ("word ", "x", ". ", "1 ", "Aa Bb\n", "(the “", "中", "\n \n", "a@b.", "if ", "$1,", "A. ")


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("analysis_type", list(AnalysisType))
def test_time_grows_with_the_length_and_no_faster(unit: str, analysis_type: AnalysisType) -> None:
    """No pattern runs away on a long text without structure."""
    options = AnalysisOptions(instructions="total due, date, phone, parties; risks")
    task = AnalysisTask(
        analysis_type=analysis_type,
        stage=Stage.ANALYZE,
        options=options,
        text=(unit * 100_000)[:100_000],
    )

    started = time.process_time()
    found = answer(task)
    seconds = time.process_time() - started

    assert problems(found, task) == []
    assert seconds < 3


def test_a_megabyte_without_a_sentence_end_is_summarized() -> None:
    """It is cut at words, and five pieces of it are quoted."""
    text = "some words without an end " * 40_000
    task = AnalysisTask(analysis_type=AnalysisType.SUMMARY, stage=Stage.ANALYZE, text=text)

    found = answer(task)

    assert problems(found, task) == []
    assert all(300 < len(quote) <= 400 for quote in quotes(found))


@pytest.mark.parametrize("task", list(tasks(LETTER)), ids=lambda task: str(task.analysis_type))
def test_an_answer_ends_when_its_time_is_up(task: AnalysisTask) -> None:
    """It is looked at between two sentences, whatever the analysis; the error says what to do."""
    minutes = itertools.count(step=60.0)
    model = ExtractiveModel(timeout_seconds=90, clock=lambda: next(minutes))

    with pytest.raises(AnswerTimeoutError, match="within 90 s") as raised:
        model.complete(request(task))

    assert "timeout_seconds" in raised.value.hint


def test_an_answer_has_no_more_time_than_is_left_for_the_question() -> None:
    """The time of a request counts where it is shorter, and for that request alone."""
    minutes = itertools.count(step=60.0)
    model = ExtractiveModel(timeout_seconds=100_000, clock=lambda: next(minutes))
    asked = request(next(tasks(LETTER)))

    with pytest.raises(AnswerTimeoutError, match="within 30 s"):
        model.complete(replace(asked, timeout_seconds=30))

    assert model.complete(asked).finish_reason is FinishReason.STOP
    assert answer(asked.task)
