"""Tests of retries, of deadlines that follow the measured speed, and of slots for questions."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
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
from chordwise.llm.middleware.paced import MARGIN, OVERHEAD_SECONDS, Paced
from chordwise.llm.middleware.rate_limited import ConcurrencyLimited, Slots, Turn
from chordwise.llm.middleware.retrying import Retrying
from chordwise.llm.model import Completion, CompletionRequest, Timings
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
    timeouts: list[float] = []

    def time_out(request: CompletionRequest) -> ModelTimeoutError:
        assert request.timeout_seconds is not None
        timeouts.append(min(deadline, request.timeout_seconds))
        clock.now += timeouts[-1]
        return ModelTimeoutError("late", granted_seconds=timeouts[-1])

    subject, _, clock = retrying([time_out] * 9, policy)

    with pytest.raises(ModelTimeoutError) as caught:
        subject.complete(a_request())

    assert timeouts == granted
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


MIN_SECONDS, MAX_SECONDS = 5.0, 900.0
# 100 tokens of a prompt and 2 tokens of an answer per second.
SLOW = Timings(prompt_tokens=1_000, prompt_seconds=10.0, output_tokens=50, output_seconds=25.0)
FAST = replace(SLOW, prompt_seconds=0.01, output_seconds=0.01)
UNMEASURED = Timings(prompt_tokens=0, prompt_seconds=0, output_tokens=0, output_seconds=0)
# A prompt of 200 tokens and an answer of 80.
QUESTION = a_request(system="", user="a" * 4 * 200, max_output_tokens=80)
NEEDED = MARGIN * (2.0 + 40.0) + OVERHEAD_SECONDS
LATE, BROKEN = ModelTimeoutError("late", granted_seconds=84.0), ModelTransportError("broken")


def answered(timings: Timings | None) -> Completion:
    return replace(ScriptedModel([]).completion("{}"), timings=timings)


@pytest.mark.parametrize(
    ("script", "left", "granted"),
    [
        ([answered(SLOW)], 60.0, [60.0]),
        # With a margin: 2 seconds to read and 40 to write.
        ([answered(SLOW)] * 2, None, [MAX_SECONDS, NEEDED]),
        # Never less than the configured minimum, nor more than the remaining time.
        ([answered(FAST)] * 2, None, [MAX_SECONDS, MIN_SECONDS]),
        ([answered(SLOW)] * 2, 30.0, [30.0, 30.0]),
        ([answered(FAST)] * 2, 3.0, [3.0, 3.0]),
        # After a timeout, earlier measurements are ignored.
        ([answered(SLOW), LATE, answered(SLOW)], None, [MAX_SECONDS, NEEDED, MAX_SECONDS]),
        # A broken connection does not change the measured speed.
        ([answered(SLOW), BROKEN, answered(SLOW)], None, [MAX_SECONDS, NEEDED, NEEDED]),
        # Without timings, or with those of the server's cache, the speed stays unknown.
        ([answered(None)] * 2, None, [MAX_SECONDS, MAX_SECONDS]),
        ([answered(UNMEASURED)] * 2, None, [MAX_SECONDS, MAX_SECONDS]),
    ],
)
def test_the_deadline_follows_from_the_measured_speed(
    script: list[Line], left: float | None, granted: list[float]
) -> None:
    model = ScriptedModel(script)
    subject = Paced(model, MIN_SECONDS, MAX_SECONDS)

    for _ in script:
        with contextlib.suppress(ModelTransportError):
            subject.complete(replace(QUESTION, timeout_seconds=left))

    assert [request.timeout_seconds for request in model.requests] == pytest.approx(granted)


ASKERS = 6


def test_concurrent_questions_are_limited_to_the_slots() -> None:
    both_inside = threading.Barrier(2, timeout=10)
    inside: list[int] = []
    lock, most = threading.Lock(), [0]

    def answer(_request: CompletionRequest) -> str:
        with lock:
            inside.append(1)
            most[0] = max(most[0], len(inside))
        both_inside.wait()
        with lock:
            inside.pop()
        return "{}"

    slots = threading.Semaphore(2)
    model = ScriptedModel([answer], repeat_last=True)
    limited = ConcurrencyLimited(model, slots)
    with ThreadPoolExecutor(ASKERS) as askers:
        list(askers.map(limited.complete, [a_request()] * ASKERS))

    assert (most[0], len(model.requests)) == (2, ASKERS)


def test_a_failed_question_releases_its_slot() -> None:
    model = ScriptedModel([ModelOverloadedError("busy"), "{}"])
    limited = ConcurrencyLimited(model, threading.Semaphore(1))

    with pytest.raises(ModelOverloadedError):
        limited.complete(a_request())

    assert limited.complete(a_request()).text == "{}"
    assert limited.profile == model.profile


def sending(slots: Slots, *answers: str | Exception) -> tuple[ConcurrencyLimited, Turn]:
    """Return a model that waits for a slot before each call, as `Metered` does."""
    turn = Turn(slots)
    replies = iter(answers)

    def answer(_request: CompletionRequest) -> str:
        turn.send()
        reply = next(replies)
        if isinstance(reply, Exception):
            raise reply
        return reply

    return ConcurrencyLimited(ScriptedModel([answer], repeat_last=True), turn), turn


def has_room(semaphore: threading.Semaphore) -> bool:
    return semaphore.acquire(blocking=False)


def test_an_answer_is_counted_until_it_is_stored() -> None:
    """Its slot is free for the next call, but the number of unstored answers is limited.

    Further questions of the same work do not wait again; while its answers are stored, the next
    request is prepared.
    """
    slots = Slots(1)
    limited, turn = sending(slots, "{}", "{}")
    limited.complete(a_request())
    limited.complete(a_request())
    assert has_room(slots.sent)
    assert not has_room(slots.asking)

    turn.finish()
    assert has_room(slots.asking)
    assert not has_room(slots.unstored)

    turn.close()
    turn.close()
    assert not has_room(slots.asking)
    assert has_room(slots.unstored)
    assert not has_room(slots.unstored)


def test_unstored_answers_may_exceed_the_slots_by_a_quarter() -> None:
    """A process that is killed loses at most this number of calls."""
    slots = Slots(8)

    assert sum(has_room(slots.sent) for _ in range(20)) == 8
    assert sum(has_room(slots.unstored) for _ in range(20)) == 10
    assert sum(has_room(slots.asking) for _ in range(20)) == 10


def test_a_question_that_waits_for_its_retry_has_no_slot() -> None:
    slots = Slots(1)
    limited, _ = sending(slots, ModelOverloadedError("busy"))

    with pytest.raises(ModelOverloadedError):
        limited.complete(a_request())

    assert has_room(slots.asking)
    assert has_room(slots.sent)
    assert has_room(slots.unstored)
