"""Limits shared by all workers: one Lua script in Valkey, which uses Valkey's clock.

The script also starts and ends the pauses of an endpoint after a refusal that needs intervention,
for all workers and runs; `read_pauses` and `resume_pauses` read and shorten them.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib import resources
from typing import cast

import redis
import structlog
from pydantic import SecretStr

from chordwise.domain.json_values import JsonObject, as_object, text
from chordwise.domain.text_normalization import normalize
from chordwise.domain.thread_groups import GatheredEntry, Gathering
from chordwise.llm.limits.permits import (
    CallReport,
    CallResult,
    Denial,
    LimitPolicy,
    Limits,
    LimitState,
    Permit,
    PermitRequest,
    ProcessLimits,
    QuotaKind,
    Wait,
    WaitReason,
    policy_of,
)
from chordwise.settings import LimitSettings, ModelSettings, service_addresses

_MAX_QUESTIONS = 64
_GATHER_SECONDS = 0.0005
# The return of a permit usually waits for the next request for one, and is sent with it.
_LINGER_SECONDS = 0.02
_sleep = time.sleep  # noqa: TID251 - the sleep function of this module
log = structlog.get_logger(__name__)

PAUSES_KEY = "chordwise:limits:pauses"
"""The hash with all pauses; it reveals no API key, and no address that may contain one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEndpoint:
    """A model at an address, asked with one key.

    `id` is a hash of provider, address, model and key, and `account` one without the model; neither
    reveals the key.
    """

    id: str
    account: str
    provider: str
    base_url: str
    model: str

    @classmethod
    def of(cls, model: ModelSettings, api_key: SecretStr) -> ModelEndpoint:
        """Return the endpoint of a model for requests with this key."""
        key = api_key.get_secret_value()
        return cls(
            id=_hash(model.provider, model.base_url, model.model, key),
            account=_hash(model.provider, model.base_url, key),
            provider=model.provider,
            base_url=model.base_url,
            model=model.model,
        )

    @property
    def keys(self) -> list[str]:
        """Return the keys of its limits in Valkey, all in one slot of a cluster."""
        names = ("state", "flight", "interactive", "nightly", "alive")
        return [f"chordwise:limits:{{{self.id}}}:{name}" for name in names]

    @property
    def names(self) -> list[str]:
        """Return the names of the pauses that apply here: the key's and the model's."""
        return [self.account, f"{self.account}/{self.model}"]

    def pause(self, denial: Denial) -> JsonObject:
        """Return the stored form of a pause: its name, and the error to display."""
        return {
            "name": self.names[0 if denial.is_about_key else 1],
            "address": _hash(self.provider, self.base_url),
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

    def holds_for(self, model: ModelSettings) -> bool:
        """Return whether it may apply to requests to this model at its address, with any key."""
        is_there = self.address == _hash(model.provider, model.base_url)
        return is_there and self.model in ("", model.model)


def read_pauses(client: redis.Redis) -> list[Pause]:
    """Return all pauses; invalid entries are skipped, and removed by the next call.

    Raises:
        redis.RedisError: Valkey is unavailable.
    """
    return [pause for pause, _ in _stored_pauses(client, _now(client))]


def resume_pauses(client: redis.Redis, is_selected: Callable[[Pause], bool]) -> int:
    """Let the next call check whether these pauses are over; return the number of pauses.

    Raises:
        redis.RedisError: Valkey is unavailable or full.
    """
    now = _now(client)
    again: JsonObject = {"asks_again_at": repr(now), "looked_at": "0", "looks": 0}
    selected = [stored for stored in _stored_pauses(client, now) if is_selected(stored[0])]
    for pause, entry in selected:
        client.hset(PAUSES_KEY, pause.name, json.dumps(entry | again))
    return len(selected)


def _now(client: redis.Redis) -> float:
    seconds, microseconds = client.time()
    return seconds + microseconds / 1e6


def _stored_pauses(client: redis.Redis, now: float) -> Iterator[tuple[Pause, JsonObject]]:
    entries = cast("Mapping[bytes, bytes]", client.hgetall(PAUSES_KEY))
    for name, written in entries.items():
        try:
            entry = as_object(json.loads(written))
            seconds = float(text(entry["asks_again_at"])) - now
        except (ValueError, TypeError, LookupError, RecursionError):
            continue
        code, what, hint = (text(entry.get(part)) for part in ("code", "what", "hint"))
        model = text(entry.get("model"))
        denial = Denial(code=code, what=what, hint=hint, is_about_key=not model)
        yield (
            Pause(
                name=name.decode(),
                address=text(entry.get("address")),
                model=model,
                denial=denial,
                seconds=max(0.0, seconds),
            ),
            entry,
        )


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


class SharedLimits:
    """Grants the permits of one endpoint to all processes that use the same Valkey.

    Denials pause the endpoint for all processes. `clock` replaces Valkey's clock in simulations.
    """

    def __init__(
        self,
        client: redis.Redis,
        endpoint: ModelEndpoint,
        policy: LimitPolicy,
        clock: Callable[[], float] | None = None,
    ) -> None:
        script = resources.files(__package__).joinpath("limiter.lua").read_text("utf-8")
        self._script = client.register_script(script)
        self._keys = [*endpoint.keys, PAUSES_KEY]
        self._endpoint = endpoint
        configured = LimitState.of_policy(policy).per_minute
        known = {name: value for name, value in asdict(policy).items() if value is not None}
        known["configured"] = {kind: configured.get(kind, 0) for kind in QuotaKind}
        known["pauses"] = endpoint.names
        self._known = json.dumps(known)
        self._clock = clock
        self._questions: Gathering[str, JsonObject] = Gathering(
            self._answer_all,
            partial(_sleep, 0.0 if clock else _GATHER_SECONDS),
            _MAX_QUESTIONS,
            0.0 if clock else _LINGER_SECONDS,
        )

    def acquire(self, request: PermitRequest) -> Permit | Wait | Denial:
        """Return a permit, a wait with its reason, or the denial that stops requests.

        Raises:
            redis.RedisError: Valkey is unavailable or full.
        """
        question: dict[str, object] = {
            "operation": "take",
            "permit": request.permit,
            "waiter": request.waiter or request.permit,
            "priority": request.priority.value,
            "cost": {kind.value: request.cost.get(kind, 0) for kind in QuotaKind},
        }
        answer = self._questions.outcome(self._to_json(question))
        if answer["granted"]:
            return Permit(request=request, granted_at=float(str(answer["granted_at"])))
        if "denied" in answer:
            denied = as_object(answer["denied"])
            names = ("code", "what", "hint")
            code, what, hint = (normalize(text(denied.get(name))).text for name in names)
            return Denial(code=code, what=what, hint=hint)
        return Wait(seconds=float(str(answer["seconds"])), reason=WaitReason(str(answer["reason"])))

    def settle(self, permit: Permit, report: CallReport) -> None:
        """Return a permit with the next request to the script; failures are reported at once.

        If Valkey is unavailable or full, the permit expires.
        """
        left = {kind: quota.remaining for kind, quota in report.limits.items()}
        question: dict[str, object] = {
            "operation": "settle",
            "permit": permit.request.permit,
            "granted_at": permit.granted_at,
            "outcome": report.result.value,
            "denial": self._endpoint.pause(report.denial) if report.denial else None,
            "latency_seconds": report.latency_seconds,
            "retry_after_seconds": report.retry_after_seconds or 0,
            "refund": refund(permit, report),
            "limits": {kind: quota.limit for kind, quota in report.limits.items()},
            "left": {kind: count for kind, count in left.items() if count is not None},
        }
        is_news = report.result not in (CallResult.ANSWERED, CallResult.UNSENT)
        self._questions.leave(self._to_json(question), at_once=is_news)

    def _to_json(self, question: dict[str, object]) -> str:
        if self._clock is not None:
            question["now"] = self._clock()
        return json.dumps(question)

    def _answer_all(
        self, group: list[GatheredEntry[str, JsonObject]]
    ) -> list[GatheredEntry[str, JsonObject]]:
        """Run the script once for the requests of several threads."""
        questions = [entry.item for entry in group]
        try:
            answers = cast("list[bytes]", self._script(self._keys, [self._known, *questions]))
        except (redis.RedisError, OSError) as error:
            for entry in group:
                entry.fail(error)
        else:
            for entry, answer in zip(group, answers, strict=True):
                entry.settle(cast("JsonObject", json.loads(answer)))
        return []


def refund(permit: Permit, report: CallReport) -> dict[str, int]:
    """Return the reserved amounts that the call did not use; negative if it used more.

    Amounts that the provider did not report count as used.
    """
    cost = permit.request.cost
    return {kind.value: cost.get(kind, 0) - used for kind, used in report.used.items()}


_ANSWER_SECONDS = 2.0
_MAX_CONNECTIONS = 8


def open_client(broker_url: SecretStr) -> redis.Redis:
    """Return a client of the broker's Valkey with a small connection pool; it connects lazily."""
    address = service_addresses.redis_address(broker_url.get_secret_value())
    seconds = {"socket_timeout": _ANSWER_SECONDS, "timeout": _ANSWER_SECONDS}
    if not address.startswith("unix://"):
        seconds["socket_connect_timeout"] = _ANSWER_SECONDS
    pool = redis.BlockingConnectionPool.from_url(
        address, max_connections=_MAX_CONNECTIONS, **seconds
    )
    return redis.Redis.from_pool(pool)


def open_limits(
    settings: LimitSettings, model: ModelSettings, api_key: SecretStr, client: redis.Redis
) -> ResilientLimits:
    """Return the limits that a model shares with all processes that use the same key.

    Use one instance per model and process for all its wrappers: it counts the calls of this process
    while Valkey is unavailable.
    """
    policy = policy_of(settings, model)
    endpoint = ModelEndpoint.of(model, api_key)
    return ResilientLimits(
        SharedLimits(client, endpoint, policy),
        ProcessLimits(policy),
        partial(read_state, client, endpoint, policy),
    )


# The least time between attempts during an outage, and between copies of the shared state.
PAUSE_SECONDS = 5.0


class ResilientLimits:
    """Falls back to process-local limits while Valkey is unavailable, and logs each outage.

    It also does so while the shared state is invalid, since other programs can write it.

    `read` returns the shared state, which the process-local limits remember for an outage.
    """

    def __init__(
        self,
        shared: Limits,
        process: ProcessLimits,
        read: Callable[[], LimitState],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shared = shared
        self._process = process
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._shared_retry_at = 0.0
        self._uses_fallback = False
        self._read_at = float("-inf")

    def acquire(self, request: PermitRequest) -> Permit | Wait | Denial:
        """Return a permit, a wait with its reason, or the denial that stops requests."""
        if self._clock() >= self._shared_retry_at:
            try:
                answer = self._shared.acquire(request)
                self._remember()
            except (redis.RedisError, OSError, ValueError) as error:
                self._start_fallback(error)
            else:
                self._end_fallback()
                return answer
        return self._process.acquire(request)

    def settle(self, permit: Permit, report: CallReport) -> None:
        """Return a permit to the limiter that granted it."""
        if not permit.is_shared:
            self._process.settle(permit, report)
        elif self._clock() >= self._shared_retry_at:
            try:
                self._shared.settle(permit, report)
            except (redis.RedisError, OSError) as error:
                self._start_fallback(error)

    def _remember(self) -> None:
        with self._lock:
            if self._clock() < self._read_at + PAUSE_SECONDS:
                return
            self._read_at = self._clock()
        self._process.remember(self._read())

    def _start_fallback(self, error: Exception) -> None:
        with self._lock:
            self._shared_retry_at = self._clock() + PAUSE_SECONDS
            if not self._uses_fallback:
                log.warning("limits.fallback_started", error=type(error).__name__)
            self._uses_fallback = True

    def _end_fallback(self) -> None:
        with self._lock:
            if self._uses_fallback:
                log.info("limits.fallback_ended")
            self._uses_fallback = False


def read_permits(client: redis.Redis, endpoint: ModelEndpoint) -> Mapping[str, float]:
    """Return the window, the permits in flight, and the waiting callers; empty if it is unused.

    Raises:
        redis.RedisError: Valkey is unavailable.
    """
    state, flight, interactive, nightly, _ = endpoint.keys
    with client.pipeline(transaction=False) as pipe:
        pipe.hget(state, "window")
        pipe.zcount(flight, time.time(), "+inf")
        pipe.zcard(interactive)
        pipe.zcard(nightly)
        window, in_flight, *waiting = pipe.execute()
    if window is None:
        return {}
    return {"window": float(window), "in_flight": in_flight, "waiting": sum(waiting)}


def read_state(client: redis.Redis, endpoint: ModelEndpoint, policy: LimitPolicy) -> LimitState:
    """Return the state of an endpoint; values that are not stored yet come from the policy.

    Raises:
        redis.RedisError: Valkey is unavailable.
        ValueError: A stored value is not a finite number.
    """
    stored = cast("Mapping[bytes, bytes]", client.hgetall(endpoint.keys[0]))
    entries = {name.decode(): float(value) for name, value in stored.items()}
    if not all(map(math.isfinite, entries.values())):
        raise ValueError("the state has a number that is not finite")
    before = LimitState.of_policy(policy)
    learnt = {kind: entries.get(f"limit:{kind}", 0.0) for kind in QuotaKind}
    return LimitState(
        window=min(entries.get("window", before.window), policy.max_in_flight or float("inf")),
        rate=entries.get("rate", 0.0),
        per_minute={k: limit for k, limit in learnt.items() if limit} | dict(before.per_minute),
    )
