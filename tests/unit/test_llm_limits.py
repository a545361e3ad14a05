"""Tests of the limits that providers report, and of process-local limits without Valkey."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import redis
from structlog.testing import capture_logs

from chordwise.llm.limits.permits import (
    CallReport,
    CallResult,
    LimitPolicy,
    LimitState,
    Permit,
    PermitRequest,
    Priority,
    ProcessLimits,
    Quota,
    QuotaKind,
    Wait,
    WaitReason,
    duration_seconds,
    reported_limits,
)
from chordwise.llm.limits.shared_limits import PAUSE_SECONDS, ResilientLimits
from tests.fakes.clocks import SleptClock

ANSWERED = CallReport(result=CallResult.ANSWERED)
REQUEST = PermitRequest(
    permit="p", priority=Priority.INTERACTIVE, cost={QuotaKind.REQUESTS: 1, QuotaKind.TOKENS: 500}
)


@dataclass(slots=True)
class BrokenLimits:
    """Shared limits whose Valkey is unavailable while `error` is set."""

    error: redis.RedisError | None = None
    calls: int = 0

    def acquire(self, request: PermitRequest) -> Permit | Wait:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return Permit(request=request, granted_at=0.0)

    def settle(self, permit: Permit, report: CallReport) -> None:  # noqa: ARG002 - as in the port
        self.calls += 1
        if self.error is not None:
            raise self.error


def granted(limits: ProcessLimits | ResilientLimits) -> Permit:
    answer = limits.acquire(REQUEST)
    assert isinstance(answer, Permit), answer
    return answer


def refused(limits: ProcessLimits | ResilientLimits) -> Wait:
    answer = limits.acquire(REQUEST)
    assert isinstance(answer, Wait)
    return answer


def test_process_local_limits_bound_the_calls_in_flight() -> None:
    limits = ProcessLimits(LimitPolicy(max_in_flight=2), SleptClock())
    held = granted(limits)
    granted(limits)

    assert refused(limits).reason is WaitReason.IN_FLIGHT
    limits.settle(held, ANSWERED)

    granted(limits)


@pytest.mark.parametrize(
    ("state", "seconds"),
    [
        (LimitState(window=1_000, rate=4.0), 0.25),
        (LimitState(window=1_000, per_minute={QuotaKind.REQUESTS: 120.0}), 0.5),
        (LimitState(window=1_000, per_minute={QuotaKind.TOKENS: 60_000.0}), 0.5),
    ],
)
def test_process_local_limits_bound_the_rate(state: LimitState, seconds: float) -> None:
    clock = SleptClock()
    limits = ProcessLimits(LimitPolicy(), clock)
    limits.remember(state)
    begun_at, calls = clock.now, 0

    while clock.now < begun_at + 60:
        answer = limits.acquire(REQUEST)
        calls += isinstance(answer, Permit)
        clock.now += answer.seconds if isinstance(answer, Wait) else 0.0

    assert calls == pytest.approx(60 / seconds + 1 / seconds, abs=2)


def test_process_local_limits_respect_retry_after() -> None:
    clock = SleptClock()
    limits = ProcessLimits(LimitPolicy(), clock)

    report = CallReport(result=CallResult.LIMITED, retry_after_seconds=20)
    limits.settle(granted(limits), report)

    assert refused(limits) == Wait(seconds=20, reason=WaitReason.PAUSED)
    clock.now += 20
    report = CallReport(result=CallResult.LIMITED, retry_after_seconds=99_999)
    limits.settle(granted(limits), report)
    assert refused(limits).seconds == 300


def test_an_outage_of_valkey_fails_no_call() -> None:
    clock, shared = SleptClock(), BrokenLimits(error=redis.ConnectionError())
    known = LimitState(window=1)
    limits = ResilientLimits(shared, ProcessLimits(LimitPolicy(), clock), lambda: known, clock)

    with capture_logs() as logs:
        limits.settle(granted(limits), ANSWERED)
        clock.now += PAUSE_SECONDS
        limits.settle(granted(limits), ANSWERED)

    assert shared.calls == 2
    assert [entry["event"] for entry in logs] == ["limits.fallback_started"]


def test_the_last_known_window_applies_while_valkey_is_full() -> None:
    clock, shared = SleptClock(), BrokenLimits()
    limits = ResilientLimits(
        shared, ProcessLimits(LimitPolicy(), clock), lambda: LimitState(window=1), clock
    )
    before = granted(limits)
    shared.error = redis.exceptions.OutOfMemoryError()

    limits.settle(before, ANSWERED)
    granted(limits)

    assert refused(limits).reason is WaitReason.IN_FLIGHT


def test_shared_limits_are_used_again_after_an_outage() -> None:
    """Valkey is retried after a while; permits granted by the process remain process-local."""
    clock, shared = SleptClock(), BrokenLimits(error=redis.ConnectionError())
    limits = ResilientLimits(
        shared, ProcessLimits(LimitPolicy(), clock), lambda: LimitState(window=1), clock
    )
    permit = granted(limits)
    shared.error = None
    clock.now += PAUSE_SECONDS

    with capture_logs() as logs:
        assert granted(limits).is_shared
        limits.settle(permit, ANSWERED)

    assert [entry["event"] for entry in logs] == ["limits.fallback_ended"]
    assert shared.calls == 2


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12ms", 0.012),
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("250µs", 0.00025),
        ("17", 17.0),
        ("", None),
        ("soon", None),
        ("-1s", None),
        ("1s soon", None),
        ("nan", None),
        ("1e99", None),
    ],
)
def test_durations_have_the_format_of_go(text: str, seconds: float | None) -> None:
    assert duration_seconds(text) == (None if seconds is None else pytest.approx(seconds))


def openai_headers(requests: str, tokens: str) -> Mapping[str, str]:
    return {
        f"x-ratelimit-{part}-{kind}": value
        for kind, values in (("requests", requests), ("tokens", tokens))
        for part, value in zip(("limit", "remaining", "reset"), values.split(), strict=True)
    }


NONSENSE = ("", "0", "-5", "many", "5.5", "9" * 40, "٣")


@pytest.mark.parametrize(
    ("headers", "limits"),
    [
        (
            openai_headers("500 499 120ms", "30000 25000 10s"),
            {
                QuotaKind.REQUESTS: Quota(limit=500, remaining=499),
                QuotaKind.TOKENS: Quota(limit=30_000, remaining=25_000),
            },
        ),
        (  # Groq counts requests per day under the same name: they take long to reset.
            openai_headers("14400 14370 2m59.56s", "18000 17997 10ms"),
            {QuotaKind.TOKENS: Quota(limit=18_000, remaining=17_997)},
        ),
        (  # Anthropic counts input and output tokens separately.
            {
                "anthropic-ratelimit-requests-limit": "4000",
                "anthropic-ratelimit-requests-remaining": "3999",
                "anthropic-ratelimit-requests-reset": "2026-11-24T12:00:01Z",
                "anthropic-ratelimit-output-tokens-limit": "80000",
                "anthropic-ratelimit-output-tokens-remaining": "79000",
                "anthropic-ratelimit-output-tokens-reset": "2026-11-24T11:59:00Z",
            },
            {
                QuotaKind.REQUESTS: Quota(limit=4_000, remaining=3_999),
                QuotaKind.OUTPUT_TOKENS: Quota(limit=80_000, remaining=79_000),
            },
        ),
        (  # The remaining amount and the reset time may be missing or invalid.
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-reset-requests": "whenever",
                "anthropic-ratelimit-tokens-limit": "1000",
                "anthropic-ratelimit-tokens-reset": "tomorrow",
            },
            {QuotaKind.REQUESTS: Quota(limit=60), QuotaKind.TOKENS: Quota(limit=1_000)},
        ),
        *(
            ({"x-ratelimit-limit-requests": value, "anthropic-ratelimit-tokens-limit": value}, {})
            for value in NONSENSE
        ),
    ],
)
def test_headers_of_providers_are_parsed(
    headers: Mapping[str, str], limits: Mapping[QuotaKind, Quota]
) -> None:
    assert reported_limits(headers) == limits
