"""Permits for calls to a provider, and the reports of their outcomes."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeAlias

from chordwise.settings import LimitSettings, ModelSettings

# A limit that takes longer than this to replenish in full is per day, not per minute.
MAX_MINUTE_SECONDS = 120.0

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(?<![\d.])(\d++(?:\.\d*+)?)(ms|us|µs|ns|h|m|s)")
_LARGEST = 10**12


class QuotaKind(StrEnum):
    """The kinds of quota that providers count per minute."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """A limit per minute and its remaining amount."""

    limit: int
    remaining: int | None = None


ReportedLimits: TypeAlias = Mapping[QuotaKind, Quota]


def reported_limits(headers: Mapping[str, str]) -> ReportedLimits:
    """Return the limits that the (lower-case) headers of an answer name; daily ones are left out.

    OpenAI and compatible servers send `x-ratelimit-limit-requests`, and resets as Go durations, by
    which daily limits are recognized. Anthropic sends `anthropic-ratelimit-requests-limit`.
    """
    quotas: dict[QuotaKind, Quota] = {}
    for kind in QuotaKind:
        name = kind.value.replace("_", "-")
        if quota := _anthropic(name, headers) or _openai(name, headers):
            quotas[kind] = quota
    return quotas


def duration_seconds(text: str) -> float | None:
    """Return the seconds of a Go duration (`6m0s`, `12ms`) or of a bare number."""
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds < _LARGEST else None


def _openai(name: str, headers: Mapping[str, str]) -> Quota | None:
    limit = _count(headers.get(f"x-ratelimit-limit-{name}", ""))
    remaining = _count(headers.get(f"x-ratelimit-remaining-{name}", ""))
    reset = duration_seconds(headers.get(f"x-ratelimit-reset-{name}", ""))
    if not limit or _is_daily(limit, remaining, reset):
        return None
    return Quota(limit=limit, remaining=remaining)


def _is_daily(limit: int, remaining: int | None, reset: float | None) -> bool:
    # Groq, and OpenAI for free accounts, count requests per day under the same name.
    if remaining is None or reset is None or remaining >= limit:
        return False
    return reset * limit / (limit - remaining) > MAX_MINUTE_SECONDS


def _anthropic(name: str, headers: Mapping[str, str]) -> Quota | None:
    limit = _count(headers.get(f"anthropic-ratelimit-{name}-limit", ""))
    remaining = _count(headers.get(f"anthropic-ratelimit-{name}-remaining", ""))
    return Quota(limit=limit, remaining=remaining) if limit else None


def _count(text: str) -> int | None:
    digits = text.strip()
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > len(str(_LARGEST)):
        return None
    return min(int(digits), _LARGEST)


class Priority(StrEnum):
    """The order in which calls are served; stored in `runs.priority`."""

    INTERACTIVE = "interactive"
    NIGHTLY = "nightly"


class WaitReason(StrEnum):
    """Why a call has to wait."""

    RATE = "rate"
    IN_FLIGHT = "in_flight"
    QUEUE = "queue"
    PAUSED = "paused"
    PRIORITY = "priority"
    BREAKER = "breaker"
    HEAD_START = "head_start"


class CallResult(StrEnum):
    """The outcome of a call for the limits: answered, rate-limited, failed, denied or not sent.

    `DENIED` means that requests with this key, or for this model, fail until a person intervenes.
    """

    ANSWERED = "answered"
    LIMITED = "limited"
    FAILED = "failed"
    DENIED = "denied"
    UNSENT = "unsent"


@dataclass(frozen=True, slots=True, kw_only=True)
class PermitRequest:
    """A call that waits for a permit; every request for it uses the same `permit` id.

    `cost` is the most that the call can use of each kind of quota. Calls with the same `waiter`
    share one place in the queue, and only one of them asks at a time; the default is the permit's
    id.
    """

    permit: str
    priority: Priority
    cost: Mapping[QuotaKind, int]
    waiter: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """The permission to make one call; it is settled after the call, or expires.

    `granted_at` is on the clock of the limiter that granted it.
    """

    request: PermitRequest
    granted_at: float
    is_shared: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """No permit yet: ask again after `seconds`."""

    seconds: float
    reason: WaitReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """The error that every further call would meet until a person intervenes: code, text and hint.

    It concerns one model, or, if `is_about_key`, all requests with the same key.
    """

    code: str
    what: str
    hint: str
    is_about_key: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReport:
    """The outcome of a call.

    `used` is the actual use of the quotas, as far as the provider reported it. `latency_seconds` is
    0 if it is not representative of answers. `denial` is set with `CallResult.DENIED`.
    """

    result: CallResult
    latency_seconds: float = 0.0
    retry_after_seconds: float | None = None
    used: Mapping[QuotaKind, int] = field(default_factory=dict)
    limits: ReportedLimits = field(default_factory=dict)
    denial: Denial | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitPolicy:
    """The configured limits of an endpoint, and the parameters for discovering the others.

    `lease_seconds` is how long a call may take before its permit counts as lost. `pause_seconds` is
    how long requests are stopped after a denial. With `has_head_start`, the very first call is made
    alone for a moment: if its key is denied, no other is sent.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_in_flight: int | None = None
    first_in_flight: int = 16
    max_window: int = 1_024
    breaker_failures: int = 6
    breaker_seconds: float = 15.0
    lease_seconds: float = 125.0
    pause_seconds: float = 300.0
    has_head_start: bool = False


