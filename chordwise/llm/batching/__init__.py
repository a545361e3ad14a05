"""The Batch APIs of providers behind the interface `BatchApi`, and the choice among them."""

from __future__ import annotations

from pydantic import SecretStr

from chordwise.errors import ConfigurationError
from chordwise.llm.batching.api import BatchApi
from chordwise.llm.provider import PROVIDERS
from chordwise.llm.transport import JsonTransport
from chordwise.settings import ModelSettings
from chordwise.settings.providers import is_at_provider


def has_batches(settings: ModelSettings) -> bool:
    """Return whether a model has a Batch API: at its provider, or with `batch = true`."""
    if not PROVIDERS[settings.provider].has_batches:
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
    return PROVIDERS[settings.provider].batches(settings, api_key, transport or JsonTransport())
