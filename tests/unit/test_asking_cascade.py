"""Tests of the cascade: which tiers are asked, and whose answer is used."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from chordwise import errors
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.answers import Answer
from chordwise.domain.tiers import Route, Tier
from chordwise.llm.middleware.tiered import Tiered
from chordwise.pipeline.asking import ask
from chordwise.settings import RoutingSettings
from tests.fakes.asking import TEXT, question
from tests.fakes.completion_requests import a_request, a_task
from tests.fakes.pipeline import a_summary
from tests.fakes.scripted_model import Line, ScriptedModel, a_profile

EASY, HARD = (a_task(kind, TEXT) for kind in (AnalysisType.SUMMARY, AnalysisType.REASONING))
GOOD = a_summary("rebuilt in 1856", confidence=9)
UNSURE = a_summary("rebuilt in 1856", confidence=2)
UNSURER = a_summary("rebuilt in 1856", confidence=1)
UNGROUNDED = a_summary("built by giants", confidence=9)
INVALID = "I would rather talk."
SMALL, MEDIUM, LARGE = Tier


def overloaded() -> errors.ModelOverloadedError:
    return errors.ModelOverloadedError("The provider is overloaded.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The outcome of a question, and the requests that each tier received."""

    answer: Answer
    requests: Mapping[Tier, int]
    routes: tuple[Route | None, ...]


def tiered(
    policy: RoutingSettings | None = None, **scripts: list[Line]
) -> tuple[Tiered, dict[Tier, ScriptedModel]]:
    models = {
        Tier(name): ScriptedModel(script, profile=a_profile(name))
        for name, script in scripts.items()
    }
    return Tiered(models, policy or RoutingSettings(), lambda *_: None), models


def ask_tiers(policy: RoutingSettings | None = None, **scripts: list[Line]) -> Asked:
    model, models = tiered(policy, **scripts)
    answer = ask(question(model, EASY, TEXT))
    requests = list(itertools.chain(*(tier_model.requests for tier_model in models.values())))
    return Asked(
        answer=answer,
        requests={
            tier: len(tier_model.requests)
            for tier, tier_model in models.items()
            if tier_model.requests
        },
        routes=tuple(request.route for request in requests),
    )


def test_a_good_answer_of_the_smallest_tier_is_used() -> None:
    result = ask_tiers(small=[GOOD], large=[])

    assert (result.answer.model, result.requests) == ("small", {SMALL: 1})
    assert result.routes == (Route(tier=SMALL, is_compared=True),)


def test_a_hard_question_goes_directly_to_a_larger_tier() -> None:
    policy = RoutingSettings(medium_from=0.1, large_from=0.2)

    model, _ = tiered(policy, small=[], medium=[], large=[])
    (only,) = model.steps(HARD)

    assert only.tier is LARGE


@pytest.mark.parametrize("weak", [UNSURE, UNGROUNDED])
def test_a_weak_answer_is_escalated_to_the_next_tier(weak: str) -> None:
    result = ask_tiers(small=[weak], medium=[GOOD], large=[])

    assert (result.answer.model, result.requests) == ("medium", {SMALL: 1, MEDIUM: 1})
    assert result.routes == (
        Route(tier=SMALL, is_compared=True),
        Route(tier=MEDIUM, escalated=True),
    )


def test_an_invalid_answer_is_repaired_once_then_escalated() -> None:
    result = ask_tiers(small=[INVALID, INVALID], large=[GOOD])

    assert (result.answer.model, result.requests) == ("large", {SMALL: 2, LARGE: 1})
    assert [route is not None and route.is_compared for route in result.routes] == [
        True,
        False,
        False,
    ]


def test_a_refusal_is_not_repaired_but_escalated() -> None:
    """Small models refuse more often than necessary."""
    result = ask_tiers(small=[errors.RefusedError("I will not.")], large=[GOOD])

    assert (result.answer.model, result.requests) == ("large", {SMALL: 1, LARGE: 1})


@pytest.mark.parametrize(
    ("small", "large", "winner"),
    [
        (UNSURE, UNGROUNDED, "small"),
        (UNSURE, UNSURER, "small"),
        (UNSURER, UNSURE, "large"),
        (UNSURE, UNSURE, "large"),
    ],
)
def test_the_best_of_several_weak_answers_is_used(small: str, large: str, winner: str) -> None:
    result = ask_tiers(small=[small], large=[large])

    assert result.answer.model == winner
    assert result.requests == {SMALL: 1, LARGE: 1}


