"""Checks the broker on a connection of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import redis
from pydantic import SecretStr

from chordwise.errors import ChordwiseError, ConfigurationError, ServiceUnavailableError
from chordwise.settings import Settings, service_addresses

_SECONDS = 5.0
_PROBE_KEY = "chordwise:probe"
_PROBE_SECONDS = 60
_NO_SUCH_DATABASE = "DB index is out of range"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerReport:
    """The state of a broker; `memory_limit` is 0 if there is none."""

    server: str
    policy: str
    persistent: bool
    memory_used: int
    memory_limit: int

    @property
    def memory_share(self) -> float:
        """The share of its memory that is in use, between 0 and 1; 0 without a limit."""
        return self.memory_used / self.memory_limit if self.memory_limit else 0.0


def require_url(settings: Settings) -> SecretStr:
    """Return the address of the broker.

    Raises:
        ConfigurationError: None is set.
    """
    if settings.broker_url is None:
        raise ConfigurationError("No broker is configured.", "Set CHORDWISE_BROKER_URL.")
    return settings.broker_url


def require_working(url: SecretStr) -> None:
    """Check that the broker answers and accepts a message.

    Raises:
        ConfigurationError: It has no database of the number in the address.
        ServiceUnavailableError: It cannot be reached or accepts no message.
    """
    with _connected(url) as client:
        client.ping()
        try:
            client.set(_PROBE_KEY, 1, ex=_PROBE_SECONDS)
        except redis.exceptions.OutOfMemoryError as error:
            raise ServiceUnavailableError(
                "The broker is full and accepts no messages.",
                "Raise its maxmemory, or let the workers empty it.",
            ) from error


def require_database(settings: Settings) -> None:
    """Check that a broker is configured and, if it can be reached, has the database of its address.

    Raises:
        ConfigurationError: No broker is configured, or it has no such database.
    """
    with suppress(ServiceUnavailableError), _connected(require_url(settings)) as client:
        client.ping()


def report(url: SecretStr) -> BrokerReport:
    """Return the state that the broker reports.

    Raises:
        ConfigurationError: It has no database of the number in the address.
        ServiceUnavailableError: It cannot be reached.
    """
    with _connected(url) as client:
        reply: object = client.info()
    entries = reply if isinstance(reply, dict) else {}
    name = "Valkey" if "valkey_version" in entries else "Redis"
    return BrokerReport(
        server=f"{name} {entries.get(f'{name.lower()}_version')}",
        policy=str(entries.get("maxmemory_policy", "noeviction")),
        persistent=bool(entries.get("aof_enabled")),
        memory_used=int(entries.get("used_memory", 0)),
        memory_limit=int(entries.get("maxmemory", 0)),
    )


def has_worker(settings: Settings) -> bool:
    """Return whether a worker of any home takes messages; false if the broker does not tell."""
    with suppress(ChordwiseError), _connected(require_url(settings)) as client:
        database = str(client.get_connection_kwargs().get("db", 0))
        clients = client.client_list()
        return any(peer["cmd"] == "brpop" and peer["db"] == database for peer in clients)
    return False


@contextmanager
def _connected(url: SecretStr) -> Iterator[redis.Redis]:
    address = service_addresses.redis_address(url.get_secret_value())
    limits = {"socket_timeout": _SECONDS}
    if not address.startswith("unix://"):
        limits["socket_connect_timeout"] = _SECONDS
    with translating_errors(), redis.Redis.from_url(address, **limits) as client:
        yield client


@contextmanager
def translating_errors() -> Iterator[None]:
    """Translate the errors of the client library.

    Raises:
        ConfigurationError: The broker has no database of the number in its address.
        ServiceUnavailableError: It cannot be reached.
    """
    try:
        yield
    except (redis.RedisError, OSError, ValueError) as error:
        if _NO_SUCH_DATABASE in str(error):
            raise ConfigurationError(
                f"The broker rejects the number of the database in broker_url: {reason(error)}.",
                "Use a smaller number (CHORDWISE_BROKER_URL), or raise `databases` of the server.",
            ) from error
        raise ServiceUnavailableError(
            f"The broker cannot be reached: {reason(error)}.", "Check CHORDWISE_BROKER_URL."
        ) from error


def reason(error: Exception) -> str:
    """Return why the broker cannot be reached, with its address and without its password.

    The message of a `ValueError` about an address may contain a secret part of it and is left out.
    """
    if isinstance(error, ValueError):
        return type(error).__name__
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
