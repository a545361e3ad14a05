"""What a completion cost, and how that is known: reported, by the settings, or by a price list."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar

from chordwise.domain import money
from chordwise.domain.json_values import JsonObject
from chordwise.domain.memo import memoized_by_identity
from chordwise.errors import (
    ChordwiseError,
    LeaseLostError,
    ModelAccessError,
    ModelRequestError,
    ModelUnreachableError,
    QuotaExceededError,
    RateLimitedError,
)
from chordwise.llm.model import Completion, CompletionRequest, Usage
from chordwise.llm.providers import has_service_tiers
from chordwise.settings import ModelSettings

MILLION = Decimal(1_000_000)
FLEX, BATCH, PRIORITY = "flex", "batch", "priority"
_DISCOUNT: Mapping[str, Decimal] = MappingProxyType({FLEX: Decimal("0.5"), BATCH: Decimal("0.5")})
# What the price list calls the same.
_CONTEXT: Mapping[str, dict[str, str]] = MappingProxyType(
    {
        FLEX: {"service_tier": "flex"},
        BATCH: {"processing": "batch"},
        PRIORITY: {"service_tier": "priority"},
        # OpenAI's newer name of it; its answers have the older one.
        "fast": {"service_tier": "priority"},
    }
)
CACHE_WRITE_FACTOR = Decimal("1.25")
"""What providers charge for tokens that they keep for later, times the price of the others."""
REGIONAL_FACTOR = Decimal("1.1")
"""What Anthropic charges for inference in one region, times the price; the list does not have it.