@pytest.mark.parametrize(
    "failure",
    [overloaded(), errors.ModelAccessError("The key is refused."), errors.RefusedError("No.")],
)
def test_a_weak_answer_is_used_if_the_larger_tier_fails(failure: errors.ModelError) -> None:
    assert ask_tiers(small=[UNSURE], large=[failure]).answer.model == "small"


@pytest.mark.parametrize("failure", [overloaded(), errors.ModelAccessError("The key is refused.")])
@pytest.mark.parametrize("cascade", [True, False])
def test_a_provider_error_escalates_to_the_next_tier(
    failure: errors.ModelError, *, cascade: bool
) -> None:
    """As with a fallback, this does not depend on whether weak answers are escalated."""
    policy = RoutingSettings(cascade=cascade)

    result = ask_tiers(policy=policy, small=[failure], medium=[GOOD], large=[])

    assert result.answer.model == "medium"
    assert result.routes[1] == Route(tier=MEDIUM, escalated=True, is_compared=True)


def test_without_escalation_weak_answers_are_used_and_invalid_ones_fail() -> None:
    policy = RoutingSettings(cascade=False)

    assert ask_tiers(policy=policy, small=[UNSURE], large=[]).answer.model == "small"
    with pytest.raises(errors.InvalidAnswerError):
        ask_tiers(policy=policy, small=[INVALID, INVALID], large=[])


@pytest.mark.parametrize(
    "error",
    [
        errors.BudgetExceededError("The cap is reached."),
        errors.RateLimitedError("Not now."),
        errors.ServiceUnavailableError("The ledger's database is unavailable."),
    ],
)
def test_errors_that_a_larger_model_cannot_solve_are_not_escalated(
    error: errors.ModelError | errors.ServiceUnavailableError,
) -> None:
    with pytest.raises(type(error)):
        ask_tiers(small=[error], large=[])
    with pytest.raises(type(error)):
        ask_tiers(small=[UNSURE], medium=[error], large=[])


@pytest.mark.parametrize(
    ("small", "large", "raised"),
    [
        ([overloaded()], [INVALID, INVALID], errors.ModelOverloadedError),
        ([INVALID, INVALID], [overloaded()], errors.ModelOverloadedError),
        ([INVALID, INVALID], [errors.ModelAccessError("No key.")], errors.ModelAccessError),
        ([INVALID, INVALID], [errors.RefusedError("No.")], errors.RefusedError),
    ],
)
def test_without_an_answer_the_most_recoverable_error_is_raised(
    small: list[Line], large: list[Line], raised: type[errors.ModelError]
) -> None:
    """Transient errors come first, then those for the user, otherwise the largest tier's error."""
    with pytest.raises(raised):
        ask_tiers(small=small, large=large)


def test_a_model_without_tiers_is_asked_once() -> None:
    model = ScriptedModel([UNSURE])

    assert ask(question(model, EASY, TEXT)).model == "script-1"
    assert model.requests[0].route is None


def test_tiers_as_a_plain_model_escalate_only_errors() -> None:
    """Used as a plain model, the tiers are selected by complexity."""
    model, models = tiered(small=[overloaded()], medium=[GOOD], large=[])

    assert model.complete(a_request()).model == "medium"
    assert models[MEDIUM].requests[0].route == Route(tier=MEDIUM, escalated=True, is_compared=True)


def test_a_prompt_that_fits_the_profile_fits_every_tier() -> None:
    """The profile has the smallest context and the shortest answer of the tiers."""
    sizes = {SMALL: (8_192, 1_024), LARGE: (200_000, 195_000)}
    models = {
        tier: ScriptedModel([], profile=a_profile(tier, context, output))
        for tier, (context, output) in sizes.items()
    }

    profile = Tiered(models, RoutingSettings(), lambda *_: None).profile

    assert (profile.model, profile.max_output_tokens) == ("large", 1_024)
    assert profile.context_tokens - profile.max_output_tokens == 5_000


def test_a_cascade_without_tiers_is_rejected() -> None:
    with pytest.raises(errors.ConfigurationError):
        Tiered({}, RoutingSettings(), lambda *_: None)
