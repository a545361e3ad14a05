"""Tests of the limits in Valkey: one script, exact to the single permit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle

import pytest
import redis
from pydantic import SecretStr

from chordwise.llm.limits.permits import (
    CallReport,
    CallResult,
    Denial,
    LimitPolicy,
    Permit,
    PermitRequest,
    Priority,
    ProcessLimits,
    Quota,
    QuotaKind,
    Wait,
    WaitReason,
    policy_of,
)
from chordwise.llm.limits.shared_limits import (
    PAUSES_KEY,
    ModelEndpoint,
    ResilientLimits,
    SharedLimits,
    open_limits,
    read_state,
)
from chordwise.settings import LimitSettings, ModelSettings
from tests.fakes.clocks import SleptClock

ANSWERED = CallReport(result=CallResult.ANSWERED, latency_seconds=1.0)
FAILED = CallReport(result=CallResult.FAILED)
MODEL = ModelSettings(provider="openai", model="m", base_url="http://peer")
ENDPOINT = ModelEndpoint.of(MODEL, SecretStr("key"))
# This applies until the first rate is confirmed; afterwards it is 15.
COOL_DOWN_SECONDS = 5


@dataclass(slots=True, kw_only=True)
class Fleet:
    """Workers that share the limits of one endpoint."""

    client: redis.Redis
    policy: LimitPolicy
    clock: SleptClock = field(default_factory=SleptClock)
    _asked: int = 0
    _workers: Iterator[SharedLimits] = field(init=False)

    def __post_init__(self) -> None:
        workers = [SharedLimits(self.client, ENDPOINT, self.policy, self.clock) for _ in range(3)]
        self._workers = cycle(workers)

    def limits(self) -> SharedLimits:
        """Return the limits as another worker sees them."""
        return next(self._workers)

    def ask(
        self, priority: Priority = Priority.INTERACTIVE, tokens: int = 10
    ) -> Permit | Wait | Denial:
        self._asked += 1
        cost = {QuotaKind.REQUESTS: 1, QuotaKind.TOKENS: tokens}
        name = f"permit-{self._asked}"
        return self.limits().acquire(PermitRequest(permit=name, priority=priority, cost=cost))

    def granted(self, priority: Priority = Priority.INTERACTIVE, tokens: int = 10) -> Permit:
        answer = self.ask(priority, tokens)
        assert isinstance(answer, Permit), answer
        return answer

    def refused(self, priority: Priority = Priority.INTERACTIVE, tokens: int = 10) -> Wait:
        answer = self.ask(priority, tokens)
        assert isinstance(answer, Wait)
        return answer

    def work(self, seconds: float) -> None:
        """Let every granted call be answered a second later, for the given time."""
        ends_at = self.clock.now + seconds
        while self.clock.now < ends_at:
            permits: list[Permit] = []
            while isinstance(answer := self.ask(), Permit):
                permits.append(answer)
            self._asked -= 1  # a waiting caller asks again with the same name
            self.clock.now += 1
            self.settle(permits, ANSWERED)

    def discovered(self) -> tuple[float, float]:
        """Return the window, and the discovered number of calls per second."""
        window, rate = self.client.hmget(ENDPOINT.keys[0], "window", "rate")
        return float(window or 0), float(rate or 0)

    def settle(self, permits: Sequence[Permit], report: CallReport) -> None:
        for permit in permits:
            self.limits().settle(permit, report)


def test_calls_in_flight_are_bounded_for_all_workers_together(valkey: redis.Redis) -> None:
    fleet = Fleet(client=valkey, policy=LimitPolicy(max_in_flight=3))
    held = [fleet.granted() for _ in range(3)]

    assert fleet.refused().reason is WaitReason.IN_FLIGHT

    fleet.settle(held[:1], ANSWERED)
    fleet.granted()
    assert fleet.refused().reason is WaitReason.IN_FLIGHT


def test_a_caller_is_served_although_others_take_each_returned_permit(valkey: redis.Redis) -> None:
    """A process takes a permit in the same step in which it returns one."""
    fleet = Fleet(client=valkey, policy=LimitPolicy(max_in_flight=2))
    held, limits = [fleet.granted(), fleet.granted()], fleet.limits()
    late = PermitRequest(permit="late", priority=Priority.INTERACTIVE, cost={})
    attempts = 0

    while not isinstance(limits.acquire(late), Permit):
        attempts += 1
        assert attempts < 50
        fleet.settle(held[:1], ANSWERED)
        del held[:1]
        if isinstance(answer := fleet.ask(), Permit):
            held.append(answer)
        fleet.clock.now += 0.1


def test_the_callers_of_a_process_have_one_place_in_the_queue(valkey: redis.Redis) -> None:
    fleet = Fleet(client=valkey, policy=LimitPolicy(max_in_flight=8))
    held, limits = [fleet.granted() for _ in range(8)], fleet.limits()
    requests = [
        PermitRequest(permit=f"{number}", priority=Priority.INTERACTIVE, cost={}, waiter="process")
        for number in range(40)
    ]
    answers = [limits.acquire(request) for request in requests]

    fleet.settle(held[:1], ANSWERED)

    assert all(isinstance(answer, Wait) for answer in answers)
    assert isinstance(limits.acquire(requests[-1]), Permit)


def test_the_bound_holds_with_many_threads(valkey: redis.Redis) -> None:
    limits = SharedLimits(valkey, ENDPOINT, LimitPolicy(max_in_flight=7))

    def ask(number: int) -> Permit | Wait | Denial:
        cost = {QuotaKind.REQUESTS: 1}
        return limits.acquire(
            PermitRequest(permit=str(number), priority=Priority.INTERACTIVE, cost=cost)
        )

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(ask, range(100)))

    assert sum(isinstance(answer, Permit) for answer in answers) == 7


def test_the_permit_of_a_killed_worker_expires(valkey: redis.Redis) -> None:
    fleet = Fleet(client=valkey, policy=LimitPolicy(max_in_flight=1, lease_seconds=30))
    fleet.granted()

    fleet.clock.now += 29
    assert fleet.refused().reason is WaitReason.IN_FLIGHT
    fleet.clock.now += 2

    fleet.granted()


def test_requests_per_minute_are_paced(valkey: redis.Redis) -> None:
    fleet = Fleet(client=valkey, policy=LimitPolicy(requests_per_minute=120))
    granted_at: list[float] = []

    while fleet.clock.now < 1_120:
        answer = fleet.ask()
        if isinstance(answer, Permit):
            fleet.settle([answer], ANSWERED)
            granted_at.append(fleet.clock.now)
        fleet.clock.now += 0.1

    minutes = [sum(start <= at < start + 60 for at in granted_at) for start in granted_at[:100]]
    seconds = [sum(start <= at < start + 1 for at in granted_at) for start in granted_at]
    assert max(minutes) <= 120
    assert min(minutes) >= 114
    assert max(seconds) <= 4


def test_tokens_are_reserved_and_corrected(valkey: redis.Redis) -> None:
    fleet = Fleet(client=valkey, policy=LimitPolicy(tokens_per_minute=60_000))
    permit = fleet.granted(tokens=20_000)
    before = fleet.refused(tokens=1_000)

    used = {QuotaKind.TOKENS: 1_500}
    fleet.settle([permit], CallReport(result=CallResult.ANSWERED, latency_seconds=1, used=used))

    assert before.reason is WaitReason.RATE
    assert before.seconds > 5
    assert fleet.refused(tokens=1_000).seconds < 3


def test_limits_are_learned_from_headers(valkey: redis.Redis) -> None:
    """The settings of the model take precedence."""
    model = ModelSettings(provider="openai", model="m", requests_per_minute=6_000)
    for policy, per_minute in ((LimitPolicy(), 60), (policy_of(LimitSettings(), model), 6_000)):
        valkey.flushall()
        fleet = Fleet(client=valkey, policy=policy)
        told = {QuotaKind.REQUESTS: Quota(limit=60, remaining=0 if per_minute == 60 else None)}
        report = CallReport(result=CallResult.ANSWERED, latency_seconds=1, limits=told)

        fleet.settle([fleet.granted()], report)

        answer = fleet.ask()
        is_paced = isinstance(answer, Wait) and answer.reason is WaitReason.RATE
        assert is_paced is (per_minute == 60)
        known = read_state(valkey, ENDPOINT, fleet.policy).per_minute
        assert known[QuotaKind.REQUESTS] == per_minute


def test_retry_after_pauses_all_workers(valkey: redis.Redis) -> None:
    fleet = Fleet(client=valkey, policy=LimitPolicy())
    first, second = fleet.granted(), fleet.granted()

    limited = CallReport(result=CallResult.LIMITED, retry_after_seconds=20)
    fleet.settle([first], limited)
    assert fleet.refused() == Wait(seconds=20, reason=WaitReason.PAUSED)

    insane = CallReport(result=CallResult.LIMITED, retry_after_seconds=99_999)
    fleet.settle([second], insane)
    assert fleet.refused().seconds == pytest.approx(300, abs=10)


def test_the_window_doubles_until_the_first_refusal(valkey: redis.Redis) -> None:
    """A successful round with a full window doubles it; failures do not shrink it.

    Refusals at the same time shrink it once.
    """
    fleet = Fleet(client=valkey, policy=LimitPolicy(first_in_flight=4, breaker_failures=99))
    first = [fleet.granted() for _ in range(4)]
    second: list[Permit] = []

    for permit in first:
        fleet.settle([permit], ANSWERED)
        second += [fleet.granted(), fleet.granted()]
    grown = read_state(valkey, ENDPOINT, fleet.policy).window
    fleet.settle(second, FAILED)
    assert grown == read_state(valkey, ENDPOINT, fleet.policy).window == 8
    fleet.settle([fleet.granted() for _ in range(8)], CallReport(result=CallResult.LIMITED))

    assert read_state(valkey, ENDPOINT, fleet.policy).window == pytest.approx(6.4)


def test_a_failure_pauses_growth(valkey: redis.Redis) -> None:
    """It stops the doubling for a second, and later growth for longer."""
    doubling = Fleet(client=valkey, policy=LimitPolicy(first_in_flight=4))
    held = [doubling.granted() for _ in range(4)]
    doubling.settle(held[:1], FAILED)
    held.append(doubling.granted())
    doubling.settle(held[1:2], ANSWERED)
    assert doubling.discovered()[0] == 4
    doubling.clock.now += 1
    held.append(doubling.granted())
    doubling.settle(held[2:3], ANSWERED)
    assert doubling.discovered()[0] == 5

    valkey.flushall()
    fleet = Fleet(client=valkey, policy=LimitPolicy(first_in_flight=40))
    fleet.settle([fleet.granted() for _ in range(40)], CallReport(result=CallResult.LIMITED))
    fleet.work(10)
    fleet.settle([fleet.granted()], FAILED)
    before = fleet.discovered()
    fleet.work(COOL_DOWN_SECONDS)
    assert fleet.discovered() == before
    fleet.work(20)
    assert fleet.discovered() > before


def test_the_breaker_opens_probes_and_closes(valkey: redis.Redis) -> None:
    """Failures between answers do not open it, and a lost probe is followed by another."""
    policy = LimitPolicy(breaker_failures=3, breaker_seconds=15, lease_seconds=30)
    fleet = Fleet(client=valkey, policy=policy)
    for _ in range(5):
        fleet.settle([fleet.granted(), fleet.granted()], FAILED)
        fleet.settle([fleet.granted()], ANSWERED)
    fleet.settle([fleet.granted() for _ in range(3)], FAILED)
    assert fleet.refused() == Wait(seconds=15, reason=WaitReason.BREAKER)

    fleet.clock.now += 16
    probe = fleet.granted()
    assert fleet.refused().reason is WaitReason.BREAKER
    fleet.settle([probe], FAILED)
    assert fleet.refused() == Wait(seconds=30, reason=WaitReason.BREAKER)

    fleet.clock.now += 31
    fleet.granted()  # which is lost
    fleet.clock.now += 31
    fleet.settle([fleet.granted()], ANSWERED)
    fleet.settle([fleet.granted() for _ in range(5)], ANSWERED)


def test_interactive_work_has_priority(valkey: redis.Redis) -> None:
    fleet = Fleet(client=valkey, policy=LimitPolicy(max_in_flight=1))
    held = fleet.granted()
    fleet.refused(Priority.INTERACTIVE)
    fleet.settle([held], ANSWERED)

    assert fleet.refused(Priority.NIGHTLY).reason is WaitReason.PRIORITY

    fleet.clock.now += 20
    fleet.granted(Priority.NIGHTLY)


def test_valkey_does_not_contain_the_key(valkey: redis.Redis) -> None:
    secret = SecretStr("sk-very-secret")
    model = ModelSettings(provider="openai", model="m")
    limits = open_limits(LimitSettings(), model, secret, valkey)
    cost = {QuotaKind.REQUESTS: 1}

    limits.acquire(PermitRequest(permit="p", priority=Priority.INTERACTIVE, cost=cost))

    endpoint = ModelEndpoint.of(model, secret)
    assert valkey.exists(endpoint.keys[0])
    assert endpoint.id != ModelEndpoint.of(model, SecretStr("sk-other")).id
    assert "secret" not in str(valkey.keys("*"))
    assert valkey.ttl(endpoint.keys[0]) > 0


@pytest.mark.parametrize("value", ["much", "nan", "inf"])
def test_a_state_that_another_program_wrote_fails_no_call(valkey: redis.Redis, value: str) -> None:
    fleet = Fleet(client=valkey, policy=LimitPolicy())
    fleet.granted()
    valkey.hset(ENDPOINT.keys[0], "limit:of_another", value)
    state = partial(read_state, valkey, ENDPOINT, fleet.policy)
    limits = ResilientLimits(fleet.limits(), ProcessLimits(fleet.policy), state)

    answer = limits.acquire(PermitRequest(permit="own", priority=Priority.INTERACTIVE, cost={}))

    assert isinstance(answer, Permit)
    assert not answer.is_shared


def test_a_denial_that_another_program_wrote_can_be_stored(valkey: redis.Redis) -> None:
    """PostgreSQL stores no NUL."""
    pause = ENDPOINT.pause(Denial(code="model_access", what="A\0 key", hint="\0"))
    times = {"began_at": "0", "asks_again_at": "1e12", "looked_at": "0"}
    valkey.hset(PAUSES_KEY, ENDPOINT.names[0], json.dumps(pause | times))
    limits = SharedLimits(valkey, ENDPOINT, LimitPolicy())

    answer = limits.acquire(PermitRequest(permit="own", priority=Priority.INTERACTIVE, cost={}))

    assert answer == Denial(code="model_access", what="A key", hint="")
