"""Pauses of an endpoint after a refusal that needs intervention, for all workers and runs.

The script of the limits starts and ends pauses; this module names, reads and shortens them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import redis
from pydantic import SecretStr

from chordwise.domain.json_values import JsonObject, as_object, text
from chordwise.llm.limits.permits import Denial

KEY = "chordwise:limits:pauses"
"""The hash with all pauses; it reveals no API key, and no address that may contain one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEndpoint:
    """A model, its provider and address, and `account`, a hash of provider, address and key."""

    provider: str
    base_url: str
    model: str
    account: str

    @classmethod
    def of(cls, provider: str, base_url: str, model: str, api_key: SecretStr) -> ModelEndpoint:
        """Return the endpoint for requests with this key."""
        account = hashed(provider, base_url, api_key.get_secret_value())
        return cls(provider=provider, base_url=base_url, model=model, account=account)

    @property
    def names(self) -> list[str]:
        """Return the names of the pauses that apply here: the key's and the model's."""
        return [self.account, f"{self.account}/{self.model}"]

    def pause(self, denial: Denial) -> JsonObject:
        """Return the stored form of a pause: its name, and the error to display."""
        return {
            "name": self.names[0 if denial.is_about_key else 1],
            "address": hashed(self.provider, self.base_url),
            "model": "" if denial.is_about_key else self.model,
            "code": denial.code,
            "what": denial.what,
            "hint": denial.hint,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A pause in force; without `model` it applies to all models of that key.

    `address` is a hash of provider and base URL. `seconds` is how long requests stay stopped; 0 if
    the next call checks whether the pause is over.
    """

    name: str
    address: str
    model: str
    denial: Denial
    seconds: float

    def holds_for(self, provider: str, base_url: str, model: str) -> bool:
        """Return whether it may apply to requests to this model at this address, with any key."""
        return self.address == hashed(provider, base_url) and self.model in ("", model)


def read(client: redis.Redis) -> list[Pause]:
    """Return all pauses; invalid entries are skipped, and removed by the next call.

    Raises:
        redis.RedisError: Valkey is unavailable.
    """
    now = _now(client)
    return [_pause(name, written, now) for name, written in _written(client)]


def resume(client: redis.Redis, is_selected: Callable[[Pause], bool]) -> int:
    """Let the next call check whether these pauses are over; return the number of pauses.

    Raises:
        redis.RedisError: Valkey is unavailable or full.
    """
    now = _now(client)
    resumed = 0
    for name, written in _written(client):
        if is_selected(_pause(name, written, now)):
            again: JsonObject = {"asks_again_at": repr(now), "looked_at": "0", "looks": 0}
            client.hset(KEY, name, json.dumps(written | again))
            resumed += 1
    return resumed


def hashed(*parts: str) -> str:
    """Return a hash of the parts, which does not reveal them."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _now(client: redis.Redis) -> float:
    seconds, microseconds = client.time()
    return seconds + microseconds / 1e6


def _written(client: redis.Redis) -> Iterator[tuple[str, JsonObject]]:
    entries = cast("Mapping[bytes, bytes]", client.hgetall(KEY))
    for name, written in entries.items():
        try:
            pause = as_object(json.loads(written))
            float(text(pause["asks_again_at"]))
        except (ValueError, TypeError, LookupError, RecursionError):
            continue
        yield name.decode(), pause


def _pause(name: str, written: JsonObject, now: float) -> Pause:
    asks_again_at = float(text(written["asks_again_at"]))
    return Pause(
        name=name,
        address=text(written.get("address")),
        model=text(written.get("model")),
        denial=Denial(
            code=text(written.get("code")),
            what=text(written.get("what")),
            hint=text(written.get("hint")),
            is_about_key=not written.get("model"),
        ),
        seconds=max(0.0, asks_again_at - now),
    )
