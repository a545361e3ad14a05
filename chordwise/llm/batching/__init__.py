"""The Batch APIs of providers behind the interface `BatchApi`, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import SecretStr

from chordwise.errors import ConfigurationError
from chordwise.kinds import Kinds
from chordwise.llm.batching.api import BatchApi
from chordwise.llm.transport import JsonTransport
from chordwise.settings import ModelSettings
from chordwise.settings.providers import is_at_provider

# By the name of the provider.
_BATCH_APIS: Kinds[Callable[[ModelSettings, SecretStr, JsonTransport], BatchApi]] = Kinds(
    "chordwise.llm.batching", "BATCH_API"
)


def has_batches(settings: ModelSettings) -> bool:
    """Return whether a model has a Batch API: at its provider, or with `batch = true`."""
    if settings.provider not in _BATCH_APIS:
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
    return _BATCH_APIS[settings.provider](settings, api_key, transport or JsonTransport())
