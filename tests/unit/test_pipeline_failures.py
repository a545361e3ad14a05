"""Each failure has its own rule: more room, other words, a smaller text, another model."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from chordwise.domain import tokens
from chordwise.errors import (
    BudgetExceededError,
    ChordwiseError,
    InvalidAnswerError,
    ModelAccessError,
    ModelError,
    RateLimitedError,
    RefusedError,
    TruncatedError,
)
from chordwise.llm.middleware.fallback import Fallback
from chordwise.llm.model import Completion, FinishReason, ModelProfile
from chordwise.pipeline.asking import AskingPolicy, ask
from chordwise.pipeline.asking.check import CheckResult
from chordwise.pipeline.asking.question import policy_of
from chordwise.settings import Settings
from tests.fakes.asking import GOOD, PLAIN, TASK, asked, question
from tests.fakes.scripted_model import Answer as Line
from tests.fakes.scripted_model import ScriptedModel

USUAL_VERSION, PLAIN_VERSION = "summary.analyze@2", "summary.analyze-plain@1"


def a_model(*script: Line, name: str = "script-1", most: int | None = 800) -> ScriptedModel:
    """Return a model whose answers have 200 tokens, and `most` where they were cut off."""
    profile = ModelProfile(
        provider="scripted",
        model=name,
        context_tokens=8_000,
        max_output_tokens=200,
        max_output_tokens_on_retry=most,
    )
    return ScriptedModel(script, profile=profile)


def cut_off(text: str = GOOD) -> Completion:
    """Return an answer that hit the output limit, although it looks whole."""
    return replace(ScriptedModel([]).completion(text), finish_reason=FinishReason.LENGTH)


def falling_back(*models: ScriptedModel) -> Fallback:
    """Return a model with fallbacks, of whose changes nobody hears."""
    return Fallback(models, lambda *_: None)


def versions(model: ScriptedModel) -> list[str]:
    """Return the prompts with which a model was asked."""
    return [request.prompt_version for request in model.requests]


def test_an_answer_that_was_cut_off_is_asked_for_with_more_room() -> None:
    """Twice as much, with the same words; what was cut off counts as invalid in the ledger."""
    model, verdicts = a_model(cut_off(), GOOD), list[CheckResult]()

    heard = replace(question(model, TASK), record_check=lambda _, verdict: verdicts.append(verdict))
    answer = ask(heard)

    first, second = model.requests
    assert [request.max_output_tokens for request in model.requests] == [200, 400]
    assert second == replace(first, max_output_tokens=400)
    assert [verdict.valid for verdict in verdicts] == [False, True]
    assert not answer.repaired


@pytest.mark.parametrize("most", [None, 200, 100])
def test_a_limit_that_cannot_be_raised_is_the_end(most: int | None) -> None:
    """Never is the answer taken for one."""
    model = a_model(cut_off(), most=most)

    with pytest.raises(TruncatedError):
        asked(model)

    assert len(model.requests) == 1


def test_a_limit_is_raised_once() -> None:
    """A model that never stops is not asked a third time."""
    model = a_model(cut_off(), cut_off())

    with pytest.raises(TruncatedError):
        asked(model)

    assert len(model.requests) == 2


def test_a_raised_limit_holds_for_the_repair() -> None:
    """Long and invalid: what is asked again has the room from the beginning, and no more."""
    model = a_model(cut_off(), "no JSON", cut_off())

    with pytest.raises(TruncatedError):
        asked(model)

    assert [request.max_output_tokens for request in model.requests] == [200, 400, 400]


def test_a_limit_is_not_raised_beyond_the_context() -> None:
    """Prompt and answer still fit into it together."""
    profile = ModelProfile(
        provider="scripted",
        model="small",
        context_tokens=1_000,
        max_output_tokens=300,
        max_output_tokens_on_retry=5_000,
    )
    model = ScriptedModel([cut_off(), GOOD], profile=profile)

    asked(model)

    raised = model.requests[1]
    prompt = tokens.estimate(raised.system + raised.user)
    assert 300 < raised.max_output_tokens < 600
    assert raised.max_output_tokens + prompt == 1_000


def test_an_answer_that_stays_invalid_is_asked_for_in_plainer_words() -> None:
    """After its repair; the answer and the ledger name the prompt that brought it."""
    model = a_model("no JSON", "{}", GOOD)

    answer = asked(model)

    assert versions(model) == [USUAL_VERSION, USUAL_VERSION, PLAIN_VERSION]
    assert [request.task.stage for request in model.requests] == ["analyze", "repair", "analyze"]
    assert (answer.prompt_version, answer.repaired) == (PLAIN_VERSION, False)


def test_without_further_prompts_an_invalid_answer_is_the_end() -> None:
    """As configured."""
    model = a_model("no JSON", "{}")

    with pytest.raises(InvalidAnswerError):
        asked(model, AskingPolicy())

    assert versions(model) == [USUAL_VERSION] * 2


def test_all_calls_of_a_question_share_its_time() -> None:
    """Each is told what is left, repair and further prompts included."""
    model = a_model("no JSON", "{}", "no JSON", GOOD)
    times = iter(range(0, 1_000, 10))

    asked(model, AskingPolicy(prompts=("plain",), seconds=100, clock=lambda: float(next(times))))

    left = [request.timeout_seconds for request in model.requests]
    assert left[0] == 90
    assert left == sorted(left, key=lambda seconds: -(seconds or 0))
    assert len(set(left)) == 4


def test_further_models_are_asked_after_further_prompts() -> None:
    """Each with every prompt, in the order of the settings."""
    first = a_model("no JSON", "{}", "no JSON", "{}")
    second = a_model("no JSON", "{}", GOOD, name="script-2")

    answer = asked(falling_back(first, second))

    assert versions(first) == [USUAL_VERSION, USUAL_VERSION, PLAIN_VERSION, PLAIN_VERSION]
    assert versions(second) == [USUAL_VERSION, USUAL_VERSION, PLAIN_VERSION]
    assert (answer.model, answer.prompt_version) == ("script-2", PLAIN_VERSION)


@pytest.mark.parametrize(
    "line", [RefusedError("no"), replace(cut_off("I won't."), finish_reason=FinishReason.REFUSAL)]
)
def test_a_refusal_is_never_taken_for_a_mistake(line: Line) -> None:
    """Neither other words nor other models are tried against it."""
    first, second = a_model("no JSON", line), a_model(name="script-2")

    with pytest.raises(RefusedError):
        asked(falling_back(first, second))

    assert (len(first.requests), second.requests) == (2, [])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ModelAccessError("no key"), InvalidAnswerError),
        (RefusedError("no"), InvalidAnswerError),
        (RateLimitedError("busy"), RateLimitedError),
        (BudgetExceededError("spent"), BudgetExceededError),
    ],
)
def test_what_is_wrong_with_a_further_model_does_not_hide_what_the_first_said(
    error: ModelError, expected: type[ChordwiseError]
) -> None:
    """A wrong key of it pauses no run; what may pass and what is spent counts."""
    first, second = a_model("no JSON", "{}"), a_model(error, name="script-2")

    with pytest.raises(expected):
        asked(falling_back(first, second), AskingPolicy())

    assert len(second.requests) == 1


def test_nothing_further_is_tried_when_the_time_is_up() -> None:
    """Not even a repair, which would have a second."""
    ticks = count(0.0, 100.0)
    policy = replace(PLAIN, seconds=50, clock=lambda: next(ticks))
    model = a_model("no JSON", "{}")

    with pytest.raises(InvalidAnswerError):
        asked(model, policy)

    assert versions(model) == [USUAL_VERSION]


def test_the_policy_of_the_settings() -> None:
    """The prompts as configured, within the patience of the broker."""
    policy = policy_of(Settings())

    assert (policy.prompts, policy.seconds) == (("plain",), 900)