A workspace may ask for it where its requests do not.
"""
_ANYWHERE = frozenset({"", "global", "not_available"})
MAX_USD = Decimal(1_000_000)
"""No single request costs as much; such a token count is an error of the server."""
_ONE_TOKEN = Usage(input_tokens=1, output_tokens=1)
# The provider turned the request away before any model saw it, it never got there, or was not sent.
_UNBILLED: tuple[type[ChordwiseError], ...] = (
    RateLimitedError,
    QuotaExceededError,
    ModelAccessError,
    ModelRequestError,
    ModelUnreachableError,
    LeaseLostError,
)


class CostBasis(StrEnum):
    """How the cost of a request is known; stored in `model_calls.cost_basis`.

    `NOT_BILLED` is a request that no model has worked for, and an answer that took no request.
    """

    FREE = "free"
    SETTINGS = "settings"
    PRICE_LIST = "price_list"
    REPORTED = "reported"
    NOT_BILLED = "not_billed"


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedCost:
    """The cost of a request as ledger and budgets book it; both are `None` where it is unknown."""

    usd: Decimal | None
    basis: CostBasis | None


class Price(ABC):
    """What a model charges; `basis` says how the costs by this price are known."""

    __slots__ = ()
    basis: ClassVar[CostBasis]

    @abstractmethod
    def cost_usd(self, completion: Completion) -> Decimal | None:
        """Return the cost in US dollars; `None` where price or usage is unknown, never 0 for it."""

    @abstractmethod
    def max_usd(self, request: CompletionRequest, service_tier: str = "") -> Decimal | None:
        """Return what a request can cost at most; `None` where the price is unknown.

        `service_tier` counts where it is certain: of all that is asked in a batch.
        """

    def failure_cost_usd(self, error: ChordwiseError) -> Decimal | None:
        """Return the cost of a request without an answer; `None` where it cannot be known.

        A request that was turned away costs nothing, one that may have run has an unknown cost.
        """
        return Decimal(0) if isinstance(error, _UNBILLED) else None

    def is_known(self) -> bool:
        """Return whether the costs are known before a request is made."""
        return True


@dataclass(frozen=True, slots=True)
class FreePrice(Price):
    """A model that Chordwise serves, or that is free by the settings, costs nothing per call."""

    basis: ClassVar[CostBasis] = CostBasis.FREE

    def cost_usd(self, completion: Completion) -> Decimal | None:  # noqa: ARG002 - as in the port
        """Return zero."""
        return Decimal(0)

    def max_usd(
        self,
        request: CompletionRequest,  # noqa: ARG002 - as above
        service_tier: str = "",  # noqa: ARG002 - as above
    ) -> Decimal | None:
        """Return zero."""
        return Decimal(0)

    def failure_cost_usd(self, error: ChordwiseError) -> Decimal | None:  # noqa: ARG002 - as above
        """Return zero."""
        return Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPrice(Price):
    """The prices of the settings; without one for cached tokens these count in full."""

    basis: ClassVar[CostBasis] = CostBasis.SETTINGS
    input_usd_per_million_tokens: Decimal
    output_usd_per_million_tokens: Decimal
    cached_input_usd_per_million_tokens: Decimal | None = None

    def cost_usd(self, completion: Completion) -> Decimal | None:
        """Return the cost of all tokens."""
        usage = completion.usage
        if usage.input_tokens is None or usage.output_tokens is None:
            return None
        read, written = _cached(usage)
        usual = self.input_usd_per_million_tokens
        read_price = self.cached_input_usd_per_million_tokens
        usd = (
            (usage.input_tokens - read - written) * usual
            + read * (usual if read_price is None else read_price)
            + written * usual * CACHE_WRITE_FACTOR
            + usage.output_tokens * self.output_usd_per_million_tokens
        ) / MILLION
        return _believable(usd * _DISCOUNT.get(completion.service_tier, Decimal(1)))

    def max_usd(self, request: CompletionRequest, service_tier: str = "") -> Decimal | None:
        """Return the cost if the whole prompt is new to the cache and the answer is the longest."""
        dearest = max(
            self.input_usd_per_million_tokens * CACHE_WRITE_FACTOR,
            self.cached_input_usd_per_million_tokens or Decimal(0),
        )
        usd = (
            max_input_tokens(request) * dearest
            + request.max_output_tokens * self.output_usd_per_million_tokens
        ) / MILLION
        return usd * _DISCOUNT.get(service_tier, Decimal(1))


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPrice(Price):
    """The provider's published price, with its discount for cached tokens and its tiers.

    `base_url` of the user's own decides the provider; empty means `provider` at its public address.
    `says_tier` means that each request says how it is served, and never at the price of priority.
    """

    basis: ClassVar[CostBasis] = CostBasis.PRICE_LIST
    provider: str
    model: str
    base_url: str = ""
    says_tier: bool = False

    def cost_usd(self, completion: Completion) -> Decimal | None:
        """Return the cost by the model that answered, or by the one that was asked for."""
        names = dict.fromkeys((completion.model, self.model))
        tier = completion.service_tier
        costs = (self._cost(name, completion.usage, tier) for name in names if name)
        cost = next((cost for cost in costs if cost is not None), None)
        if cost is None or completion.inference_geo in _ANYWHERE:
            return cost
        return cost * REGIONAL_FACTOR

    def max_usd(self, request: CompletionRequest, service_tier: str = "") -> Decimal | None:
        """Return the cost of the longest answer, and of a prompt read from the cache or new to it.

        Whether the provider will grant a discount is not known before it answers; whether it will
        serve first and charge more is, where requests rule that out. A workspace at Anthropic may
        keep to one region, which costs more.
        """
        tokens, output = max_input_tokens(request), request.max_output_tokens
        tiers = (service_tier,) if service_tier or self.says_tier else ("", PRIORITY)
        usages = (
            Usage(input_tokens=tokens, output_tokens=output, cache_write_tokens=written)
            for written in (0, tokens)
        )
        costs = [self._cost(self.model, usage, tier) for usage in usages for tier in tiers]
        most = max((cost for cost in costs if cost is not None), default=None)
        if most is None or self.provider != "anthropic":
            return most
        return most * REGIONAL_FACTOR

    def is_known(self) -> bool:
        """Return whether the list has the model that is asked for."""
        return self._cost(self.model, _ONE_TOKEN) is not None

    def _cost(self, model: str, usage: Usage, service_tier: str = "") -> Decimal | None:
        if usage.input_tokens is None or usage.output_tokens is None:
            return None
        # Importing the tables takes 0.2 s, which commands that ask no model should not pay.
        import genai_prices  # noqa: PLC0415

        context = _CONTEXT.get(service_tier)
        read, written = _cached(usage)
        tokens = genai_prices.Usage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=read,
            cache_write_tokens=written,
        )
        try:
            if self.base_url:
                price = genai_prices.calc_price(
                    tokens, model, provider_api_url=self.base_url, price_context=context
                )
            else:
                price = genai_prices.calc_price(
                    tokens, model, provider_id=self.provider, price_context=context
                )
        except (LookupError, ValueError):
            return None
        return _believable(price.total_price)


def price_of(settings: ModelSettings) -> Price:
    """Return how the model of the settings is priced: by its own prices, free, or by the list.

    Only what Chordwise serves itself is free by nature. A server at an address of the user's own,
    on this machine too, may be a gateway to a model that costs money: its price is unknown unless
    the settings or the list say it.
    """
    own_input = settings.input_usd_per_million_tokens
    own_output = settings.output_usd_per_million_tokens
    if own_input is not None and own_output is not None:
        return OwnPrice(
            input_usd_per_million_tokens=own_input,
            output_usd_per_million_tokens=own_output,
            cached_input_usd_per_million_tokens=settings.cached_input_usd_per_million_tokens,
        )
    is_served_here = settings.provider == "local" and not settings.base_url
    if settings.price == "free" or settings.provider == "extractive" or is_served_here:
        return FreePrice()
    return ListPrice(
        provider=settings.provider,
        model=settings.model,
        base_url=settings.base_url,
        says_tier=has_service_tiers(settings),
    )


def booked_cost(price: Price, completion: Completion) -> BookedCost:
    """Return what to book for a completion: what its server reports, else what its price says."""
    if completion.reported_cost_usd is not None:
        usd = money.rounded_up(completion.reported_cost_usd)
        return BookedCost(usd=usd, basis=CostBasis.REPORTED)
    computed = price.cost_usd(completion)
    return BookedCost(usd=computed, basis=None if computed is None else price.basis)


def booked_failure(price: Price, error: ChordwiseError) -> BookedCost:
    """Return what to book for a request without an answer."""
    usd = price.failure_cost_usd(error)
    is_free = price.basis is CostBasis.FREE
    basis = CostBasis.FREE if is_free else CostBasis.NOT_BILLED
    return BookedCost(usd=usd, basis=None if usd is None else basis)


def _cached(usage: Usage) -> tuple[int, int]:
    """Return the tokens read from the cache and written into it, no more than there were."""
    total = usage.input_tokens or 0
    read = min(usage.cached_input_tokens or 0, total)
    return read, min(usage.cache_write_tokens or 0, total - read)


def _believable(usd: Decimal) -> Decimal | None:
    return usd if usd < MAX_USD else None


# The words with which a server wraps messages and a schema; vendors' own prompts for structured
# answers take a few hundred tokens.
_WRAPPING_TOKENS = 1_024
# A dialect of the schema may be longer than the schema: limits that it does not know become words.
_SCHEMA_FACTOR = 2


def max_input_tokens(request: CompletionRequest) -> int:
    """Return a number of input tokens that no tokenizer exceeds: each token is a byte or more.

    What pictures take is the provider's own affair; theirs is a bound by experience.
    """
    prompt = _bytes(request.system) + _bytes(request.user)
    schema = _schema_bytes(request.schema) + _bytes(request.schema_name)
    shown = sum(each.max_tokens for each in request.pictures)
    return prompt + shown + _SCHEMA_FACTOR * schema + _WRAPPING_TOKENS


@memoized_by_identity
def _schema_bytes(schema: JsonObject) -> int:
    return _bytes(json.dumps(schema, indent=2))


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
