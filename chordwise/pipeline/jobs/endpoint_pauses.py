"""Pauses of models and keys that a provider has denied: which are active, and when they end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

import redis
import structlog

from chordwise.errors import ConfigurationError
from chordwise.llm.limits.shared_limits import (
    ModelEndpoint,
    Pause,
    open_client,
    read_pauses,
    resume_pauses,
)
from chordwise.pipeline.runtime import broker
from chordwise.settings import ModelSettings, Settings

log = structlog.get_logger(__name__)


def probe_again(settings: Settings, names: Iterable[str]) -> None:
    """Let the next call to each of these models and fallbacks probe whether its pause can end.

    Keys are not compared, because a command may have another key than the workers, or none. If
    Valkey is unavailable, the pauses end by their own timeout.
    """
    if settings.broker_url is None:
        return
    models = list(_models(settings, names))

    def applies(pause: Pause) -> bool:
        return any(map(pause.holds_for, models))

    try:
        with open_client(settings.broker_url) as client:
            resume_pauses(client, applies)
    except (redis.RedisError, OSError) as error:
        log.warning("pauses.not_resumed", error=type(error).__name__)


def active_pauses(settings: Settings) -> list[Pause]:
    """Return the active pauses that apply to the models and API keys in the settings.

    Raises:
        ServiceUnavailableError: The broker cannot be reached.
        ConfigurationError: The broker has no database of the number in its address.
    """
    if settings.broker_url is None:
        return []
    ours = {
        name
        for model in _models(settings, (settings.model,))
        for name in ModelEndpoint.of(model, settings.api_key_for(model)).names
    }
    with broker.translating_errors(), open_client(settings.broker_url) as client:
        return [pause for pause in read_pauses(client) if pause.name in ours]


def _models(settings: Settings, names: Iterable[str]) -> Iterator[ModelSettings]:
    """Yield the models that may answer for each name; unknown names are skipped."""
    for name in (*names, *settings.fallback):
        with suppress(ConfigurationError):
            yield from [settings.model_named(model) for model in settings.selected_names(name)]
