"""Opening the limits of a model from the settings."""

from __future__ import annotations

from functools import partial

import redis
from pydantic import SecretStr

from chordwise.llm.limits import state
from chordwise.llm.limits.pauses import Place
from chordwise.llm.limits.permits import LimitPolicy
from chordwise.llm.limits.process import ProcessLimits
from chordwise.llm.limits.resilient import ResilientLimits
from chordwise.llm.limits.shared import SharedLimits, endpoint_id
from chordwise.settings import LimitSettings, ModelSettings, addresses

# A permit outlives its call's deadline by this, so that no running call goes uncounted.
_MARGIN_SECONDS = 5.0
_ANSWER_SECONDS = 2.0
_MOST_CONNECTIONS = 8


def open_client(broker_url: SecretStr) -> redis.Redis:
    """Return a client of the broker's Valkey with few connections; nothing is connected yet."""
    address = addresses.redis_address(broker_url.get_secret_value())
    seconds = {"socket_timeout": _ANSWER_SECONDS, "timeout": _ANSWER_SECONDS}
    if not address.startswith("unix://"):
        seconds["socket_connect_timeout"] = _ANSWER_SECONDS
    pool = redis.BlockingConnectionPool.from_url(
        address, max_connections=_MOST_CONNECTIONS, **seconds
    )
    return redis.Redis.from_pool(pool)


def policy_of(settings: LimitSettings, model: ModelSettings) -> LimitPolicy:
    """Return what the settings say of a model's limits."""
    return LimitPolicy(
        requests_per_minute=model.requests_per_minute,
        tokens_per_minute=model.tokens_per_minute,
        max_in_flight=model.max_in_flight,
        first_in_flight=settings.first_in_flight,
        most_in_flight=settings.most_in_flight,
        breaker_failures=settings.breaker_failures,
        breaker_seconds=settings.breaker_seconds,
        lease_seconds=model.timeout_seconds + _MARGIN_SECONDS,
        pause_seconds=settings.pause_seconds,
        has_head_start=True,
    )


def open_limits(
    settings: LimitSettings, model: ModelSettings, api_key: SecretStr, client: redis.Redis
) -> ResilientLimits:
    """Return the limits that a model shares with all who ask it with the same key.

    One for each model and process, whatever is wrapped around it: it counts this process's calls
    while Valkey is away.
    """
    policy = policy_of(settings, model)
    endpoint = endpoint_id(model.provider, model.base_url, model.model, api_key)
    place = Place.of(model.provider, model.base_url, model.model, api_key)
    return ResilientLimits(
        SharedLimits(client, endpoint, policy, place=place),
        ProcessLimits(policy),
        partial(state.read, client, endpoint, policy),
    )
