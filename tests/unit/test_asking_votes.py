"""Tests of self-consistency: several samples of one question, and samples that fail."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask, AnalysisType, Stage
from chordwise.domain.answers import Answer
from chordwise.errors import (
    AwaitingBatchError,
    BudgetExceededError,
    ChordwiseError,
    InvalidAnswerError,
    LeaseLostError,
    ModelOverloadedError,
    ModelRequestError,
    RateLimitedError,
    RefusedError,
)
from chordwise.llm.middleware.cached import key_of
from chordwise.llm.model import Completion
from chordwise.llm.providers.extractive import ExtractiveModel
from chordwise.pipeline.asking import AskingPolicy, ask
from chordwise.pipeline.asking.question import ONE_PROMPT
from tests.fakes import completion_requests as requests
from tests.fakes.asking import TEXT, question
from tests.fakes.pipeline import a_label
from tests.fakes.scripted_model import Line, ScriptedModel


def a_task(votes: int) -> AnalysisTask:
    return requests.a_task(AnalysisType.CLASSIFICATION, TEXT, AnalysisOptions(votes=votes))


def ask_samples(
    *script: Line, votes: int = 3, policy: AskingPolicy = ONE_PROMPT
) -> tuple[Answer, ScriptedModel]:
    model = ScriptedModel(script)
    return ask(replace(question(model, a_task(votes), TEXT), policy=policy)), model


def test_the_answer_of_the_majority_is_used_and_grounded() -> None:
    answer, model = ask_samples(a_label("history"), a_label("money"), a_label("history"))

    assert answer.output["primary_label"] == "history"
    assert answer.agreement == pytest.approx(2 / 3, abs=1e-6)
    assert answer.output["features"] == [
        {
            "feature": "it says so",
            "quote": "rebuilt in 1856",
            "start_char": 26,
            "end_char": 41,
            "grounded": True,
            "grounding": "exact",
        }
    ]
    assert [request.task.sample for request in model.requests] == [1, 2, 3]


def test_every_sample_has_its_own_cache_key_and_the_first_the_usual_one() -> None:
    """The cache and single flight never share an answer between two samples or their repairs."""
    _, voted = ask_samples(*[a_label("history")] * 3)
    alone, usual = ask_samples(a_label("history"), votes=1)
    _, repaired = ask_samples("no JSON", a_label("a"), "no JSON", a_label("a"), votes=2)

    keys = [key_of(request, {}) for request in voted.requests]

    assert len(set(keys)) == 3
    assert [keys[0]] == [key_of(request, {}) for request in usual.requests]
    assert alone.agreement is None
    samples = [(request.task.sample, request.task.stage) for request in repaired.requests]
    assert samples == [(n, stage) for n in (1, 2) for stage in (Stage.ANALYZE, Stage.REPAIR)]
    assert len({key_of(request, {}) for request in repaired.requests}) == 4


@pytest.mark.parametrize(
    ("script", "agreement"),
    [
        ([a_label("a"), RefusedError("The model declined."), a_label("a")], 1),
        ([a_label("a"), ModelOverloadedError("It is broken for now."), a_label("a")], 1),
        ([a_label("a"), "no JSON", "nor this", a_label("a")], 1),
        ([a_label("a"), ModelRequestError("It is rejected."), a_label("a")], 1),
        ([RefusedError("No."), a_label("a"), RefusedError("No.")], None),
    ],
)
def test_a_sample_that_fails_has_no_vote(script: list[Line], agreement: float | None) -> None:
    answer, model = ask_samples(*script)

    assert (answer.output["primary_label"], answer.agreement) == ("a", agreement)
    assert model.requests[-1].task.sample == 3


@pytest.mark.parametrize(
    ("errors", "raised"),
    [
        (["no JSON"] * 6, InvalidAnswerError),
        ([RefusedError("a"), RefusedError("b"), RefusedError("c")], RefusedError),
        ([RefusedError("a"), ModelOverloadedError("b"), RefusedError("c")], ModelOverloadedError),
    ],
)
def test_without_any_sample_the_question_fails_as_usual(
    errors: list[Line], raised: type[ChordwiseError]
) -> None:
    with pytest.raises(raised):
        ask_samples(*errors)


@pytest.mark.parametrize(
    ("script", "samples"),
    [
        ([a_label("a"), BudgetExceededError("No money.")], [1, 2]),
        ([a_label("a"), RateLimitedError("Wait.", "")], [1, 2]),
        ([ModelRequestError("It is rejected.")], [1]),
        ([AwaitingBatchError("1"), a_label("a"), AwaitingBatchError("3")], [1, 2, 3]),
    ],
)
def test_errors_that_concern_every_sample_end_the_vote(
    script: list[Line], samples: list[int]
) -> None:
    """These are spent budgets, rate limits, and a rejected first request.

    All samples wait for the same batch.
    """
    model = ScriptedModel(script)

    with pytest.raises(ChordwiseError) as raised:
        ask(question(model, a_task(3), TEXT))

    assert raised.value in (script[0], script[-1])
    assert [request.task.sample for request in model.requests] == samples


def test_samples_share_the_timeout_of_the_question() -> None:
    ticks = itertools.count(0, 10)
    policy = AskingPolicy(seconds=65, clock=lambda: float(next(ticks)))

    answer, model = ask_samples(a_label("a"), a_label("a"), policy=policy)

    assert answer.agreement == 1
    assert len(model.requests) == 2
    first, second = (request.timeout_seconds for request in model.requests)
    assert first is not None
    assert second is not None
    assert second < first < 65


def test_no_request_is_sent_after_the_lease_was_lost() -> None:
    """The answers to further samples and repairs would be paid for and discarded."""
    holds = iter([True, True, False])

    def require() -> None:
        if not next(holds):
            raise LeaseLostError("Another worker has the chunk.")

    model = ScriptedModel([a_label("a"), "no JSON"])
    voted_question = question(model, a_task(5), TEXT)

    with pytest.raises(LeaseLostError):
        ask(replace(voted_question, policy=AskingPolicy(require=require)))

    assert len(model.requests) == 2


def test_the_built_in_model_has_no_vote() -> None:
    """It is asked once, because it is deterministic.

    As a fallback beside language models it is not counted; alone, it has no agreement.
    """
    built_in: Completion = replace(
        ScriptedModel([]).completion(a_label("b")), provider="extractive"
    )

    mixed, _ = ask_samples(built_in, built_in, a_label("a"))
    alone, _ = ask_samples(built_in, built_in, built_in)

    assert ask(question(ExtractiveModel(), a_task(5), TEXT)).agreement is None
    assert (mixed.output["primary_label"], mixed.agreement) == ("a", None)
    assert (alone.output["primary_label"], alone.agreement) == ("b", None)
