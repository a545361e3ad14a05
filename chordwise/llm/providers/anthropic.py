"""Messages, the API of Anthropic, in its version of October 2026."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import ClassVar

from pydantic import SecretStr

from chordwise.domain import tokens
from chordwise.domain.json_values import JsonObject, JsonValue, objects, text
from chordwise.domain.pictures import MEDIA_TYPE, Picture
from chordwise.errors import (
    ConfigurationError,
    ContextTooLongError,
    ModelAccessError,
    ModelOverloadedError,
    ModelTransportError,
    QuotaExceededError,
    RateLimitedError,
)
from chordwise.llm.exchange import (
    HttpModel,
    Kind,
    child,
    content_of,
    count,
    storable,
)
from chordwise.llm.model import (
    ChatModel,
    Completion,
    CompletionRequest,
    FinishReason,
    ModelProfile,
    Usage,
)
from chordwise.llm.provider import Provider
from chordwise.llm.schema_dialects import as_instruction, for_anthropic
from chordwise.llm.token_counts import TokenCounter, claude_counter
from chordwise.llm.transport import JsonTransport
from chordwise.settings import ModelSettings

PUBLIC_BASE_URL = "https://api.anthropic.com"
REGIONAL_FACTOR = Decimal("1.1")
"""The price of inference in one region, which the price list does not contain.

A workspace may require a region even if its requests do not.
"""
API_VERSION = "2026-10-21"
# Longer answers may take more than ten minutes and must be streamed (128,000 tokens an hour).
MAX_UNSTREAMED_TOKENS = 21_333
# The minimum that is cached is 512 to 4,096 tokens, by model; below it the mark has no effect.
MIN_CACHED_TOKENS = 1_024

CODES: Mapping[str, Kind] = {
    "enforced_spend_limit_reached": QuotaExceededError,
    "contract_spend_limit_reached": QuotaExceededError,
    "linked_organization_spend_limit_reached": QuotaExceededError,
    "linked_organization_billing_unavailable": QuotaExceededError,
    "billing_error": QuotaExceededError,
    "ramp_limit_exceeded": RateLimitedError,
    "organization_on_hold": ModelAccessError,
    "authentication_error": ModelAccessError,
    "permission_error": ModelAccessError,
    "not_found_error": ModelAccessError,
    "request_too_large": ContextTooLongError,
    # Gateways and local servers use the same text as OpenAI.
    "context_length_exceeded": ContextTooLongError,
    "exceed_context_size_error": ContextTooLongError,
    "request_body_too_large_after_decoding": ContextTooLongError,
    "rate_limit_error": RateLimitedError,
    "overloaded_error": ModelOverloadedError,
    "api_error": ModelOverloadedError,
    "timeout_error": ModelOverloadedError,
}

# These errors have the generic code `invalid_request_error` and status 400.
PHRASES: Mapping[str, Kind] = {
    "prompt is too long": ContextTooLongError,
    "exceed context limit": ContextTooLongError,
    "specified api usage limits": QuotaExceededError,
    "credit balance is too low": QuotaExceededError,
}

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "refusal": FinishReason.REFUSAL,
}


class AnthropicModel(HttpModel):
    """A Claude model behind the Messages API."""

    public_base_url = PUBLIC_BASE_URL
    endings = ("/v1/messages", "/v1")
    codes = CODES
    phrases = PHRASES
    headers: ClassVar[Mapping[str, str]] = {"anthropic-version": API_VERSION}

    def __init__(
        self, settings: ModelSettings, api_key: SecretStr, transport: JsonTransport | None = None
    ) -> None:
        if settings.temperature is not None:
            raise ConfigurationError(
                f"temperature is set for {settings.model}, but Anthropic no longer accepts it.",
                "Remove temperature from the model's settings.",
            )
        super().__init__(settings, api_key, transport)

    @property
    def profile(self) -> ModelProfile:
        """Return the profile from the settings, with the limit of the API for an answer."""
        profile = super().profile
        return replace(
            profile,
            max_output_tokens=min(profile.max_output_tokens, MAX_UNSTREAMED_TOKENS),
            max_output_tokens_on_retry=min(self.settings.output_ceiling, MAX_UNSTREAMED_TOKENS),
        )

    def body(self, request: CompletionRequest) -> JsonObject:
        """Return the JSON of a message."""
        enforced = self.settings.structured_output == "json_schema"
        schema = for_anthropic(request.schema) if enforced else None
        instruction = "" if schema is not None else as_instruction(request.schema)
        system = "\n\n".join(part for part in (request.system, instruction) if part)
        body: JsonObject = {
            "model": self.settings.model,
            "max_tokens": min(request.max_output_tokens, self.profile.output_ceiling),
            "messages": [{"role": "user", "content": content_of(request, _shown)}],
        }
        if system:
            body["system"] = _system(system)
        if schema is not None:
            body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        return body

    def completion(self, body: JsonObject) -> Completion:
        """Parse a message.

        Raises:
            ModelError: It is none.
        """
        if not isinstance(body.get("content"), list):
            raise ModelTransportError(
                f"{self.label} responded with JSON that is not a message.",
                "Check that base_url is the address of a Messages API.",
            )
        reason = text(body.get("stop_reason"))
        blocks = [block for block in objects(body["content"]) if block.get("type") == "text"]
        return Completion(
            text=storable("".join(text(block.get("text")) for block in blocks)),
            finish_reason=_FINISH_REASONS.get(reason, FinishReason.OTHER),
            usage=_usage(child(body, "usage")),
            provider=self.settings.provider,
            model=storable(text(body.get("model"))) or self.settings.model,
            response_id=storable(text(body.get("id"))),
            refusal=storable(_refusal(body)) if reason == "refusal" else "",
            service_tier=storable(text(child(body, "usage").get("service_tier"))),
            inference_geo=storable(text(child(body, "usage").get("inference_geo"))),
        )


class Anthropic(Provider):
    """The Messages API at Anthropic's public address, or at the `base_url` of a gateway."""

    host = "api.anthropic.com"
    regional_factor = REGIONAL_FACTOR

    def connect(
        self, settings: ModelSettings, api_key: SecretStr, transport: JsonTransport | None
    ) -> ChatModel:
        """Return the model."""
        return AnthropicModel(settings, api_key, transport)

    def token_counter(self, settings: ModelSettings) -> TokenCounter:
        """Return the counter for a Claude model."""
        return claude_counter(settings.model)


