"""What is known of an endpoint's limits at one moment, for people and for hard times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import redis

from chordwise.llm.limits.permits import LimitPolicy
from chordwise.llm.limits.shared import keys
from chordwise.llm.reported_limits import QuotaKind

SECONDS_PER_MINUTE = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitState:
    """What all workers together know of an endpoint.

    `window` bounds the calls in flight, `rate` is the calls a second that were found out (0 where
    nothing refused yet), `per_minute` what settings or provider say. `refusals` counts 429s.
    """

    window: float
    rate: float = 0.0
    per_minute: Mapping[QuotaKind, float] = field(default_factory=dict)
    in_flight: int = 0
    waiting: int = 0
    refusals: int = 0
    paused_seconds: float = 0.0
    broken_seconds: float = 0.0

    @classmethod
    def of_policy(cls, policy: LimitPolicy) -> LimitState:
        """Return what is known before anything was asked."""
        given = {
            QuotaKind.REQUESTS: policy.requests_per_minute,
            QuotaKind.TOKENS: policy.tokens_per_minute,
        }
        return cls(
            window=policy.max_in_flight or policy.first_in_flight,
            per_minute={kind: float(limit) for kind, limit in given.items() if limit},
        )

    def seconds_for(self, cost: Mapping[QuotaKind, int]) -> float:
        """Return how long one call of this cost takes up the limits."""
        shares = [
            SECONDS_PER_MINUTE * cost.get(kind, 0) / limit
            for kind, limit in self.per_minute.items()
        ]
        return max([1 / self.rate if self.rate else 0.0, *shares])

    def describe(self) -> str:
        """Return one line for people."""
        known = [f"{limit:,.0f} {kind}/min" for kind, limit in self.per_minute.items()]
        found = [f"{self.rate:.3g} calls/s found out"] if self.rate else []
        stops = [
            f"{what} for {seconds:.0f} s"
            for what, seconds in (("paused", self.paused_seconds), ("broken", self.broken_seconds))
            if seconds > 0
        ]
        flight = f"{self.in_flight} of {self.window:.0f} in flight, {self.waiting} waiting"
        return "; ".join([flight, *known, *found, f"{self.refusals} refused", *stops])


def read(client: redis.Redis, endpoint: str, policy: LimitPolicy) -> LimitState:
    """Return the state of an endpoint; what nobody asked yet is as the policy says.

    Raises:
        redis.RedisError: Valkey is away.
    """
    state, flight, interactive, nightly, _ = keys(endpoint)
    with client.pipeline(transaction=False) as pipeline:
        pipeline.hgetall(state)
        pipeline.zcard(flight)
        pipeline.zcard(interactive)
        pipeline.zcard(nightly)
        pipeline.time()
        found = cast("list[object]", pipeline.execute())
    entries = _numbers(found[0])
    seconds, microseconds = cast("tuple[int, int]", found[4])
    now = seconds + microseconds / 1e6
    before = LimitState.of_policy(policy)
    learnt = {kind: entries.get(f"limit:{kind}", 0.0) for kind in QuotaKind}
    return LimitState(
        window=min(entries.get("window", before.window), policy.max_in_flight or float("inf")),
        rate=entries.get("rate", 0.0),
        per_minute={k: limit for k, limit in learnt.items() if limit} | dict(before.per_minute),
        in_flight=cast("int", found[1]),
        waiting=cast("int", found[2]) + cast("int", found[3]),
        refusals=int(entries.get("refusals", 0)),
        paused_seconds=max(0.0, entries.get("paused_until", 0.0) - now),
        broken_seconds=max(0.0, entries.get("open_until", 0.0) - now),
    )


def _numbers(found: object) -> dict[str, float]:
    entries = cast("Mapping[bytes | str, bytes | str]", found)
    return {
        name.decode() if isinstance(name, bytes) else name: float(value)
        for name, value in entries.items()
    }
