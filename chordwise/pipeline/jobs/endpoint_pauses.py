"""The pauses that a denied key, model or quota has set for everybody: seeing them, ending them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

import redis
import structlog

from chordwise.errors import ConfigurationError, ServiceUnavailableError
from chordwise.llm.limits import pauses
from chordwise.llm.limits.pauses import Pause, Place
from chordwise.llm.limits.shared import open_client
from chordwise.pipeline.runtime.broker import reason
from chordwise.settings import ModelSettings, Settings

log = structlog.get_logger(__name__)


def resume(settings: Settings, names: Iterable[str]) -> None:
    """Let the next call to each of these models, and to their fallbacks, look whether it has to be.

    Whose key it was is not asked: whoever retries a run may have another one than the workers, or
    none. Where Valkey is away the pauses last until they end by themselves.
    """
    if settings.broker_url is None:
        return
    asked = list(_models(settings, names))

    def is_asked(pause: Pause) -> bool:
        return any(pause.holds_for(each.provider, each.base_url, each.model) for each in asked)

    try:
        with open_client(settings.broker_url) as client:
            pauses.resume(client, is_asked)
    except (redis.RedisError, OSError) as error:
        log.warning("pauses.not_resumed", error=type(error).__name__)


def holding(settings: Settings) -> list[Pause]:
    """Return the pauses that hold for models of the settings, with their keys.

    Raises:
        ServiceUnavailableError: The broker is out of reach.
    """
    if settings.broker_url is None:
        return []
    ours = {
        name
        for model in _models(settings, (settings.model,))
        for name in Place.of(
            model.provider, model.base_url, model.model, settings.api_key_for(model)
        ).names
    }
    try:
        with open_client(settings.broker_url) as client:
            return [pause for pause in pauses.read(client) if pause.name in ours]
    except (redis.RedisError, OSError) as error:
        raise ServiceUnavailableError(
            f"The broker cannot be reached: {reason(error)}.", "Check CHORDWISE_BROKER_URL."
        ) from error


def _models(settings: Settings, names: Iterable[str]) -> Iterator[ModelSettings]:
    """Yield whoever may answer for each name; what this process does not know is left out."""
    for name in (*names, *settings.fallback):
        with suppress(ConfigurationError):
            yield from [settings.model_named(each) for each in settings.names_asked(name)]
