"""Hundreds of workers and a provider with limits, in virtual time, around the real limiter."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random

from chordwise.llm.limits.permits import (
    CallReport,
    CallResult,
    Limits,
    Permit,
    PermitRequest,
    Priority,
    Quota,
    QuotaKind,
    ReportedLimits,
    Wait,
)

REFUSAL_SECONDS = 0.03
STORM_SHARE = 0.95


@dataclass(slots=True, kw_only=True)
class Bucket:
    """A provider's quota: refilled continuously by `per_minute`, up to `capacity`."""

    per_minute: float
    capacity: float
    level: float = field(init=False)
    at: float = 0.0

    def __post_init__(self) -> None:
        self.level = self.capacity

    def until(self, amount: float, now: float) -> float:
        """Return the seconds until `amount` is available."""
        gained = max(0.0, now - self.at) * self.per_minute / 60
        self.level, self.at = min(self.capacity, self.level + gained), max(self.at, now)
        return max(0.0, amount - self.level) / (self.per_minute / 60)


@dataclass(slots=True, kw_only=True)
class SimulatedProvider:
    """Admits calls within its buckets and `slots`; reports its limits in headers if it `tells`.

    During `outage`, a span of time, it fails every call. During `storm` it refuses nearly all
    calls, regardless of their rate, and requests a wait of `storm_pause_seconds`.
    """

    random: Random
    buckets: Mapping[QuotaKind, Bucket] = field(default_factory=dict)
    slots: int = 1_000_000
    latency_seconds: float = 0.5
    tells: bool = False
    retry_after: bool = True
    outage: tuple[float, float] = (0.0, 0.0)
    storm: tuple[float, float] = (0.0, 0.0)
    storm_pause_seconds: float = 20.0
    in_flight: int = 0

    def ask(self, cost: Mapping[QuotaKind, int], now: float) -> tuple[float, CallReport]:
        """Return the time of the answer, and the report of the call."""
        if self.outage[0] <= now < self.outage[1]:
            return now + REFUSAL_SECONDS, CallReport(result=CallResult.FAILED)
        if self.storm[0] <= now < self.storm[1] and self.random.random() < STORM_SHARE:
            return now + REFUSAL_SECONDS, CallReport(
                result=CallResult.LIMITED, retry_after_seconds=self.storm_pause_seconds
            )
        wait = max(
            [bucket.until(cost[kind], now) for kind, bucket in self.buckets.items()], default=0.0
        )
        if wait > 0 or self.in_flight >= self.slots:
            after = wait if self.retry_after and wait else None
            return now + REFUSAL_SECONDS, CallReport(
                result=CallResult.LIMITED, retry_after_seconds=after, limits=self._headers()
            )
        for kind, bucket in self.buckets.items():
            bucket.level -= cost[kind]
        self.in_flight += 1
        seconds = self.latency_seconds * self.random.uniform(0.5, 1.5)
        return now + seconds, CallReport(
            result=CallResult.ANSWERED, latency_seconds=seconds, limits=self._headers()
        )

    def _headers(self) -> ReportedLimits:
        if not self.tells:
            return {}
        return {
            kind: Quota(limit=int(bucket.per_minute), remaining=max(0, int(bucket.level)))
            for kind, bucket in self.buckets.items()
        }


def rate_of(times: Iterable[float], start: float, end: float) -> float:
    """Return how many of these times per second are between `start` and `end`."""
    return sum(start <= at < end for at in times) / (end - start)


def share_of_refused(
    refused: Iterable[float], answered: Iterable[float], start: float, end: float
) -> float:
    """Return the share of refused calls among all calls between `start` and `end`."""
    count = sum(start <= at < end for at in refused)
    return count / max(1, count + sum(start <= at < end for at in answered))


@dataclass(slots=True, kw_only=True)
class Tally:
    """The events of a simulation: times, with the lane and the wait where known."""

    answered: list[tuple[float, Priority]] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    failed: list[float] = field(default_factory=list)
    waits: list[tuple[float, float, Priority]] = field(default_factory=list)
    questions: int = 0
    max_in_flight: int = 0

    def rate(self, start: float, end: float, priority: Priority | None = None) -> float:
        """Return the answers per second between two times, of one lane or of all."""
        hits = [at for at, lane in self.answered if priority in (None, lane)]
        return rate_of(hits, start, end)

    def refused_share(self, start: float, end: float) -> float:
        """Return the share of refused calls between two times."""
        return share_of_refused(self.refused, (at for at, _ in self.answered), start, end)


class Simulation:
    """Simulates workers that always have a next call, in virtual time.

    `lanes` is the number of workers by priority; `limits` must take its time from `clock`. During
    `rest`, a span of time, no calls are made.
    """

    def __init__(
        self,
        provider: SimulatedProvider,
        lanes: Mapping[Priority, int],
        rest: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self.now = 1_000_000.0
        self.begun_at = self.now
        self.tally = Tally()
        self.provider = provider
        self._lanes = lanes
        self._rest = rest
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._cost = {QuotaKind.REQUESTS: 1, QuotaKind.TOKENS: 2_000}

    def clock(self) -> float:
        return self.now

    def run(self, limits: Limits, seconds: float) -> Tally:
        """Run the workers for `seconds` of virtual time; return the events."""
        for priority, count in self._lanes.items():
            for _ in range(count):
                self._later(0.0, lambda p=priority: self._next(limits, p))  # type: ignore[misc]  # binds the loop's value
        ends_at = self.begun_at + seconds
        while self._events and self._events[0][0] < ends_at:
            self.now, _, act = heapq.heappop(self._events)
            act()
        return self.tally

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), act))

    def _next(self, limits: Limits, priority: Priority) -> None:
        if self._rest[0] <= self._time() < self._rest[1]:
            self._later(self._rest[1] - self._time(), lambda: self._next(limits, priority))
            return
        number = next(self._numbers)
        request = PermitRequest(permit=str(number), priority=priority, cost=self._cost)
        self._take(limits, request, self.now)

    def _take(self, limits: Limits, request: PermitRequest, since: float) -> None:
        answer = limits.acquire(request)
        self.tally.questions += 1
        if not isinstance(answer, Permit):
            assert isinstance(answer, Wait), "no limiter of a simulation denies calls"
            self._later(answer.seconds, lambda: self._take(limits, request, since))
            return
        self.tally.waits.append((self._time(), self.now - since, request.priority))
        at, report = self.provider.ask(request.cost, self._time())
        self.tally.max_in_flight = max(self.tally.max_in_flight, self.provider.in_flight)
        self._later(at - self._time(), lambda: self._settle(limits, answer, report))

    def _settle(self, limits: Limits, permit: Permit, report: CallReport) -> None:
        limits.settle(permit, report)
        priority = permit.request.priority
        if report.result is CallResult.ANSWERED:
            self.provider.in_flight -= 1
            self.tally.answered.append((self._time(), priority))
            self._later(0.0, lambda: self._next(limits, priority))
            return
        happened = report.result is CallResult.LIMITED
        (self.tally.refused if happened else self.tally.failed).append(self._time())
        backoff = self.provider.random.uniform(0, 2) + (report.retry_after_seconds or 0)
        self._later(backoff, lambda: self._next(limits, priority))

    def _time(self) -> float:
        return self.now - self.begun_at
