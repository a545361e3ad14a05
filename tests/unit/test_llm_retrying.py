"""Tests of the retry layer."""

from __future__ import annotations

from random import Random

import pytest

from chordwise.errors import (
    ModelOverloadedError,
    ModelTimeoutError,
    ModelTransportError,
    QuotaExceededError,
    RateLimitedError,
    TruncatedError,
)
from chordwise.llm.middleware.retrying import Retrying
from chordwise.llm.model import CompletionRequest
from chordwise.settings import RetrySettings
from tests.fakes.clocks import SleptClock
from tests.fakes.completion_requests import a_request
from tests.fakes.scripted_model import Line, ScriptedModel


def limited(seconds: float | None = None) -> RateLimitedError:
    error = RateLimitedError("busy")
    error.retry_after_seconds = seconds
    return error


def retrying(
    script: list[Line], policy: RetrySettings | None = None, seed: int = 1
) -> tuple[Retrying, ScriptedModel, SleptClock]:
    model, clock = ScriptedModel(script), SleptClock()
    chosen = policy or RetrySettings(attempts=4, base_seconds=1, max_wait_seconds=30)
    random = Random(seed)  # noqa: S311 - jitter, not secrets
    return Retrying(model, chosen, clock.sleep, random, clock), model, clock


def test_a_transient_error_is_retried_and_counted() -> None:
    subject, model, clock = retrying([ModelTransportError("a"), ModelOverloadedError("b"), "{}"])

    assert subject.complete(a_request()).text == "{}"
    assert [request.attempt for request in model.requests] == [1, 2, 3]
    assert len(clock.sleeps) == 2


@pytest.mark.parametrize("error", [QuotaExceededError("no money"), TruncatedError("cut")])
def test_other_errors_are_raised_immediately(error: QuotaExceededError | TruncatedError) -> None:
    subject, model, clock = retrying([error])

    with pytest.raises(type(error)):
        subject.complete(a_request())

    assert len(model.requests) == 1
    assert clock.sleeps == []


def test_attempts_are_limited() -> None:
    errors = [ModelTransportError(str(number)) for number in range(4)]
    subject, model, _ = retrying([*errors, "{}"])

    with pytest.raises(ModelTransportError, match="3"):
        subject.complete(a_request())

    assert len(model.requests) == 4


def test_delays_have_full_jitter_below_a_doubling_bound() -> None:
    policy = RetrySettings(attempts=8, base_seconds=1, max_wait_seconds=5, total_seconds=1_000)
    waits: list[list[float]] = [[] for _ in range(7)]

    for seed in range(200):
        errors: list[Line] = [ModelTransportError("x")] * 7
        subject, _, clock = retrying([*errors, "{}"], policy, seed)
        subject.complete(a_request())
        for position, seconds in enumerate(clock.sleeps):
            waits[position].append(seconds)

    for position, seconds_seen in enumerate(waits):
        bound = min(2**position, 5)
        assert max(seconds_seen) <= bound
        assert max(seconds_seen) > 0.9 * bound
        assert min(seconds_seen) < 0.1 * bound


def test_the_servers_delay_is_a_lower_bound() -> None:
    subject, _, clock = retrying([limited(7.5), "{}"])

    subject.complete(a_request())

    assert clock.sleeps == [7.5]


def test_a_long_delay_is_raised_instead_of_slept() -> None:
    subject, model, clock = retrying([limited(31.0), "{}"])

    with pytest.raises(RateLimitedError) as caught:
        subject.complete(a_request())

    assert caught.value.retry_after_seconds == 31.0
    assert clock.sleeps == []
    assert len(model.requests) == 1


def test_the_total_time_includes_delays_and_calls() -> None:
    policy = RetrySettings(attempts=9, base_seconds=1, max_wait_seconds=30, total_seconds=50)
    errors: list[Line] = [limited(20.0)] * 9
    subject, model, clock = retrying(errors, policy)

    with pytest.raises(RateLimitedError):
        subject.complete(a_request())

    assert clock.sleeps == [20.0, 20.0]
    assert [request.timeout_seconds for request in model.requests] == [50.0, 30.0, 10.0]


@pytest.mark.parametrize(
    ("deadline", "total", "granted"),
    [
        (200.0, 240.0, [200.0]),  # 39 seconds are left after 200 did not suffice
        (120.0, 240.0, [120.0]),
        (120.0, 300.0, [120.0, 120.0]),
        (50.0, 600.0, [50.0] * 4),
        (600.0, 300.0, [300.0]),
    ],
)
def test_no_request_starts_with_less_time_than_one_that_timed_out(
    deadline: float, total: float, granted: list[float]
) -> None:
    policy = RetrySettings(attempts=4, base_seconds=1, total_seconds=total)
    given: list[float] = []

    def time_out(request: CompletionRequest) -> ModelTimeoutError:
        assert request.timeout_seconds is not None
        given.append(min(deadline, request.timeout_seconds))
        clock.now += given[-1]
        return ModelTimeoutError("late", granted_seconds=given[-1])

    subject, _, clock = retrying([time_out] * 9, policy)

    with pytest.raises(ModelTimeoutError) as caught:
        subject.complete(a_request())

    assert given == granted
    assert "timeout_seconds" in caught.value.hint
    assert "pipeline.chunk_tokens" in caught.value.hint


def test_a_timeout_is_remembered_after_other_errors() -> None:
    """Here a rate limit follows it."""
    policy = RetrySettings(attempts=9, base_seconds=1, max_wait_seconds=60, total_seconds=300)

    def time_out(_request: CompletionRequest) -> ModelTimeoutError:
        clock.now += 120.0
        return ModelTimeoutError("late", granted_seconds=120.0)

    subject, model, clock = retrying([time_out, limited(50.0), limited(20.0), "{}"], policy)

    with pytest.raises(RateLimitedError):
        subject.complete(a_request())

    assert len(model.requests) == 3  # 110 seconds are left then
