"""The providers behind the `ChatModel` interface, and the choice among those over HTTP."""

from __future__ import annotations

from pydantic import SecretStr

from chordwise.domain.addresses import is_at_provider
from chordwise.errors import ConfigurationError
from chordwise.llm.model import ChatModel
from chordwise.llm.providers.anthropic import AnthropicModel
from chordwise.llm.providers.ollama import require_keep_alive, with_keep_alive
from chordwise.llm.providers.openai import OpenAIModel
from chordwise.llm.transport import JsonTransport
from chordwise.settings import ModelSettings


def connect(
    settings: ModelSettings, api_key: SecretStr, transport: JsonTransport | None = None
) -> ChatModel:
    """Return the model that the settings describe, without any network request.

    A local model needs the `base_url` of the server that runs it.

    Raises:
        ConfigurationError: The model's name, the key for a public address, or a local model's
            address is missing, or a value is invalid.
    """
    if not settings.model and settings.provider != "local":
        raise ConfigurationError(f"A model of {settings.provider} has no name.", "Set model.")
    _require_tier(settings)
    require_keep_alive(settings)
    match settings.provider:
        case "openai":
            require_key(settings, api_key)
            model = OpenAIModel(settings, api_key, transport)
            return with_keep_alive(model, settings)
        case "anthropic":
            require_key(settings, api_key)
            return AnthropicModel(settings, api_key, transport)
        case "local":
            _require_address(settings)
            require_key(settings, api_key)
            return OpenAIModel(settings, api_key, transport)
        case "extractive":
            raise ConfigurationError("The extractive model has no address to connect to.")


def has_service_tiers(settings: ModelSettings) -> bool:
    """Return whether requests name a service tier, and so a price: only at OpenAI itself."""
    return settings.provider == "openai" and is_at_provider("openai", settings.base_url)


def _require_tier(settings: ModelSettings) -> None:
    if settings.service_tier and not has_service_tiers(settings):
        raise ConfigurationError(
            f"service_tier is set for {settings.model}, whose provider has no such tier.",
            "Only OpenAI at its public address has one; remove service_tier.",
        )


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


def _require_address(settings: ModelSettings) -> None:
    if not settings.base_url:
        raise ConfigurationError(
            "A local model has no address.", "Set base_url to the server that runs it."
        )
