"""The cost of a completion and its basis: reported, from the settings, or from a price list."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import ClassVar

from chordwise.domain import money, tokens
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
from chordwise.llm.provider import PROVIDERS
from chordwise.settings import ModelSettings

MILLION = Decimal(1_000_000)
FLEX, BATCH, PRIORITY = "flex", "batch", "priority"
_DISCOUNT: Mapping[str, Decimal] = {FLEX: Decimal("0.5"), BATCH: Decimal("0.5")}
# The terms of the price list for the tiers.
_CONTEXT: Mapping[str, dict[str, str]] = {
    FLEX: {"service_tier": "flex"},
    BATCH: {"processing": "batch"},
    PRIORITY: {"service_tier": "priority"},
    # OpenAI's newer name of this tier; its answers use the older one.
    "fast": {"service_tier": "priority"},
}
CACHE_WRITE_FACTOR = Decimal("1.25")
"""The price of tokens that are written to the cache, relative to uncached tokens."""
_ANYWHERE = frozenset({"", "global", "not_available"})
MAX_USD = Decimal(1_000_000)
"""Costs of a request from this amount upward are implausible: an error in the token count."""
# Estimates of tokens are high for degenerate texts, such as lines of dots, and gateways may charge
# less than the configured price.
_LEAST_SHARE = 0.05
# Prompts of a run differ by few tokens: a cost that is rounded up is computed once for many.
_TOKEN_STEP = 64
_HOUR_SECONDS = 3600
_ONE_TOKEN = Usage(input_tokens=1, output_tokens=1)
# The provider rejected the request before a model processed it, or it never reached the provider.
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

    `NOT_BILLED` is a request that no model has processed, or an answer without a request;
    `ESTIMATED` replaces a cost or usage that the server reported and that cannot be true.
    """

    FREE = "free"
    SETTINGS = "settings"
    PRICE_LIST = "price_list"
    REPORTED = "reported"
    ESTIMATED = "estimated"
    NOT_BILLED = "not_billed"


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedCost:
    """The cost of a request as ledger and budgets record it; both `None` if it is unknown."""

    usd: Decimal | None
    basis: CostBasis | None


class Price(ABC):
    """The price of a model; `basis` is the basis of its costs."""

    __slots__ = ()
    basis: ClassVar[CostBasis]

    @abstractmethod
    def cost_usd(self, completion: Completion) -> Decimal | None:
        """Return the cost in US dollars; `None`, never 0, if price or usage is unknown."""

    @abstractmethod
    def max_usd(self, request: CompletionRequest, service_tier: str = "") -> Decimal | None:
        """Return the maximum cost of a request; `None` if the price is unknown.

        `service_tier` is given only if the tier is certain, as for the requests of a batch.
        """

    def failure_cost_usd(self, error: ChordwiseError) -> Decimal | None:
        """Return the cost of a request without an answer; `None` if it cannot be known.

        A rejected request costs nothing; one that may have run has an unknown cost.
        """
        is_free = self.basis is CostBasis.FREE or isinstance(error, _UNBILLED)
        return Decimal(0) if is_free else None

    def is_known(self) -> bool:
        """Return whether the price is known before a request."""
        return True


@dataclass(frozen=True, slots=True)
class FreePrice(Price):
    """The price of a model that Chordwise serves, or that is free by the settings: zero."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPrice(Price):
    """Prices from the settings; without a price for cached tokens, they cost the full price."""

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
        return _plausible(usd * _DISCOUNT.get(completion.service_tier, Decimal(1)))

    def max_usd(self, request: CompletionRequest, service_tier: str = "") -> Decimal | None:
        """Return the cost of an uncached prompt and the longest answer."""
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

    A `base_url` determines the provider; empty means `provider` at its public address. `says_tier`
    means that each request names its tier, which is never the priority tier.
    """

    basis: ClassVar[CostBasis] = CostBasis.PRICE_LIST
    provider: str
    model: str
    base_url: str = ""
    says_tier: bool = False

    def cost_usd(self, completion: Completion) -> Decimal | None:
        """Return the cost by the model that answered, else by the requested model."""
        names = dict.fromkeys((completion.model, self.model))
        tier = completion.service_tier
        costs = (self.of_model(name, completion.usage, tier) for name in names if name)
        cost = next((cost for cost in costs if cost is not None), None)
        if cost is None or completion.inference_geo in _ANYWHERE:
            return cost
        return cost * PROVIDERS[self.provider].regional_factor

    def max_usd(self, request: CompletionRequest, service_tier: str = "") -> Decimal | None:
        """Return the cost of the longest answer, with the prompt uncached or written to the cache.

        The prompt's tokens are rounded up, so that most requests find the cost in a cache.
        Discounts are not certain before the provider answers. The priority tier, which costs more,
        is possible unless requests name their tier. A workspace at Anthropic may be limited to one
        region, which costs more.
        """
        input_tokens = math.ceil(max_input_tokens(request) / _TOKEN_STEP) * _TOKEN_STEP
        hour = int(time.time()) // _HOUR_SECONDS
        return _max_list_usd(self, input_tokens, request.max_output_tokens, service_tier, hour)

    def is_known(self) -> bool:
        """Return whether the list contains the requested model."""
        return self.of_model(self.model, _ONE_TOKEN) is not None

    def of_model(self, model: str, usage: Usage, service_tier: str = "") -> Decimal | None:
        """Return the cost of tokens by the list; `None` if it does not have the model."""
        if usage.input_tokens is None or usage.output_tokens is None:
            return None
        # The import takes 0.2 s, which commands without model calls avoid.
        import genai_prices  # noqa: PLC0415

        context = _CONTEXT.get(service_tier)
        read, written = _cached(usage)
        priced = genai_prices.Usage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=read,
            cache_write_tokens=written,
        )
        try:
            if self.base_url:
                price = genai_prices.calc_price(
                    priced, model, provider_api_url=self.base_url, price_context=context
                )
            else:
                price = genai_prices.calc_price(
                    priced, model, provider_id=self.provider, price_context=context
                )
        except (LookupError, ValueError):
            return None
        return _plausible(price.total_price)


