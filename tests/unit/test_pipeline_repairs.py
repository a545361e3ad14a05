"""A question that is repeated with what was wrong with its answer never overflows the model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.domain import json_values, tokens
from chordwise.domain.answers import Answer
from chordwise.domain.tasks import AnalysisOptions, AnalysisTask, AnalysisType, Stage
from chordwise.errors import InvalidAnswerError
from chordwise.llm.model import Completion, CompletionRequest, FinishReason, ModelProfile
from chordwise.pipeline.asking import ask
from chordwise.pipeline.asking.check import CheckResult
from chordwise.pipeline.asking.merge import Synthesizer
from chordwise.pipeline.asking.question import (
    REPAIR_TOKENS,
    request_for,
    text_budget,
    with_problems,
)
from tests.fakes.asking import question
from tests.fakes.pipeline import a_summary
from tests.fakes.scripted_model import Line, ScriptedModel

CONTEXT = 2_000
WRONG = InvalidAnswerError("“main_topic” is missing; " * 100)
TYPES = pytest.mark.parametrize("analysis_type", list(AnalysisType))


def a_profile(context_tokens: int = CONTEXT, most: int | None = None) -> ModelProfile:
    """Return the profile of a model whose answers have 300 tokens, or up to `most`."""
    return ModelProfile(
        provider="scripted",
        model="script-1",
        context_tokens=context_tokens,
        max_output_tokens=300,
        max_output_tokens_on_retry=most,
    )


def a_model(context_tokens: int = CONTEXT) -> ScriptedModel:
    """Return a model with a small context that nobody asks."""
    return ScriptedModel([], profile=a_profile(context_tokens))


def a_task(analysis_type: AnalysisType, *, critique: bool = False) -> AnalysisTask:
    """Return a question without a text."""
    return AnalysisTask(
        analysis_type=analysis_type,
        stage=Stage.ANALYZE,
        options=AnalysisOptions(critique=critique),
    )


def words(budget: float) -> str:
    """Return a text that takes so many tokens, a word less at most."""
    return "word " * int(budget / 5 * 4)


def needed(request: CompletionRequest) -> int:
    """Return the tokens that a request and its answer take."""
    return tokens.estimate(request.system + request.user) + request.max_output_tokens


def ignore(_completion: Completion, _verdict: CheckResult) -> None:
    """Keep no ledger."""


def cut_off(text: str) -> Completion:
    """Return an answer that hit the output limit."""
    return replace(ScriptedModel([]).completion(text), finish_reason=FinishReason.LENGTH)


def an_answer(number: int) -> Answer:
    """Return the answer of a chunk."""
    text = f"{number}. The harbour was rebuilt."
    model = ScriptedModel([a_summary("rebuilt", topic=f"Chunk {number}.")])
    return ask(question(model, replace(a_task(AnalysisType.SUMMARY), text=text), text))


@given(st.text(min_size=1, max_size=5_000))
def test_the_remark_of_a_repair_has_the_room_that_is_left_for_it(problems: str) -> None:
    """However much is wrong with an answer."""
    model = a_model()
    request = request_for(model, a_task(AnalysisType.SUMMARY))

    again = with_problems(request, InvalidAnswerError(problems), model.profile)

    remark = again.user.removeprefix(request.user)
    assert tokens.estimate(remark) <= REPAIR_TOKENS
    assert problems[:50] in remark


@TYPES
def test_the_longest_text_leaves_room_for_a_repair(analysis_type: AnalysisType) -> None:
    """The budget of a text counts with the remark below its question."""
    model, task = a_model(), a_task(analysis_type)
    budget = text_budget(model, task, chunk_tokens=100_000)
    request = request_for(model, replace(task, text=words(budget)))

    again = with_problems(request, WRONG, model.profile)

    assert needed(request) < needed(again) <= CONTEXT
    assert again.max_output_tokens == 300


@TYPES
def test_the_critique_of_an_answer_leaves_room_for_its_repair(analysis_type: AnalysisType) -> None:
    """As much as a question does, with an answer of half the limit below the text."""
    context = 4_000
    model, task = a_model(context), a_task(analysis_type, critique=True)
    budget = text_budget(model, task, chunk_tokens=100_000)
    draft = json_values.as_object({"main_topic": words(150 - 20)})
    problem = json_values.as_object({"principle": "p", "path": "/a", "problem": "It is wrong."})
    about = replace(task, text=words(budget), draft=draft)
    critique = request_for(model, replace(about, stage=Stage.CRITIQUE))
    revision = request_for(model, replace(about, stage=Stage.REVISE, violations=(problem,)))

    repairs = [with_problems(each, WRONG, model.profile) for each in (critique, revision)]

    assert all(needed(each) <= context for each in repairs)


def test_a_raised_limit_gives_way_to_the_remark_of_a_repair() -> None:
    """An answer that was cut off may have the whole context, and its repair as much as is left."""
    text = "The harbour of Lindau was rebuilt in 1856."
    script: list[Line] = [cut_off("{"), "no JSON", a_summary("rebuilt in 1856")]
    model = ScriptedModel(script, profile=a_profile(1_000, most=5_000))
    task = replace(a_task(AnalysisType.SUMMARY), text=text)

    ask(question(model, task, text))

    first, raised, repaired = model.requests
    assert first.max_output_tokens == 300
    assert needed(raised) == CONTEXT / 2
    assert needed(repaired) == CONTEXT / 2
    assert 300 < repaired.max_output_tokens < raised.max_output_tokens


def test_answers_that_are_joined_leave_room_for_a_repair() -> None:
    """Whatever fits one question fits its repetition: two answers are the least, and go anyway."""
    model = ScriptedModel([a_summary("rebuilt")], profile=a_profile(), repeat_last=True)
    task = a_task(AnalysisType.SUMMARY)
    synthesizer = Synthesizer(document=question(model, task, "It was rebuilt."))

    synthesizer.synthesize([an_answer(number) for number in range(60)])

    joining = [each for each in model.requests if len(each.task.answers) > 2]
    repairs = [with_problems(each, WRONG, model.profile) for each in joining]
    assert joining
    assert all(needed(each) <= CONTEXT for each in repairs)
    assert max(needed(each) for each in repairs) > CONTEXT - 150
