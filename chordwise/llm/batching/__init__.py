"""The Batch APIs of providers behind the port `BatchApi`, and the place that chooses among them."""

from __future__ import annotations

from pydantic import SecretStr

from chordwise.errors import ConfigurationError
from chordwise.llm.batching.anthropic import AnthropicBatches
from chordwise.llm.batching.api import BatchApi
from chordwise.llm.batching.openai import OpenAIBatches
from chordwise.llm.providers.endpoint import host_of
from chordwise.llm.transport import JsonTransport
from chordwise.settings import ModelSettings

_PUBLIC_HOSTS = {"openai": "api.openai.com", "anthropic": "api.anthropic.com"}


def has_batches(settings: ModelSettings) -> bool:
    """Tell whether a model can be asked in batches: at its provider, or where the settings say so.

    Servers at other addresses mostly have no such API: they have to be named by `batch = true`.
    """
    if settings.provider not in _PUBLIC_HOSTS:
        return False
    if settings.batch is not None:
        return settings.batch
    return not settings.base_url or host_of(settings.base_url) == _PUBLIC_HOSTS[settings.provider]


def connect(
    settings: ModelSettings, api_key: SecretStr, transport: JsonTransport | None = None
) -> BatchApi:
    """Return the Batch API of a model, without asking anything over the network.

    Raises:
        ConfigurationError: It has none, or a value cannot be right.
    """
    if not has_batches(settings):
        raise ConfigurationError(
            f"{settings.provider}/{settings.model} has no Batch API.",
            "Ask online, or set batch = true of the model where its server has one.",
        )
    transport = transport or JsonTransport()
    if settings.provider == "anthropic":
        return AnthropicBatches(settings, api_key, transport)
    return OpenAIBatches(settings, api_key, transport)
