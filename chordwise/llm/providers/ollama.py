"""What Ollama understands only in its native API: how long a model stays in memory.

Its Chat Completions endpoint has no such field and passes one over in silence
(github.com/ollama/ollama/issues/3645). A loaded model keeps the time that it was given last, and a
native request without a prompt gives it one without asking the model anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from pydantic import SecretStr

from chordwise.domain.json_values import JsonValue
from chordwise.errors import ConfigurationError, ModelRequestError
from chordwise.llm.middleware.kept_loaded import KeptLoaded
from chordwise.llm.model import ChatModel
from chordwise.llm.providers.endpoint import checked_key, endpoint
from chordwise.llm.providers.faults import LOWEST_ERROR_STATUS
from chordwise.llm.transport import JsonTransport
from chordwise.settings import ModelSettings

FOR_EVER = "-1"
_TIMEOUT_SECONDS = 10.0
_LONGEST_INTERVAL_SECONDS = 60.0
_SECONDS: Mapping[str, int] = MappingProxyType({"s": 1, "m": 60, "h": 3_600})


def kept_loaded(
    model: ChatModel, settings: ModelSettings, api_key: SecretStr, transport: JsonTransport
) -> ChatModel:
    """Return the model as it is, or one whose server is told `keep_alive` of the settings."""
    if not settings.keep_alive:
        return model
    return KeptLoaded(model, _keeper(settings, api_key, transport), interval_seconds(settings))


def require_keep_alive(settings: ModelSettings) -> None:
    """Refuse `keep_alive` for a model that no server of the user's own runs.

    Raises:
        ConfigurationError: It is set for such a model.
    """
    if not settings.keep_alive:
        return
    if settings.provider != "openai" or not settings.base_url:
        raise ConfigurationError(
            f"keep_alive is set for {settings.model}, which Ollama does not serve.",
            "Remove keep_alive, or set provider = “openai” and base_url to Ollama's /v1.",
        )


def interval_seconds(settings: ModelSettings) -> float:
    """Return how often to repeat it: a model that was loaded again has the server's own time."""
    if settings.keep_alive == FOR_EVER:
        return _LONGEST_INTERVAL_SECONDS
    length = int(settings.keep_alive[:-1]) * _SECONDS[settings.keep_alive[-1]]
    return min(_LONGEST_INTERVAL_SECONDS, length / 2)


def _keeper(
    settings: ModelSettings, api_key: SecretStr, transport: JsonTransport
) -> Callable[[], None]:
    url = endpoint(settings.base_url.rstrip("/").removesuffix("/v1"), "/api/generate")
    # As a string it would need a unit there.
    duration: JsonValue = -1 if settings.keep_alive == FOR_EVER else settings.keep_alive
    key = checked_key(api_key)
    headers = {"content-type": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {key}"

    def keep() -> None:
        body = {"model": settings.model, "keep_alive": duration}
        response = transport.post_json(url, headers, body, _TIMEOUT_SECONDS)
        if response.status >= LOWEST_ERROR_STATUS:
            raise ModelRequestError(
                f"The server of {settings.model} answered keep_alive with {response.status}.",
                "keep_alive is for Ollama; remove it for other servers.",
            )

    return keep