# A permit outlives its call's deadline by this margin, so that every running call is counted.
_MARGIN_SECONDS = 5.0


def policy_of(settings: LimitSettings, model: ModelSettings) -> LimitPolicy:
    """Return the limit policy of a model from the settings."""
    return LimitPolicy(
        requests_per_minute=model.requests_per_minute,
        tokens_per_minute=model.tokens_per_minute,
        max_in_flight=model.max_in_flight,
        first_in_flight=settings.first_in_flight,
        max_window=settings.max_in_flight,
        breaker_failures=settings.breaker_failures,
        breaker_seconds=settings.breaker_seconds,
        lease_seconds=model.timeout_seconds + _MARGIN_SECONDS,
        pause_seconds=settings.pause_seconds,
        has_head_start=True,
    )


class Limits(Protocol):
    """Grants permits for one endpoint; safe to share between threads. Never raises."""

    def acquire(self, request: PermitRequest) -> Permit | Wait | Denial:
        """Return a permit, a wait before asking again, or the denial that stops requests."""

    def settle(self, permit: Permit, report: CallReport) -> None:
        """Return a permit, with the report of the call."""


SECONDS_PER_MINUTE = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitState:
    """The state of an endpoint that all workers share.

    `window` bounds the calls in flight. `rate` is the discovered number of calls a second (0 before
    any refusal). `per_minute` are the limits from the settings or the provider.
    """

    window: float
    rate: float = 0.0
    per_minute: Mapping[QuotaKind, float] = field(default_factory=dict)

    @classmethod
    def of_policy(cls, policy: LimitPolicy) -> LimitState:
        """Return the state before the first call."""
        limits = {
            QuotaKind.REQUESTS: policy.requests_per_minute,
            QuotaKind.TOKENS: policy.tokens_per_minute,
        }
        return cls(
            window=policy.max_in_flight or policy.first_in_flight,
            per_minute={kind: float(limit) for kind, limit in limits.items() if limit},
        )

    def seconds_for(self, cost: Mapping[QuotaKind, int]) -> float:
        """Return how long one call of this cost occupies the limits."""
        shares = [
            SECONDS_PER_MINUTE * cost.get(kind, 0) / limit
            for kind, limit in self.per_minute.items()
        ]
        return max([1 / self.rate if self.rate else 0.0, *shares])


MAX_PAUSE_SECONDS = 300.0
"""A provider is called again after this time, even if it requests a longer wait."""
_MIN_WAIT_SECONDS = 0.05


class ProcessLimits:
    """Applies the last known limits as if no other process made calls.

    It discovers nothing: it paces calls, bounds the calls in flight, and honors `Retry-After`. It
    does not remember denials: the next call is denied again. It has no circuit breaker, since
    failures can only be counted across all workers.
    """

    def __init__(self, policy: LimitPolicy, clock: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy
        self._clock = clock
        self._lock = threading.Lock()
        self._state = LimitState.of_policy(policy)
        self._in_flight = 0
        self._next_at = 0.0
        self._paused_until = 0.0

    def remember(self, state: LimitState) -> None:
        """Replace the known state."""
        with self._lock:
            self._state = state

    def acquire(self, request: PermitRequest) -> Permit | Wait:
        """Return a permit, or a wait with its reason."""
        with self._lock:
            now = self._clock()
            if now < self._paused_until:
                return Wait(seconds=self._paused_until - now, reason=WaitReason.PAUSED)
            if self._in_flight >= max(1, int(self._state.window)):
                return Wait(seconds=_MIN_WAIT_SECONDS, reason=WaitReason.IN_FLIGHT)
            if now < self._next_at:
                wait = max(self._next_at - now, _MIN_WAIT_SECONDS)
                return Wait(seconds=wait, reason=WaitReason.RATE)
            self._in_flight += 1
            self._next_at = max(self._next_at, now - 1) + self._state.seconds_for(request.cost)
            return Permit(request=request, granted_at=now, is_shared=False)

    def settle(self, permit: Permit, report: CallReport) -> None:  # noqa: ARG002 - as in the port
        """Return a permit."""
        with self._lock:
            self._in_flight -= 1
            if report.result in {CallResult.LIMITED, CallResult.FAILED}:
                pause = min(report.retry_after_seconds or 0.0, MAX_PAUSE_SECONDS)
                self._paused_until = max(self._paused_until, self._clock() + pause)
