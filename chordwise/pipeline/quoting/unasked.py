"""Models as the settings describe them: they render and count questions, and are never asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from pydantic import SecretStr

from chordwise.domain import tokens
from chordwise.domain.lanes import Lane
from chordwise.domain.routing import Tier
from chordwise.embedded import llama
from chordwise.errors import InternalError, ModelError
from chordwise.llm import pricing
from chordwise.llm.batching import has_batches
from chordwise.llm.counting import TokenCounter, count_request, counter_for
from chordwise.llm.middleware.tiered import Tiered
from chordwise.llm.model import (
    EXTRACTIVE,
    ChatModel,
    Completion,
    CompletionRequest,
    FinishReason,
    ModelProfile,
    Usage,
)
from chordwise.llm.providers import connect, has_service_tiers
from chordwise.llm.providers.anthropic import AnthropicModel
from chordwise.llm.providers.extractive import ExtractiveModel
from chordwise.llm.providers.openai import OpenAIModel
from chordwise.settings import ModelSettings, Settings

ONLINE = Lane.ONLINE.value
_NO_ADDRESS = "http://127.0.0.1/v1"
_NO_KEY = SecretStr("unused")


class UnaskedModel(ChatModel):
    """One model by its name in the settings; neither a key nor its server is needed.

    `wanted` is the lane of the run; a model without batches is asked online all the same.
    """

    def __init__(self, name: str, settings: ModelSettings, wanted: Lane) -> None:
        self.name = name
        self.settings = settings
        self._wanted = wanted
        self.counter: TokenCounter = counter_for(settings)
        self._connected = _connected(settings)

    @property
    def profile(self) -> ModelProfile:
        """Return what the settings say of the model."""
        return self._connected.profile

    @property
    def label(self) -> str:
        """Return provider and model."""
        return f"{self.profile.provider}/{self.profile.model}"

    @property
    def lane(self) -> str:
        """Return the lane in which the run asks this model."""
        if self._wanted is Lane.BATCH and has_batches(self.settings):
            return pricing.BATCH
        return self.lane_now

    @property
    def lane_now(self) -> str:
        """Return the lane in which the model is asked by whoever does not wait for a batch."""
        return self.settings.service_tier or ONLINE

    @property
    def lanes(self) -> tuple[str, ...]:
        """Return the lanes that the model's provider has."""
        flex = (pricing.FLEX,) if has_service_tiers(self.settings) else ()
        batch = (pricing.BATCH,) if has_batches(self.settings) else ()
        return (ONLINE, *flex, *batch)

    def complete(self, request: CompletionRequest) -> Completion:
        """Refuse.

        Raises:
            InternalError: Always.
        """
        raise InternalError(f"{self.name} is only quoted; nobody may ask {request.schema_name}.")

    def tokens_of(self, request: CompletionRequest) -> int:
        """Return the input tokens of a request."""
        if isinstance(self._connected, OpenAIModel | AnthropicModel):
            return count_request(self.counter, self.settings, self._connected.body(request))
        read = request.task.text or json.dumps(request.task.answers, ensure_ascii=False)
        return tokens.estimate(read)

    def cost_usd(self, input_tokens: float, output_tokens: float, lane: str) -> Decimal | None:
        """Return what one question costs; `None` where the price is unknown."""
        usage = Usage(input_tokens=round(input_tokens), output_tokens=round(output_tokens))
        completion = Completion(
            text="",
            finish_reason=FinishReason.STOP,
            usage=usage,
            provider=self.profile.provider,
            model=self.profile.model,
            service_tier="" if lane == ONLINE else lane,
        )
        return pricing.price_of(self.settings).cost_usd(completion)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnaskedModels:
    """What a name stands for: `asked` is the model that questions are put to, or all its tiers."""

    asked: ChatModel
    tiers: Mapping[Tier, UnaskedModel]
    largest: UnaskedModel


def opened(settings: Settings, name: str, wanted: Lane = Lane.ONLINE) -> UnaskedModels:
    """Return the models behind a name for a run in this lane; fallbacks are not among them.

    Raises:
        ConfigurationError: There is no such model, or it cannot be used as configured.
    """

    def unasked(each: str) -> UnaskedModel:
        return UnaskedModel(each, settings.model_named(each), wanted)

    tiers = {tier: unasked(each) for tier, each in settings.tiers.behind(name).items()}
    if not tiers:
        single = unasked(name)
        return UnaskedModels(asked=single, tiers={}, largest=single)
    asked = Tiered(tiers, settings.routing, _nothing_changes)
    return UnaskedModels(asked=asked, tiers=tiers, largest=list(tiers.values())[-1])


def _connected(settings: ModelSettings) -> ChatModel:
    if settings.provider == EXTRACTIVE:
        return ExtractiveModel()
    changes: dict[str, object] = {"keep_alive": ""}
    if llama.is_served_here(settings):
        changes |= {"base_url": _NO_ADDRESS, "context_tokens": llama.context_tokens(settings)}
    return connect(settings.model_copy(update=changes), _NO_KEY)


def _nothing_changes(asked: ModelProfile, following: ModelProfile, error: ModelError) -> None:
    """Hear of nothing: no model is asked."""
