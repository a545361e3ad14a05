"""The interface of providers, and the connection to the models of the settings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from decimal import Decimal

from pydantic import SecretStr

from chordwise.errors import ConfigurationError
from chordwise.kinds import Kinds
from chordwise.llm import token_counts
from chordwise.llm.model import ChatModel
from chordwise.llm.token_counts import TokenCounter
from chordwise.llm.transport import JsonTransport
from chordwise.settings import ModelSettings
from chordwise.settings.service_addresses import is_at_provider


class Provider(ABC):
    """What is specific to a provider."""

    host: str = ""
    """The host of the public address, to which the key in PROVIDER_API_KEY is sent."""
    needs_name: bool = True
    """Whether a model must be named."""
    regional_factor: Decimal = Decimal(1)
    """The highest factor of the list price for inference in one region."""

    @abstractmethod
    def connect(
        self, settings: ModelSettings, api_key: SecretStr, transport: JsonTransport | None
    ) -> ChatModel:
        """Return the model that the settings describe, without any network request.

        Raises:
            ConfigurationError: A value is missing or invalid.
        """

    def is_free(self, settings: ModelSettings) -> bool:  # noqa: ARG002
        """Return whether the model costs nothing because Chordwise serves it."""
        return False

    def has_service_tiers(self, settings: ModelSettings) -> bool:  # noqa: ARG002
        """Return whether requests name a service tier, and so a price."""
        return False

    def token_counter(self, settings: ModelSettings) -> TokenCounter:
        """Return the most exact installed counter for a model."""
        return token_counts.counter_for(settings.model)


PROVIDERS: Kinds[Provider] = Kinds("chordwise.llm.providers", "PROVIDER")


def connect(
    settings: ModelSettings, api_key: SecretStr, transport: JsonTransport | None = None
) -> ChatModel:
    """Return the model that the settings describe, without any network request.

    A local model needs the `base_url` of the server that runs it.

    Raises:
        ConfigurationError: The model's name, the key for a public address, or a local model's
            address is missing, or a value is invalid.
    """
    provider = PROVIDERS[settings.provider]
    if provider.needs_name and not settings.model:
        raise ConfigurationError(f"A model of {settings.provider} has no name.", "Set model.")
    if settings.service_tier and not provider.has_service_tiers(settings):
        raise ConfigurationError(
            f"service_tier is set for {settings.model}, whose provider has no such tier.",
            "Only OpenAI at its public address has one; remove service_tier.",
        )
    if settings.keep_alive and (settings.provider != "openai" or not settings.base_url):
        raise ConfigurationError(
            f"keep_alive is set for {settings.model}, which Ollama does not serve.",
            'Remove keep_alive, or set provider = "openai" and base_url to the /v1 of Ollama.',
        )
    require_key(settings, api_key)
    return provider.connect(settings, api_key, transport)


def require_key(settings: ModelSettings, api_key: SecretStr) -> None:
    """Raise `ConfigurationError` if the server of a model needs a key, and there is none."""
    if api_key.get_secret_value().strip():
        return
    if settings.api_key_env:
        raise ConfigurationError(
            f"The variable {settings.api_key_env}, which holds the key for {settings.provider}/"
            f"{settings.model}, is not set.",
            f"Set {settings.api_key_env}, or change api_key_env of the model.",
        )
    # Servers at other addresses often require no key.
    if is_at_provider(settings.provider, settings.base_url):
        raise ConfigurationError(
            f"There is no API key for {settings.provider}/{settings.model}.",
            f"Set {settings.provider.upper()}_API_KEY, or api_key of the model. Without a key: "
            "--model extractive.",
        )