PROVIDER = Anthropic()


def _shown(picture: Picture) -> JsonObject:
    source: JsonObject = {"type": "base64", "media_type": MEDIA_TYPE, "data": picture.base64}
    return {"type": "image", "source": source}


def _system(text: str) -> JsonValue:
    """Return the instructions, which are the same for all questions of a kind.

    If they are long enough for Anthropic's prompt cache, they are marked for caching: a write costs
    a quarter more than the usual price, a read a tenth of it.
    """
    if tokens.estimate(text) < MIN_CACHED_TOKENS:
        return text
    return [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]


def _refusal(body: JsonObject) -> str:
    """Return the category and the explanation of a refusal, if the answer has them."""
    details = child(body, "stop_details")
    parts = [text(details.get("category")), text(details.get("explanation"))]
    return ": ".join(part for part in parts if part) or "The model declined to answer."


def _usage(usage: JsonObject) -> Usage:
    """Return the usage; the input tokens include the cached ones, which Anthropic excludes."""
    fresh = count(usage, "input_tokens")
    written = count(usage, "cache_creation_input_tokens")
    cached = count(usage, "cache_read_input_tokens")
    return Usage(
        input_tokens=None if fresh is None else fresh + (written or 0) + (cached or 0),
        output_tokens=count(usage, "output_tokens"),
        cached_input_tokens=cached,
        cache_write_tokens=written,
    )
