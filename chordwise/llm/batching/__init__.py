"""The Batch APIs of providers behind the interface `BatchApi`, and the choice among them."""

from __future__ import annotations

from pydantic import SecretStr

from chordwise.domain.addresses import is_at_provider, provider_host
from chordwise.errors import ConfigurationError
from chordwise.llm.batching.anthropic import AnthropicBatches
from chordwise.llm.batching.api import BatchApi
from chordwise.llm.batching.openai import OpenAIBatches
from chordwise.llm.transport import JsonTransport
from chordwise.settings import ModelSettings


def has_batches(settings: ModelSettings) -> bool:
    """Return whether a model has a Batch API: at its provider, or with `batch = true`."""
    if not provider_host(settings.provider):
        return False
    if settings.batch is not None:
        return settings.batch
    return is_at_provider(settings.provider, settings.base_url)


def connect(
    settings: ModelSettings, api_key: SecretStr, transport: JsonTransport | None = None
) -> BatchApi:
    """Return the Batch API of a model, without any network request.

    Raises:
        ConfigurationError: It has none, or a value is invalid.
    """
    if not has_batches(settings):
        raise ConfigurationError(
            f"{settings.provider}/{settings.model} has no Batch API.",
            "Use the online lane, or set batch = true for the model if its server has one.",
        )
    transport = transport or JsonTransport()
    if settings.provider == "anthropic":
        return AnthropicBatches(settings, api_key, transport)
    return OpenAIBatches(settings, api_key, transport)
