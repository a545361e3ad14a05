"""Tests of falling back to the next model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chordwise import errors
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.llm.middleware.fallback import Fallback
from chordwise.llm.model import CompletionRequest, ModelProfile
from tests.fakes.completion_requests import a_request
from tests.fakes.scripted_model import Line, ScriptedModel, a_profile


def model_named(name: str, line: Line, context_tokens: int = 8_000) -> ScriptedModel:
    return ScriptedModel([line], profile=a_profile(name, context_tokens, 500))


def ignored(_from: ModelProfile, _to: ModelProfile, _why: errors.ModelError) -> None:
    """Ignore the change."""


@pytest.mark.parametrize(
    "error",
    [
        errors.ModelTransportError("x"),
        errors.ModelOverloadedError("x"),
        errors.RateLimitedError("x"),
        errors.QuotaExceededError("x"),
        errors.ModelAccessError("x"),
    ],
)
def test_the_second_model_answers_for_the_first(error: errors.ModelError) -> None:
    changes: list[tuple[str, str, errors.ModelError]] = []
    subject = Fallback(
        [model_named("one", error), model_named("two", "{}")],
        lambda before, after, why: changes.append((before.model, after.model, why)),
    )

    assert subject.complete(a_request()).model == "two"
    assert changes == [("one", "two", error)]


@pytest.mark.parametrize("error", [errors.ModelRequestError("x"), errors.RefusedError("x")])
def test_an_error_caused_by_the_question_does_not_fall_back(error: errors.ModelError) -> None:
    """Other models would fail as well, or a refusal must not be circumvented."""
    second = model_named("two", "{}")

    with pytest.raises(type(error)):
        Fallback([model_named("one", error), second], ignored).complete(a_request())

    assert second.requests == []


@pytest.mark.parametrize(
    "second", [errors.RateLimitedError("later"), errors.ModelAccessError("no")]
)
def test_if_all_models_fail_the_first_transient_error_wins(second: errors.ModelError) -> None:
    """A transient error postpones the work; without one, the first model's error is raised."""
    first = errors.QuotaExceededError("empty")

    with pytest.raises(errors.ModelError) as caught:
        Fallback([model_named("one", first), model_named("two", second)], ignored).complete(
            a_request()
        )

    assert caught.value is (second if isinstance(second, errors.RateLimitedError) else first)


def test_a_prompt_must_fit_every_model() -> None:
    subject = Fallback([model_named("one", "{}", 9_000), model_named("two", "{}", 4_000)], ignored)

    assert subject.profile.model == "one"
    assert subject.profile.context_tokens == 4_000


def test_the_models_share_the_timeout_of_a_request() -> None:
    now = [0.0]

    def late(request: CompletionRequest) -> errors.ModelError:
        now[0] += 50.0
        return errors.ModelTransportError(f"{request.timeout_seconds}")

    models = [model_named(name, late) for name in ("one", "two", "three")]

    with pytest.raises(errors.ModelTransportError):
        Fallback(models, ignored, clock=lambda: now[0]).complete(a_request(timeout_seconds=90.0))

    assert [model.requests[0].timeout_seconds for model in models] == [90.0, 40.0, 1.0]


def test_after_a_timeout_only_models_with_as_much_time_are_asked() -> None:
    """The built-in model is asked anyway, because it needs almost no time."""
    now = [0.0]

    def late(_request: CompletionRequest) -> errors.ModelError:
        now[0] += 60.0
        return errors.ModelTimeoutError("late", granted_seconds=60.0)

    first, second = model_named("one", late), model_named("two", "{}")
    profile = replace(model_named("three", "{}").profile, understands_language=False)
    built_in = ScriptedModel(["{}"], profile=profile)
    changes: list[tuple[str, str]] = []

    def note(previous: ModelProfile, following: ModelProfile, _error: errors.ModelError) -> None:
        changes.append((previous.model, following.model))

    subject = Fallback([first, second, built_in], note, clock=lambda: now[0])

    assert subject.complete(a_request(timeout_seconds=90.0)).text == "{}"
    assert (len(second.requests), len(built_in.requests)) == (0, 1)
    assert changes == [("one", "three")]


def test_the_built_in_model_is_not_a_fallback_for_reasoning() -> None:
    built_in = ScriptedModel(
        ["{}"], profile=replace(model_named("two", "{}").profile, understands_language=False)
    )
    request = a_request()
    task = replace(request.task, analysis_type=AnalysisType.REASONING)

    with pytest.raises(errors.ModelOverloadedError):
        Fallback(
            [model_named("one", errors.ModelOverloadedError("x")), built_in], ignored
        ).complete(replace(request, task=task))

    assert built_in.requests == []


def test_an_empty_chain_is_a_configuration_error() -> None:
    with pytest.raises(errors.ConfigurationError):
        Fallback([], ignored)
