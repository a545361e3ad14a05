"""Tests of merging the answers of chunks, and of the token budgets of questions and repairs."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise import errors
from chordwise.domain import grounding, json_values, tokens
from chordwise.domain.analysis_tasks import (
    AnalysisOptions,
    AnalysisTask,
    AnalysisType,
    Stage,
    options_from,
    options_to_json,
)
from chordwise.domain.answers import Answer
from chordwise.domain.chunking import split
from chordwise.domain.grounding import Source
from chordwise.llm.model import CompletionRequest, ModelProfile
from chordwise.pipeline.asking import Question, ask
from chordwise.pipeline.asking.merge import Synthesizer
from chordwise.pipeline.asking.question import (
    REPAIR_TOKENS,
    request_for,
    text_budget,
    with_problems,
)
from chordwise.pipeline.jobs.step import postponement
from chordwise.settings import PipelineSettings
from tests.fakes import order_rows
from tests.fakes.asking import ignore, question
from tests.fakes.completion_requests import a_task
from tests.fakes.pipeline import a_summary, quoting_the_text
from tests.fakes.scripted_model import Line, ScriptedModel, a_profile, cut_off

SENTENCES = [f"Sentence number {number} of the document is here. " for number in range(40)]
TEXT = "".join(SENTENCES)
TASK = AnalysisTask(analysis_type=AnalysisType.SUMMARY, stage=Stage.ANALYZE)


def small(context_tokens: int, limit: int = 300, raised: int | None = None) -> ModelProfile:
    """Return the profile of a model with a limit of output tokens, and a raised one on a retry."""
    return a_profile("script-1", context_tokens, limit, raised)


def an_answer(place: int, quote: str = "") -> Answer:
    """Return the answer about a chunk that is one sentence of the text."""
    start = sum(map(len, SENTENCES[:place]))
    text = SENTENCES[place]
    model = ScriptedModel([a_summary(quote or text.strip())])
    task, source = replace(TASK, text=text), Source(text, offset=start)
    return ask(Question(model=model, task=task, source=source, record_check=ignore))


def synthesizer(model: ScriptedModel) -> Synthesizer:
    return Synthesizer(document=question(model, TASK, TEXT))


def spans(answer: Answer) -> list[tuple[object, object, object]]:
    return [
        (quote["quote"], quote["start_char"], quote["end_char"])
        for quote in grounding.quotes(answer.output)
    ]


def test_a_synthesis_keeps_the_spans_of_the_chunks() -> None:
    """A quote that occurs repeatedly keeps its place; a single answer needs no synthesis."""
    model = ScriptedModel([a_summary("of the document", "number 7")])
    chunks = [an_answer(5, "of the document"), an_answer(7, "number 7")]

    single = synthesizer(model).synthesize(chunks[:1])
    assert (single.answer, single.error, model.requests) == (chunks[0], None, [])
    synthesis = synthesizer(model).synthesize(chunks)

    assert spans(synthesis.answer) == [span for chunk in chunks for span in spans(chunk)]
    assert synthesis.answer.prompt_version == "summary.synthesize@1"
    (request,) = model.requests
    assert request.task.answers == tuple(chunk.output for chunk in chunks)
    assert "start_char" not in request.user


def test_answers_that_exceed_the_context_are_merged_in_levels() -> None:
    model = ScriptedModel([quoting_the_text], profile=small(1_400), repeat_last=True)
    chunks = [an_answer(place) for place in range(13)]

    synthesis = synthesizer(model).synthesize(chunks)

    first_level = [answer for request in model.requests for answer in request.task.answers]
    assert all(chunk.output in first_level for chunk in chunks)
    assert len(model.requests) > 2
    for request in model.requests:
        needed = tokens.estimate(request.system + request.user) + request.max_output_tokens
        assert needed <= 1_400 or len(request.task.answers) == 2
    assert synthesis.error is None
    assert synthesis.answer.quality == 1.0


@pytest.mark.parametrize(
    "script", [["no JSON", "still none"], [errors.ContextTooLongError("too long")]]
)
def test_answers_are_merged_by_rule_if_the_synthesis_fails(script: list[Line]) -> None:
    """If time or the user can resolve the error, the job waits instead."""
    chunks = [an_answer(5), replace(an_answer(7), quality=0.5, repaired=True)]

    synthesis = synthesizer(ScriptedModel(script)).synthesize(chunks)

    assert synthesis.error is not None
    assert spans(synthesis.answer) == [span for chunk in chunks for span in spans(chunk)]
    assert (synthesis.answer.quality, synthesis.answer.repaired) == (0.6, True)
    for error in (errors.RateLimitedError("busy"), errors.ModelAccessError("no key")):
        with pytest.raises(type(error)):
            synthesizer(ScriptedModel([error])).synthesize(chunks)


def test_the_budget_leaves_room_for_prompt_and_answer() -> None:
    """Half of a medium context is left free; without room, the settings are wrong."""
    model = ScriptedModel([], profile=small(2_000))

    budget = text_budget(model, TASK, chunk_tokens=100_000).max_tokens

    longest = words(budget)
    assert tokens.estimate(longest) <= budget
    assert needed(request_for(model, replace(TASK, text=longest))) <= 2_000
    assert text_budget(model, TASK, chunk_tokens=80).max_tokens == 80
    task = replace(TASK, options=replace(TASK.options, chunk_tokens=60))
    assert text_budget(model, task, chunk_tokens=80).max_tokens == 60
    medium = text_budget(ScriptedModel([], profile=small(16_384)), TASK, None).max_tokens
    assert 5_000 < medium < 16_384 / 2
    with pytest.raises(errors.ConfigurationError, match="script-1") as caught:
        text_budget(ScriptedModel([], profile=small(700)), TASK, chunk_tokens=100)
    assert "max_output_tokens" in caught.value.hint


VALUES = json_values.as_object({"type": "object", "properties": {"fee": {"type": "number"}}})


@pytest.mark.parametrize(
    ("kind", "options", "context", "size"),
    [
        (AnalysisType.SUMMARY, AnalysisOptions(), 32_768, 12_000),
        (AnalysisType.SUMMARY, AnalysisOptions(), 1_000_000, 12_000),
        (AnalysisType.SUMMARY, AnalysisOptions(), 8_192, 3_000),
        (AnalysisType.CLASSIFICATION, AnalysisOptions(labels=("a", "b")), 32_768, 12_000),
        (AnalysisType.EXTRACTION, AnalysisOptions(instructions="fee, term"), 32_768, 12_000),
        (AnalysisType.EXTRACTION, AnalysisOptions(schema=VALUES), 32_768, 12_000),
        (AnalysisType.EXTRACTION, AnalysisOptions(), 32_768, 3_000),
        (AnalysisType.EXTRACTION, AnalysisOptions(schema=order_rows.SCHEMA), 1_000_000, 3_000),
    ],
)
def test_the_size_of_a_chunk_depends_on_the_context_and_the_answer(
    kind: AnalysisType, options: AnalysisOptions, context: int, size: int
) -> None:
    """Answers with lists grow with the text; an explicit size applies to every question."""
    model = ScriptedModel([], profile=small(context, 64_000 if context > 100_000 else 2_048))
    task = replace(TASK, text="", analysis_type=kind, options=options)

    assert text_budget(model, task, None).max_tokens == size
    assert text_budget(model, task, 700).max_tokens == 700


@pytest.mark.parametrize("limit", [1_000, 3_000])
def test_rows_with_their_quotes_fit_into_the_answer_about_a_chunk(limit: int) -> None:
    profile = small(100_000, limit)
    raised = replace(profile, max_output_tokens_on_retry=4 * limit)
    options = AnalysisOptions(schema=order_rows.SCHEMA)
    task = replace(TASK, analysis_type=AnalysisType.EXTRACTION, options=options)

    for model_profile, room in ((profile, limit), (raised, 2 * limit)):
        budget = text_budget(ScriptedModel([], profile=model_profile), task, chunk_tokens=100_000)
        part = split(order_rows.ORDER, *budget)[1]
        text = order_rows.ORDER[part.start_char : part.end_char]
        answer = order_rows.an_extraction(order_rows.rows_in(text))
        assert room / 2 < tokens.estimate(answer) <= room


PROSE = "The agency inspects the plants of the Supplier, who bears the costs of each visit. " * 4
NAMES: json_values.JsonObject = {
    "type": "object",
    "properties": {
        "parts": {
            "type": "array",
            "items": {"type": "object", "properties": {"name": {"type": "string"}}},
        }
    },
}


def test_only_the_records_of_a_text_need_small_chunks() -> None:
    """In prose few sentences have a row, however short the smallest row is.

    A contract of four pages, asked for single values, is one chunk.
    """
    task = replace(TASK, analysis_type=AnalysisType.EXTRACTION)
    rows = replace(task, options=AnalysisOptions(schema=NAMES))
    budget = text_budget(ScriptedModel([], profile=small(32_768, 2_048)), rows, None)
    prose = f"{PROSE}\n\n" * 200
    table = "".join(f"{number} | Part-{number}\n" for number in range(600))
    contract = "The Provider delivers the goods, and the Customer pays the fee. " * 188
    values = replace(task, options=AnalysisOptions(instructions="parties, fee, term"))

    sizes = [len(split(text, *budget)) for text in (prose, table, f"{prose}{table}\n{prose}")]

    assert sizes[0] <= tokens.estimate(prose) / 2_500
    assert 600 * 40 / 2_048 <= sizes[1] <= 600 * 50 / 2_048
    assert abs(sizes[2] - 2 * sizes[0] - sizes[1]) <= 1
    assert 12_000 < len(contract) < 12_100
    assert len(split(contract, *text_budget(ScriptedModel([]), values, None))) == 1


@given(
    st.builds(
        AnalysisOptions,
        instructions=st.text(),
        labels=st.lists(st.text()).map(tuple),
        schema=st.none() | st.just(json_values.as_object({"type": "object"})),
        confidence_threshold=st.none() | st.floats(0, 1),
        votes=st.integers(1, 15),
        critique=st.just(True),
        principles=st.lists(st.text()).map(tuple),
    )
)
def test_stored_options_are_restored(options: AnalysisOptions) -> None:
    """A row of an older version has fewer members and no threshold."""
    assert options_from(json.loads(json.dumps(options_to_json(options)))) == options
    assert options_from({}) == AnalysisOptions()


@given(st.integers(0, 40), st.integers(0, 1_000), st.none() | st.floats(0, 5_000))
def test_delays_grow_to_a_limit_and_respect_retry_after(
    before: int, seed: int, asked_for: float | None
) -> None:
    """The delay is between half and the whole of the doubled delay, and at least `Retry-After`."""
    settings = PipelineSettings(postponement_base_seconds=30, max_postponement_seconds=900)
    error = errors.RateLimitedError("busy")
    error.retry_after_seconds = asked_for

    wait = postponement(settings, before, error, Random(seed))  # noqa: S311 - jitter

    ceiling = min(900, 30 * 2**before)
    least = max(ceiling / 2, asked_for or 0)
    assert least - 1e-3 <= wait.total_seconds() <= max(ceiling, asked_for or 0) + 1e-3


CONTEXT = 2_000
WRONG = errors.InvalidAnswerError("“main_topic” is missing; " * 100)


def words(budget: float) -> str:
    """Return a text with this number of tokens, or one word less."""
    return "word " * int(budget / 5 * 4)


def needed(request: CompletionRequest) -> int:
    return tokens.estimate(request.system + request.user) + request.max_output_tokens


@given(st.text(min_size=1, max_size=5_000))
def test_the_remark_of_a_repair_fits_into_its_budget(problems: str) -> None:
    model = ScriptedModel([], profile=small(CONTEXT))
    request = request_for(model, a_task(AnalysisType.SUMMARY))

    again = with_problems(request, errors.InvalidAnswerError(problems), model.profile)

    remark = again.user.removeprefix(request.user)
    assert tokens.estimate(remark) <= REPAIR_TOKENS
    assert problems[:50] in remark


@pytest.mark.parametrize("analysis_type", list(AnalysisType))
def test_the_longest_text_leaves_room_for_a_repair(analysis_type: AnalysisType) -> None:
    """This holds for the answer, for its critique and for its revision."""
    model, task = ScriptedModel([], profile=small(CONTEXT)), a_task(analysis_type)
    wide = ScriptedModel([], profile=small(4_000))
    budget = text_budget(model, task, chunk_tokens=100_000).max_tokens
    uncritical = text_budget(wide, task, chunk_tokens=100_000).max_tokens
    critical = replace(task, options=AnalysisOptions(critique=True))
    critical_budget = text_budget(wide, critical, chunk_tokens=100_000).max_tokens
    draft = json_values.as_object({"main_topic": words(150 - 20)})
    problem = json_values.as_object({"principle": "p", "path": "/a", "problem": "It is wrong."})
    about = replace(critical, text=words(critical_budget), draft=draft)
    request = request_for(model, replace(task, text=words(budget)))
    critique = request_for(wide, replace(about, stage=Stage.CRITIQUE))
    revision = request_for(wide, replace(about, stage=Stage.REVISE, violations=(problem,)))

    again = with_problems(request, WRONG, model.profile)
    repairs = [with_problems(other, WRONG, wide.profile) for other in (critique, revision)]

    assert needed(request) < needed(again) <= CONTEXT
    assert again.max_output_tokens == 300
    assert critical_budget < uncritical
    assert all(needed(repair) <= 4_000 for repair in repairs)


def test_a_raised_limit_leaves_room_for_the_remark_of_a_repair() -> None:
    """A retry after truncation may use the whole context; its repair uses the rest."""
    text = "The harbour of Lindau was rebuilt in 1856."
    script: list[Line] = [cut_off("{"), "no JSON", a_summary("rebuilt in 1856")]
    model = ScriptedModel(script, profile=small(1_000, raised=5_000))
    task = replace(a_task(AnalysisType.SUMMARY), text=text)

    ask(question(model, task, text))

    first, raised, repaired = model.requests
    assert first.max_output_tokens == 300
    assert needed(raised) == CONTEXT / 2
    assert needed(repaired) == CONTEXT / 2
    assert 300 < repaired.max_output_tokens < raised.max_output_tokens


def test_a_synthesis_leaves_room_for_its_repair() -> None:
    """Two answers are the minimum and are sent even if they do not fit."""
    model = ScriptedModel([a_summary("rebuilt")], profile=small(CONTEXT), repeat_last=True)
    document = question(model, a_task(AnalysisType.SUMMARY), "It was rebuilt.")
    short = an_answer(0)
    answers = [
        replace(short, output={**short.output, "main_topic": f"Chunk {number}."})
        for number in range(60)
    ]

    Synthesizer(document=document).synthesize(answers)

    joining = [request for request in model.requests if len(request.task.answers) > 2]
    repairs = [with_problems(request, WRONG, model.profile) for request in joining]
    assert joining
    assert all(needed(request) <= CONTEXT for request in repairs)
    assert max(needed(request) for request in repairs) > CONTEXT - 150
