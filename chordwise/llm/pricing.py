"""What a completion cost: from the settings, from the public price lists, or nothing at home."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from chordwise.llm.model import Completion, Usage
from chordwise.llm.providers.endpoint import is_loopback
from chordwise.settings import ModelSettings

MILLION = Decimal(1_000_000)


class Price(Protocol):
    """What a model charges."""

    def cost_usd(self, completion: Completion) -> Decimal | None:
        """Return the cost in US dollars; `None` where price or usage is unknown, never 0 for it."""
        ...

    def failure_cost_usd(self) -> Decimal | None:
        """Return the cost of a request without an answer; `None` where nobody can know it."""
        ...


@dataclass(frozen=True, slots=True)
class FreePrice:
    """A model that runs on this machine costs nothing per call."""

    def cost_usd(self, completion: Completion) -> Decimal | None:  # noqa: ARG002 - as in the port
        """Return zero."""
        return Decimal(0)

    def failure_cost_usd(self) -> Decimal | None:
        """Return zero."""
        return Decimal(0)


class PaidPrice:
    """What all prices by the token have in common."""

    __slots__ = ()

    def failure_cost_usd(self) -> Decimal | None:
        """Return `None`: the provider may have counted tokens before it failed."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPrice(PaidPrice):
    """The prices of the settings; cached tokens count in full, for no discount is known."""

    input_usd_per_million_tokens: Decimal
    output_usd_per_million_tokens: Decimal

    def cost_usd(self, completion: Completion) -> Decimal | None:
        """Return the cost of all tokens."""
        usage = completion.usage
        if usage.input_tokens is None or usage.output_tokens is None:
            return None
        return (
            usage.input_tokens * self.input_usd_per_million_tokens
            + usage.output_tokens * self.output_usd_per_million_tokens
        ) / MILLION


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPrice(PaidPrice):
    """The provider's published price, with its discount for cached tokens and its tiers.

    `base_url` of the user's own decides the provider; empty means `provider` at its public address.
    """

    provider: str
    model: str
    base_url: str = ""

    def cost_usd(self, completion: Completion) -> Decimal | None:
        """Return the cost by the model that answered, or by the one that was asked for."""
        names = dict.fromkeys((completion.model, self.model))
        costs = (self._cost(name, completion.usage) for name in names if name)
        return next((cost for cost in costs if cost is not None), None)

    def _cost(self, model: str, usage: Usage) -> Decimal | None:
        if usage.input_tokens is None or usage.output_tokens is None:
            return None
        # Importing the tables takes 0.2 s, which commands that ask no model should not pay.
        import genai_prices  # noqa: PLC0415

        tokens = genai_prices.Usage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=min(usage.cached_input_tokens or 0, usage.input_tokens),
        )
        try:
            if self.base_url:
                price = genai_prices.calc_price(tokens, model, provider_api_url=self.base_url)
            else:
                price = genai_prices.calc_price(tokens, model, provider_id=self.provider)
        except (LookupError, ValueError):
            return None
        return price.total_price


def price_of(settings: ModelSettings) -> Price:
    """Return how the model of the settings is priced: by its own prices, free, or by the list."""
    own_input = settings.input_usd_per_million_tokens
    own_output = settings.output_usd_per_million_tokens
    if own_input is not None and own_output is not None:
        return OwnPrice(
            input_usd_per_million_tokens=own_input, output_usd_per_million_tokens=own_output
        )
    at_home = settings.provider in {"local", "extractive"} or is_loopback(settings.base_url)
    if at_home:
        return FreePrice()
    return ListPrice(provider=settings.provider, model=settings.model, base_url=settings.base_url)
