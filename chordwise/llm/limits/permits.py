"""Asking for leave to call a provider, and telling afterwards how the call went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from chordwise.llm.reported_limits import QuotaKind, ReportedLimits


class Priority(StrEnum):
    """Who is served first; the values stand in `runs.priority`."""

    INTERACTIVE = "interactive"
    NIGHTLY = "nightly"


class Reason(StrEnum):
    """Why a call has to wait."""

    RATE = "rate"
    IN_FLIGHT = "in_flight"
    QUEUE = "queue"
    PAUSED = "paused"
    PRIORITY = "priority"
    BREAKER = "breaker"
    HEAD_START = "head_start"


class CallResult(StrEnum):
    """What a call says of the provider: it answers, it is asked too fast, it is broken, nothing.

    `DENIED` says that it answers nobody with this key, or this model, until a person acts.
    """

    ANSWERED = "answered"
    LIMITED = "limited"
    FAILED = "failed"
    DENIED = "denied"
    UNSENT = "unsent"


@dataclass(frozen=True, slots=True, kw_only=True)
class PermitRequest:
    """A call that wants to be made; the same `permit` asks again until it is granted.

    `cost` is what the call may take of each kind of quota, the most that it can be.
    """

    permit: str
    priority: Priority
    cost: Mapping[QuotaKind, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """Leave to make one call, to be settled after it; it runs out by itself.

    `granted_at` is in the time of whoever granted it.
    """

    request: PermitRequest
    granted_at: float
    is_shared: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """No leave yet: come back in so many seconds."""

    seconds: float
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """What every further call would meet alike until a person acts: an error's code and words.

    It is about one model, unless `is_about_key`: then about all that is asked with the same key.
    """

    code: str
    what: str
    hint: str
    is_about_key: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReport:
    """How a call went.

    `used` is what it really took of the quotas, as far as the provider said so; `latency_seconds`
    is 0 where it tells nothing of how long answers take. `denial` goes with `CallResult.DENIED`.
    """

    result: CallResult
    latency_seconds: float = 0.0
    retry_after_seconds: float | None = None
    used: Mapping[QuotaKind, int] = field(default_factory=dict)
    limits: ReportedLimits = field(default_factory=dict)
    denial: Denial | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitPolicy:
    """What is known of an endpoint beforehand, and how carefully to find out the rest.

    `lease_seconds` is how long a call may take before its permit counts as lost. `pause_seconds` is
    how long nobody asks after a denial. `has_head_start` lets the very first call go ahead alone
    for a moment: if its key is denied, no other is sent.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_in_flight: int | None = None
    first_in_flight: int = 16
    most_in_flight: int = 1_024
    breaker_failures: int = 6
    breaker_seconds: float = 15.0
    lease_seconds: float = 125.0
    pause_seconds: float = 300.0
    has_head_start: bool = False


class Limits(Protocol):
    """Grants permits for one endpoint; safe to share between threads. Nothing here ever fails."""

    def take(self, request: PermitRequest) -> Permit | Wait | Denial:
        """Return a permit, how long to wait before asking again, or why nobody may ask."""
        ...

    def settle(self, permit: Permit, report: CallReport) -> None:
        """Give a permit back, with what the call has shown."""
        ...