@lru_cache(maxsize=1024)
def _max_list_usd(
    price: ListPrice, input_tokens: int, output_tokens: int, service_tier: str, _hour: int
) -> Decimal | None:
    """Return the maximum cost by the price list, over all tiers unless one is given.

    A lookup in the list takes about a tenth of a millisecond; prices may vary by the hour.
    """
    tiers = (service_tier,) if service_tier or price.says_tier else ("", PRIORITY)
    usages = (
        Usage(input_tokens=input_tokens, output_tokens=output_tokens, cache_write_tokens=written)
        for written in (0, input_tokens)
    )
    costs = [price.of_model(price.model, usage, tier) for usage in usages for tier in tiers]
    highest = max((cost for cost in costs if cost is not None), default=None)
    return None if highest is None else highest * PROVIDERS[price.provider].regional_factor


def price_of(settings: ModelSettings) -> Price:
    """Return the price of a model: from the settings, free, or from the list.

    Only models that Chordwise serves are free by default. A server at a user's address, even on
    this machine, may be a gateway to a paid model: its price is unknown unless the settings or the
    list contain it.
    """
    own_input = settings.input_usd_per_million_tokens
    own_output = settings.output_usd_per_million_tokens
    if own_input is not None and own_output is not None:
        return OwnPrice(
            input_usd_per_million_tokens=own_input,
            output_usd_per_million_tokens=own_output,
            cached_input_usd_per_million_tokens=settings.cached_input_usd_per_million_tokens,
        )
    provider = PROVIDERS[settings.provider]
    if settings.price == "free" or provider.is_free(settings):
        return FreePrice()
    return ListPrice(
        provider=settings.provider,
        model=settings.model,
        base_url=settings.base_url,
        says_tier=provider.has_service_tiers(settings),
    )


def booked_cost(price: Price, completion: Completion, prompt_tokens: float) -> BookedCost:
    """Return the cost to record for a completion: reported by its server, else by its price.

    What the server reports is replaced by an estimate if it is far less than prompt and answer can
    cost, such as zero, at the price of the settings or of the list. `prompt_tokens` is an estimate.
    """
    reported = completion.reported_cost_usd
    usd = price.cost_usd(completion) if reported is None else money.rounded_up(reported)
    if usd is None:
        return BookedCost(usd=None, basis=None)
    if _is_implausible(price, completion, usd, prompt_tokens):
        usage = _estimated(prompt_tokens, completion.text)
        estimated_usd = price.cost_usd(replace(completion, usage=usage))
        if estimated_usd is not None and estimated_usd > usd:
            return BookedCost(usd=estimated_usd, basis=CostBasis.ESTIMATED)
    return BookedCost(usd=usd, basis=price.basis if reported is None else CostBasis.REPORTED)


def _is_implausible(
    price: Price, completion: Completion, usd: Decimal, prompt_tokens: float
) -> bool:
    """Return whether a reported usage or cost is below a small share of the estimated tokens.

    A reported cost is compared with that of such a prompt that was read from the cache.
    """
    claimed, least = completion.usage, _estimated(prompt_tokens, completion.text, _LEAST_SHARE)
    if completion.reported_cost_usd is None:
        return (claimed.input_tokens or 0) < (least.input_tokens or 0) or (
            claimed.output_tokens or 0
        ) < (least.output_tokens or 0)
    cached = replace(least, cached_input_tokens=least.input_tokens)
    return usd < (price.cost_usd(replace(completion, usage=cached)) or 0)


def _estimated(prompt_tokens: float, answer: str, share: float = 1) -> Usage:
    return Usage(
        input_tokens=math.ceil(prompt_tokens * share),
        output_tokens=math.ceil(tokens.weigh(answer) * share),
    )


def booked_failure(price: Price, error: ChordwiseError) -> BookedCost:
    """Return the cost to record for a request without an answer."""
    usd = price.failure_cost_usd(error)
    is_free = price.basis is CostBasis.FREE
    basis = CostBasis.FREE if is_free else CostBasis.NOT_BILLED
    return BookedCost(usd=usd, basis=None if usd is None else basis)


def _cached(usage: Usage) -> tuple[int, int]:
    """Return the tokens read from the cache and written to it, limited to the input tokens."""
    total = usage.input_tokens or 0
    read = min(usage.cached_input_tokens or 0, total)
    return read, min(usage.cache_write_tokens or 0, total - read)


def _plausible(usd: Decimal) -> Decimal | None:
    return usd if usd < MAX_USD else None


# The text that a server adds to messages and a schema; providers' own prompts for structured
# output take a few hundred tokens.
_WRAPPING_TOKENS = 1_024
# A dialect of the schema may be longer: unsupported constraints become text in descriptions.
_SCHEMA_FACTOR = 2


def max_input_tokens(request: CompletionRequest) -> int:
    """Return an upper bound of the input tokens for any tokenizer: each token is at least a byte.

    The tokens of pictures depend on the provider; their bound is empirical.
    """
    prompt = _bytes(request.system) + _bytes(request.user)
    schema = _schema_bytes(request.schema) + _bytes(request.schema_name)
    shown = sum(picture.max_tokens for picture in request.pictures)
    return prompt + shown + _SCHEMA_FACTOR * schema + _WRAPPING_TOKENS


@memoized_by_identity
def _schema_bytes(schema: JsonObject) -> int:
    return _bytes(json.dumps(schema, indent=2))


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
