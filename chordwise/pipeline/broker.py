"""Asking the broker itself how it is, on a connection of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import redis
from pydantic import SecretStr

from chordwise.errors import ServiceUnavailableError

_SECONDS = 5.0
_PROBE_KEY = "chordwise:probe"
_PROBE_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerReport:
    """What a broker says about itself; `memory_limit` is 0 where there is none."""

    version: str
    policy: str
    persistent: bool
    memory_used: int
    memory_limit: int

    @property
    def memory_share(self) -> float:
        """The share of its memory that is in use, between 0 and 1; 0 without a limit."""
        return self.memory_used / self.memory_limit if self.memory_limit else 0.0


def require_working(url: SecretStr) -> None:
    """See that the broker answers and takes a message.

    Raises:
        ServiceUnavailableError: It is out of reach, or takes nothing.
    """
    with _connected(url) as client:
        client.ping()
        try:
            client.set(_PROBE_KEY, 1, ex=_PROBE_SECONDS)
        except redis.exceptions.OutOfMemoryError as error:
            raise ServiceUnavailableError(
                "The broker is full and takes no messages.",
                "Raise its maxmemory, or let the workers empty it.",
            ) from error


def report(url: SecretStr) -> BrokerReport:
    """Return what the broker says about itself.

    Raises:
        ServiceUnavailableError: It is out of reach.
    """
    with _connected(url) as client:
        found: object = client.info()
    entries = found if isinstance(found, dict) else {}
    return BrokerReport(
        version=str(entries.get("valkey_version") or entries.get("redis_version")),
        policy=str(entries.get("maxmemory_policy", "noeviction")),
        persistent=bool(entries.get("aof_enabled")),
        memory_used=int(entries.get("used_memory", 0)),
        memory_limit=int(entries.get("maxmemory", 0)),
    )


@contextmanager
def _connected(url: SecretStr) -> Iterator[redis.Redis]:
    # Celery and redis-py spell the address of a socket differently.
    address = url.get_secret_value().replace("redis+socket://", "unix://", 1)
    limits = {"socket_timeout": _SECONDS}
    if not address.startswith("unix://"):
        limits["socket_connect_timeout"] = _SECONDS
    try:
        with redis.Redis.from_url(address, **limits) as client:
            yield client
    except (redis.RedisError, OSError, ValueError) as error:
        raise ServiceUnavailableError(
            f"The broker cannot be reached: {reason(error)}.", "Check CHORDWISE_BROKER_URL."
        ) from error


def reason(error: Exception) -> str:
    """Return why the broker cannot be reached, with its address and without its password.

    What is wrong with an address itself (`ValueError`) may quote a part of it that is secret.
    """
    if isinstance(error, ValueError):
        return type(error).__name__
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
