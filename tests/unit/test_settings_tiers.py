"""What the names of tiers stand for, and which settings of them are refused."""

from __future__ import annotations

import pytest

from chordwise import settings
from chordwise.domain.routing import Tier
from chordwise.errors import ConfigurationError
from chordwise.pipeline.models import client
from chordwise.settings import AUTO, Settings

TINY = {"provider": "openai", "model": "tiny-1", "base_url": "http://127.0.0.1:9/v1"}
TIERS = {"small": "tiny", "large": "anthropic/claude-haiku-5-5"}


def given(**values: object) -> Settings:
    """Return settings with a model `tiny`."""
    flags = {"models": {"tiny": TINY}, "tiers": TIERS, **values}
    return settings.load(None, **flags)


def test_auto_stands_for_the_tiers_and_a_tier_for_its_model() -> None:
    """A model's name stands for itself."""
    found = given()

    assert found.tiers.behind(AUTO) == {Tier.SMALL: "tiny", Tier.LARGE: TIERS["large"]}
    assert found.names_asked(AUTO) == ("tiny", TIERS["large"])
    assert found.names_asked("small") == ("tiny",)
    assert found.names_asked("tiny") == ("tiny",)
    assert found.model_named("small") == found.model_named("tiny")


def test_a_model_may_be_called_as_its_tier() -> None:
    """The commonest way to write it."""
    found = given(models={"small": TINY}, tiers={"small": "small"})

    assert found.model_named("small").model == "tiny-1"
    assert found.tiers.behind("small") == {Tier.SMALL: "small"}


@pytest.mark.parametrize("name", [AUTO, "small", "medium"])
def test_tiers_that_are_not_set_cannot_be_asked(name: str) -> None:
    """The sentence says so."""
    without = given(tiers={})

    with pytest.raises(ConfigurationError):
        client.identity(without, name)


@pytest.mark.parametrize(
    "values",
    [
        {"models": {"auto": TINY}},
        {"models": {"small": TINY, "tiny": TINY}},
        {"tiers": {"small": "auto"}},
        {"tiers": {"small": "medium", "medium": "tiny"}},
        {"models": {"tiny": TINY, "slow": {**TINY, "timeout_seconds": 999}}},
    ],
)
def test_contradictions_are_refused(values: dict[str, object]) -> None:
    """Names of two meanings, tiers of tiers, and a call that is longer than its question."""
    with pytest.raises(ConfigurationError):
        given(**values)


def test_the_identity_of_auto_covers_models_thresholds_and_fallbacks() -> None:
    """Each of them may decide who answers; the policy does not, where there is one tier to ask."""
    known = given()
    others = (
        given(tiers={**TIERS, "large": "openai/other"}),
        given(tiers={"medium": TIERS["small"], "large": TIERS["large"]}),
        given(routing={"large_from": 0.9}),
        given(routing={"cascade": False}),
        given(fallback=("extractive",)),
    )

    identities = [tuple(client.identity(each, AUTO)) for each in (known, *others)]

    assert len(set(identities)) == len(identities)
    assert client.identity(known, "small") == client.identity(known, "tiny")
    assert client.identity(known, "small") == client.identity(others[2], "small")
