"""Limits shared by all workers: one Lua script in Valkey, which uses Valkey's clock."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from importlib import resources
from typing import cast

import redis
import structlog
from pydantic import SecretStr

from chordwise.domain.json_values import JsonObject, as_object, text
from chordwise.domain.text_normalization import normalize
from chordwise.domain.thread_groups import GatheredEntry, Gathering
from chordwise.llm.limits import pauses
from chordwise.llm.limits.pauses import ModelEndpoint
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
    Wait,
    WaitReason,
    policy_of,
)
from chordwise.llm.reported_limits import QuotaKind
from chordwise.settings import LimitSettings, ModelSettings, service_addresses

PREFIX = "chordwise:limits"
_MAX_QUESTIONS = 64
_GATHER_SECONDS = 0.0005
# The return of a permit usually waits for the next request for one, and is sent with it.
_LINGER_SECONDS = 0.02
_sleep = time.sleep  # noqa: TID251 - the sleep function of this module
log = structlog.get_logger(__name__)


def endpoint_id(provider: str, base_url: str, model: str, api_key: SecretStr) -> str:
    """Return the id of an endpoint in Valkey: a hash, which does not reveal the API key."""
    return pauses.hashed(provider, base_url, model, api_key.get_secret_value())


class SharedLimits:
    """Grants the permits of one endpoint to all processes that use the same Valkey.

    Denials pause `model_endpoint` for all processes; without it nothing is paused. `clock`
    replaces Valkey's clock in simulations.
    """

    def __init__(
        self,
        client: redis.Redis,
        endpoint: str,
        policy: LimitPolicy,
        clock: Callable[[], float] | None = None,
        model_endpoint: ModelEndpoint | None = None,
    ) -> None:
        script = resources.files(__package__).joinpath("limiter.lua").read_text("utf-8")
        self._script = client.register_script(script)
        self._keys = [*keys(endpoint), pauses.KEY]
        self._model_endpoint = model_endpoint
        configured = {
            QuotaKind.REQUESTS: policy.requests_per_minute,
            QuotaKind.TOKENS: policy.tokens_per_minute,
        }
        known = {name: value for name, value in asdict(policy).items() if value is not None}
        known["configured"] = {kind: configured.get(kind) or 0 for kind in QuotaKind}
        known["pauses"] = model_endpoint.names if model_endpoint else []
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
        denial = (
            self._model_endpoint.pause(report.denial)
            if self._model_endpoint and report.denial
            else None
        )
        left = {kind: quota.remaining for kind, quota in report.limits.items()}
        question: dict[str, object] = {
            "operation": "settle",
            "permit": permit.request.permit,
            "granted_at": permit.granted_at,
            "outcome": report.result.value,
            "denial": denial,
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


def keys(endpoint: str) -> list[str]:
    """Return the keys of an endpoint, all in one slot of a cluster."""
    names = ("state", "flight", "interactive", "nightly", "alive")
    return [f"{PREFIX}:{{{endpoint}}}:{name}" for name in names]


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
    endpoint = endpoint_id(model.provider, model.base_url, model.model, api_key)
    model_endpoint = ModelEndpoint.of(model.provider, model.base_url, model.model, api_key)
    return ResilientLimits(
        SharedLimits(client, endpoint, policy, model_endpoint=model_endpoint),
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


def read_permits(client: redis.Redis, endpoint: str) -> Mapping[str, float]:
    """Return the window, the permits in flight, and the waiting callers; empty if it is unused.

    Raises:
        redis.RedisError: Valkey is unavailable.
    """
    state, flight, interactive, nightly, _ = keys(endpoint)
    with client.pipeline(transaction=False) as pipe:
        pipe.hget(state, "window")
        pipe.zcount(flight, time.time(), "+inf")
        pipe.zcard(interactive)
        pipe.zcard(nightly)
        window, in_flight, *waiting = pipe.execute()
    if window is None:
        return {}
    return {"window": float(window), "in_flight": in_flight, "waiting": sum(waiting)}


def read_state(client: redis.Redis, endpoint: str, policy: LimitPolicy) -> LimitState:
    """Return the state of an endpoint; values that are not stored yet come from the policy.

    Raises:
        redis.RedisError: Valkey is unavailable.
        ValueError: A stored value is not a finite number.
    """
    stored = cast("Mapping[bytes, bytes]", client.hgetall(keys(endpoint)[0]))
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
