"""What completions cost."""

from __future__ import annotations

from decimal import Decimal

import pytest

from chordwise.llm.model import Completion, FinishReason, Usage
from chordwise.llm.pricing import FreePrice, price_of
from chordwise.settings import ModelSettings


def completion(model: str, usage: Usage) -> Completion:
    """Return an answer of `model`."""
    return Completion(
        text="{}", finish_reason=FinishReason.STOP, usage=usage, provider="p", model=model
    )


def cost(settings: ModelSettings, usage: Usage, answered_by: str = "") -> Decimal | None:
    """Return what the settings make of a usage."""
    return price_of(settings).cost_usd(completion(answered_by or settings.model, usage))


FRESH = Usage(input_tokens=1_000, output_tokens=100)
CACHED = Usage(input_tokens=1_000, output_tokens=100, cached_input_tokens=1_000)


@pytest.mark.parametrize(
    ("provider", "model"), [("openai", "gpt-6.1-terra"), ("anthropic", "claude-sonnet-5-5")]
)
def test_public_prices_are_known_and_cached_tokens_cheaper(provider: str, model: str) -> None:
    """The price list covers the models of the examples, with their discount."""
    settings = ModelSettings.model_validate({"provider": provider, "model": model})

    fresh, cached = cost(settings, FRESH), cost(settings, CACHED)

    assert fresh is not None
    assert cached is not None
    assert 0 < cached < fresh


def test_the_model_that_answered_is_priced() -> None:
    """A deployment's own name has no price, the model behind it has."""
    settings = ModelSettings(provider="openai", model="our-deployment")

    assert cost(settings, FRESH) is None
    assert cost(settings, FRESH, answered_by="gpt-6.1-terra") is not None


def test_own_prices_win() -> None:
    """What the settings say is the price, cached or not."""
    settings = ModelSettings(
        provider="openai",
        model="gpt-6.1-terra",
        input_usd_per_million_tokens=Decimal(3),
        output_usd_per_million_tokens=Decimal(20),
    )

    assert cost(settings, FRESH) == cost(settings, CACHED) == Decimal("0.005")


@pytest.mark.parametrize("usage", [Usage(), Usage(input_tokens=5), Usage(output_tokens=5)])
@pytest.mark.parametrize("own", [None, Decimal(1)])
def test_unknown_usage_has_an_unknown_cost(usage: Usage, own: Decimal | None) -> None:
    """An unknown cost is never zero."""
    settings = ModelSettings(
        provider="openai",
        model="gpt-6.1-terra",
        input_usd_per_million_tokens=own,
        output_usd_per_million_tokens=own,
    )

    assert cost(settings, usage) is None


@pytest.mark.parametrize(
    "settings",
    [
        ModelSettings(provider="local", model="tiny.gguf"),
        ModelSettings(provider="extractive", model="textrank-1"),
        ModelSettings(provider="openai", model="qwen", base_url="http://localhost:11434/v1"),
    ],
)
def test_a_model_on_this_machine_is_free(settings: ModelSettings) -> None:
    """What runs here costs nothing per call."""
    assert price_of(settings) == FreePrice()
    assert cost(settings, FRESH) == 0


def test_a_server_of_ones_own_has_no_public_price() -> None:
    """A well-known model at an unknown address is not priced like the provider's."""
    settings = ModelSettings(
        provider="openai", model="gpt-6.1-terra", base_url="https://llm.example.org/v1"
    )

    assert cost(settings, FRESH) is None
