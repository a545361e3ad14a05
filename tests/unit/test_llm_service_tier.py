"""Tiers: said where they exist, refused elsewhere, and priced by what the answer says."""

from __future__ import annotations

from decimal import Decimal

import pytest
from pydantic import SecretStr

from chordwise.errors import ConfigurationError
from chordwise.llm.model import Completion, FinishReason, Usage
from chordwise.llm.pricing import price_of
from chordwise.llm.providers import connect
from chordwise.llm.providers.openai import OpenAIModel
from chordwise.settings import ModelSettings
from tests.fakes.completion_requests import a_request
from tests.fakes.official_types import require_openai

FLEX = ModelSettings(provider="openai", model="gpt-6.1-terra", service_tier="flex")
KEY = SecretStr("k")


def test_it_is_asked_for_in_the_form_of_the_provider() -> None:
    """The official types know the field and the value."""
    body = OpenAIModel(FLEX, KEY).body(a_request())

    require_openai(body)
    assert body["service_tier"] == "flex"


@pytest.mark.parametrize("base_url", ["", "https://api.openai.com/v1"])
def test_openai_is_asked_for_the_usual_tier_where_none_is_set(base_url: str) -> None:
    """Without it the tier of the project would count, which may be priority at twice the price."""
    plain = FLEX.model_copy(update={"service_tier": "", "base_url": base_url})

    body = OpenAIModel(plain, KEY).body(a_request())

    require_openai(body)
    assert body["service_tier"] == "default"


@pytest.mark.parametrize(
    "base_url",
    [
        "https://house.openai.azure.com/openai/v1",
        "http://localhost:8000/v1",
        "https://api.openai.com.example.org/v1",
    ],
)
def test_nothing_is_sent_elsewhere(base_url: str) -> None:
    """Servers that refuse unknown fields see none."""
    plain = FLEX.model_copy(update={"service_tier": "", "base_url": base_url})

    assert "service_tier" not in OpenAIModel(plain, KEY).body(a_request())


@pytest.mark.parametrize(
    "base_url", ["", "https://api.openai.com/v1", "https://api.openai.com:443/v1/"]
)
def test_the_public_address_has_it(base_url: str) -> None:
    """Said or not said."""
    model = connect(FLEX.model_copy(update={"base_url": base_url}), KEY)

    assert model.profile.model == "gpt-6.1-terra"


@pytest.mark.parametrize(
    "changes",
    [
        {"base_url": "https://house.openai.azure.com/openai/v1"},
        {"base_url": "http://localhost:8000/v1"},
        {"base_url": "https://api.openai.com.example.org/v1"},
        {"provider": "anthropic", "model": "claude-haiku-5-5"},
    ],
)
def test_elsewhere_it_is_refused_before_anything_is_sent(changes: dict[str, str]) -> None:
    """A tier that is passed over in silence would cost twice what was expected."""
    with pytest.raises(ConfigurationError, match="service_tier"):
        connect(FLEX.model_copy(update=changes), KEY)


@pytest.mark.parametrize(
    "settings",
    [
        FLEX,
        FLEX.model_copy(
            update={
                "input_usd_per_million_tokens": Decimal(3),
                "output_usd_per_million_tokens": Decimal(9),
            }
        ),
    ],
)
def test_the_answer_decides_about_the_price(settings: ModelSettings) -> None:
    """Served as usual it costs the usual price, though flex was asked for."""
    costs = {}
    for tier in ("", "default", "flex", "batch"):
        completion = Completion(
            text="{}",
            finish_reason=FinishReason.STOP,
            usage=Usage(input_tokens=10_000, output_tokens=1_000),
            provider="openai",
            model="gpt-6.1-terra",
            service_tier=tier,
        )
        costs[tier] = price_of(settings).cost_usd(completion)

    full = costs[""]
    assert full is not None
    assert costs == {"": full, "default": full, "flex": full / 2, "batch": full / 2}
