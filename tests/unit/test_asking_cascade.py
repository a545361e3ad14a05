"""Tests of the cascade: which tiers are asked, and whose answer is used."""

from __future__ import annotations

import pytest

from chordwise import errors
from chordwise.domain.analysis_tasks import AnalysisType
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


def tiered(
    policy: RoutingSettings | None = None, **scripts: list[Line]
) -> tuple[Tiered, dict[Tier, ScriptedModel]]:
    models = {
        Tier(name): ScriptedModel(script, profile=a_profile(name))
        for name, script in scripts.items()
    }
    return Tiered(models, policy or RoutingSettings(), lambda *_: None), models


def ask_tiers(
    policy: RoutingSettings | None = None, **scripts: list[Line]
) -> tuple[str, dict[Tier, int], list[Route | None]]:
    """Return the model of the answer, the number of requests by tier, and their routes."""
    model, models = tiered(policy, **scripts)
    answer = ask(question(model, EASY, TEXT))
    requests = {tier: len(one.requests) for tier, one in models.items() if one.requests}
    routes = [request.route for one in models.values() for request in one.requests]
    return answer.model, requests, routes


def test_a_good_answer_of_the_smallest_tier_is_used() -> None:
    """A hard question goes directly to a larger tier; without tiers there is no route."""
    model, _ = tiered(RoutingSettings(medium_from=0.1, large_from=0.2), small=[], large=[])
    alone = ScriptedModel([UNSURE])

    answered = ask_tiers(small=[GOOD], large=[])
    (only,) = model.steps(HARD)

    assert answered == ("small", {SMALL: 1}, [Route(tier=SMALL, is_compared=True)])
    assert only.tier is LARGE
    assert ask(question(alone, EASY, TEXT)).model == "script-1"
    assert alone.requests[0].route is None
    with pytest.raises(errors.ConfigurationError):
        Tiered({}, RoutingSettings(), lambda *_: None)


@pytest.mark.parametrize("weak", [UNSURE, UNGROUNDED])
def test_a_weak_answer_is_escalated_to_the_next_tier(weak: str) -> None:
    assert ask_tiers(small=[weak], medium=[GOOD], large=[]) == (
        "medium",
        {SMALL: 1, MEDIUM: 1},
        [Route(tier=SMALL, is_compared=True), Route(tier=MEDIUM, escalated=True)],
    )


def test_an_invalid_answer_is_repaired_once_then_escalated() -> None:
    """A refusal is not repaired: small models refuse more often than necessary."""
    model, requests, routes = ask_tiers(small=[INVALID, INVALID], large=[GOOD])
    refused = ask_tiers(small=[errors.RefusedError("I will not.")], large=[GOOD])

    assert (model, requests) == ("large", {SMALL: 2, LARGE: 1})
    assert [route is not None and route.is_compared for route in routes] == [True, False, False]
    assert refused[:2] == ("large", {SMALL: 1, LARGE: 1})


@pytest.mark.parametrize(
    ("small", "large", "winner"),
    [
        (UNSURE, UNGROUNDED, "small"),
        (UNSURE, UNSURER, "small"),
        (UNSURER, UNSURE, "large"),
        (UNSURE, UNSURE, "large"),
        (UNSURE, overloaded(), "small"),
        (UNSURE, errors.ModelAccessError("The key is refused."), "small"),
        (UNSURE, errors.RefusedError("No."), "small"),
    ],
)
def test_the_best_of_several_weak_answers_is_used(small: str, large: Line, winner: str) -> None:
    """This is also the only one if the larger tier fails."""
    model, requests, _ = ask_tiers(small=[small], large=[large])

    assert (model, requests) == (winner, {SMALL: 1, LARGE: 1})


@pytest.mark.parametrize("failure", [overloaded(), errors.ModelAccessError("The key is refused.")])
@pytest.mark.parametrize("cascade", [True, False])
def test_a_provider_error_escalates_to_the_next_tier(
    failure: errors.ModelError, *, cascade: bool
) -> None:
    """As with a fallback, this does not depend on whether weak answers are escalated."""
    policy = RoutingSettings(cascade=cascade)

    model, _, routes = ask_tiers(policy=policy, small=[failure], medium=[GOOD], large=[])

    assert (model, routes[1]) == ("medium", Route(tier=MEDIUM, escalated=True, is_compared=True))


def test_without_escalation_weak_answers_are_used_and_invalid_ones_fail() -> None:
    policy = RoutingSettings(cascade=False)

    assert ask_tiers(policy=policy, small=[UNSURE], large=[])[0] == "small"
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
