"""A refusal that only a person can correct costs one call, that of the first caller."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import redis
from pydantic import SecretStr

from chordwise.llm.limits import pauses
from chordwise.llm.limits.pauses import Pause, Place
from chordwise.llm.limits.permits import (
    CallReport,
    CallResult,
    Denial,
    LimitPolicy,
    Permit,
    PermitRequest,
    Priority,
    Reason,
    Wait,
)
from chordwise.llm.limits.shared import SharedLimits, endpoint_id
from chordwise.llm.reported_limits import QuotaKind

PAUSE_SECONDS = 300.0
HEAD_START_SECONDS = 2.0
ANSWERED = CallReport(result=CallResult.ANSWERED, latency_seconds=1.0)
BROKEN = CallReport(result=CallResult.FAILED)
KEY_DENIED = Denial(
    code="model_access", what="The key is refused.", hint="Check api_key.", is_about_key=True
)
MODEL_DENIED = Denial(code="model_access", what="There is no such model.", hint="Check model.")
KEY = "sk-very-secret"


@dataclass(slots=True, kw_only=True)
class Worker:
    """One of many that ask a model with a key, on the clock of Valkey or a set one."""

    client: redis.Redis
    model: str = "small"
    key: str = KEY
    has_head_start: bool = False
    now: list[float] = field(default_factory=lambda: [1_000.0])
    asked: list[str] = field(default_factory=list)

    def beside(self, *, model: str = "small", key: str = KEY) -> Worker:
        """Return another one, on the same clock."""
        return Worker(client=self.client, model=model, key=key, now=self.now, asked=self.asked)

    def ask(self) -> Permit | Wait | Denial:
        self.asked.append("")
        name = f"permit-{len(self.asked)}"
        return self._limits().acquire(
            PermitRequest(permit=name, priority=Priority.INTERACTIVE, cost={QuotaKind.REQUESTS: 1})
        )

    def granted(self) -> Permit:
        """Ask for one more call that has to be let through."""
        answer = self.ask()
        assert isinstance(answer, Permit), answer
        return answer

    def denied(self) -> Denial:
        """Ask for one more call that is not allowed."""
        answer = self.ask()
        assert isinstance(answer, Denial), answer
        return answer

    def waits(self) -> Reason:
        """Ask for one more call that has to wait; return why."""
        answer = self.ask()
        assert isinstance(answer, Wait), answer
        return answer.reason

    def settle(self, permit: Permit, report: CallReport | Denial) -> None:
        """Let a call end, with a denial or otherwise."""
        if isinstance(report, Denial):
            report = CallReport(result=CallResult.DENIED, denial=report)
        self._limits().settle(permit, report)

    def pass_time(self, seconds: float) -> None:
        """Let so much time go by for all."""
        self.now[0] += seconds

    def _limits(self) -> SharedLimits:
        key = SecretStr(self.key)
        return SharedLimits(
            self.client,
            endpoint_id("openai", "http://peer", self.model, key),
            LimitPolicy(pause_seconds=PAUSE_SECONDS, has_head_start=self.has_head_start),
            lambda: self.now[0],
            Place.of("openai", "http://peer", self.model, key),
        )


@pytest.fixture
def worker(valkey: redis.Redis) -> Worker:
    """Return a worker who has found its key refused."""
    first = Worker(client=valkey)
    first.settle(first.granted(), KEY_DENIED)
    return first


def everything(_: Pause) -> bool:
    return True


def test_a_refused_key_pauses_everybody(worker: Worker) -> None:
    """Every caller with that key gets the same error, for any model, without a call."""
    assert (worker.denied().what, worker.denied().hint) == (KEY_DENIED.what, KEY_DENIED.hint)
    assert worker.beside(model="large").denied().code == KEY_DENIED.code
    worker.beside(key="sk-new").granted()


def test_a_missing_model_pauses_only_itself(valkey: redis.Redis) -> None:
    worker = Worker(client=valkey)
    worker.settle(worker.granted(), MODEL_DENIED)

    assert worker.denied().what == MODEL_DENIED.what
    worker.beside(model="large").granted()


def test_after_a_while_one_call_looks(worker: Worker) -> None:
    """The others wait for what it brings, each for a moment at most; an answer ends the pause."""
    worker.pass_time(PAUSE_SECONDS - 1)
    worker.denied()
    worker.pass_time(1)

    looking = worker.granted()
    assert worker.waits() is Reason.HEAD_START
    assert worker.beside(model="large").waits() is Reason.HEAD_START
    worker.settle(looking, ANSWERED)

    worker.granted()
    worker.granted()
    assert pauses.read(worker.client) == []


@pytest.mark.parametrize("report", [BROKEN, CallReport(result=CallResult.UNSENT)])
def test_a_look_that_shows_nothing_is_followed_by_another(
    worker: Worker, report: CallReport
) -> None:
    """A broken connection says nothing of the key."""
    worker.pass_time(PAUSE_SECONDS)

    worker.settle(worker.granted(), report)

    worker.granted()
    assert worker.waits() is Reason.HEAD_START


def test_slow_answers_hold_up_no_worker_for_long(worker: Worker) -> None:
    """A key that is denied would have been so by then, at one of three calls in a row."""
    worker.pass_time(PAUSE_SECONDS)
    for _ in range(3):
        worker.granted()
        assert worker.waits() is Reason.HEAD_START
        worker.pass_time(HEAD_START_SECONDS)

    last = [worker.granted() for _ in range(5)][-1]

    worker.settle(last, KEY_DENIED)
    worker.denied()


@pytest.mark.parametrize("seconds", [PAUSE_SECONDS, 3 * PAUSE_SECONDS])
def test_a_pause_does_not_outlive_a_clock_that_is_put_back(worker: Worker, seconds: float) -> None:
    worker.pass_time(PAUSE_SECONDS / 2)
    worker.pass_time(-seconds)

    looking = worker.granted()
    assert worker.waits() is Reason.HEAD_START
    worker.settle(looking, KEY_DENIED)
    worker.denied()
    worker.pass_time(PAUSE_SECONDS)
    worker.settle(worker.granted(), ANSWERED)

    assert pauses.read(worker.client) == []


def test_a_look_in_the_future_is_not_waited_for(worker: Worker) -> None:
    """The clock was put back during the look."""
    worker.pass_time(PAUSE_SECONDS)
    worker.granted()

    worker.pass_time(-3 * PAUSE_SECONDS)

    worker.granted()


def test_a_mended_key_that_has_no_such_model_pauses_the_model(worker: Worker) -> None:
    worker.pass_time(PAUSE_SECONDS)

    worker.settle(worker.granted(), MODEL_DENIED)

    assert worker.denied().what == MODEL_DENIED.what
    worker.beside(model="large").granted()


def test_calls_from_before_a_pause_change_nothing(valkey: redis.Redis) -> None:
    """Neither an answer that was under way ends it, nor another denial prolongs it."""
    worker = Worker(client=valkey)
    first, second, third = (worker.granted() for _ in range(3))
    worker.settle(first, KEY_DENIED)

    worker.pass_time(PAUSE_SECONDS / 2)
    worker.settle(second, ANSWERED)
    worker.settle(third, KEY_DENIED)

    worker.denied()
    worker.pass_time(PAUSE_SECONDS / 2)
    worker.granted()


def test_the_first_call_ever_goes_ahead_alone(valkey: redis.Redis) -> None:
    """If the key is denied, that was the only request; else the others follow it."""
    worker = Worker(client=valkey, has_head_start=True)
    first = worker.granted()
    assert worker.waits() is Reason.HEAD_START

    worker.settle(first, KEY_DENIED)

    worker.denied()
    other = Worker(client=valkey, has_head_start=True, key="sk-other")
    other.settle(other.granted(), ANSWERED)
    other.granted()
    other.granted()


def test_a_first_call_that_is_too_fast_is_repeated_alone(valkey: redis.Redis) -> None:
    """Refused for its haste, it says when to ask again, and nothing of how many may."""
    worker = Worker(client=valkey, has_head_start=True)
    for _ in range(6):
        worker.settle(worker.granted(), CallReport(result=CallResult.LIMITED))
        worker.pass_time(1)

    looking = worker.granted()
    assert worker.waits() is Reason.HEAD_START
    worker.settle(looking, ANSWERED)

    for _ in range(LimitPolicy().first_in_flight):
        worker.granted()


@pytest.mark.parametrize("seconds", [HEAD_START_SECONDS, -3 * PAUSE_SECONDS])
def test_a_slow_first_answer_holds_up_no_worker(valkey: redis.Redis, seconds: float) -> None:
    """Denials are quick: after a moment all go, and at once where the clock was put back."""
    worker = Worker(client=valkey, has_head_start=True)
    worker.granted()

    worker.pass_time(seconds)

    worker.granted()


def test_a_forgetful_valkey_costs_a_call(worker: Worker) -> None:
    worker.client.flushall()

    worker.settle(worker.granted(), KEY_DENIED)

    worker.denied()


def test_a_pause_is_told_and_cut_short(valkey: redis.Redis) -> None:
    """People see whom it concerns and for how long; resumed, one call looks at once."""
    real = SharedLimits(
        valkey,
        "endpoint",
        LimitPolicy(pause_seconds=PAUSE_SECONDS),
        place=Place.of("openai", "http://peer", "small", SecretStr(KEY)),
    )
    wanted = [
        PermitRequest(permit=str(n), priority=Priority.INTERACTIVE, cost={}) for n in range(4)
    ]
    permits = [real.acquire(each) for each in wanted[:2]]
    assert isinstance(permits[0], Permit)
    assert isinstance(permits[1], Permit)
    real.settle(permits[0], CallReport(result=CallResult.DENIED, denial=KEY_DENIED))

    (told,) = pauses.read(valkey)
    assert told.denial == KEY_DENIED
    assert told.holds_for("openai", "http://peer", "whatever")
    assert not told.holds_for("openai", "http://elsewhere", "small")
    assert PAUSE_SECONDS - 60 < told.seconds <= PAUSE_SECONDS
    assert pauses.resume(valkey, everything) == 1

    # Sent before the resume: it says nothing of what was corrected meanwhile.
    real.settle(permits[1], CallReport(result=CallResult.DENIED, denial=KEY_DENIED))
    assert isinstance(real.acquire(wanted[2]), Permit)
    assert isinstance(real.acquire(wanted[3]), Wait)


def test_pauses_of_unused_keys_are_forgotten(worker: Worker) -> None:
    """A day later the next pause sweeps them out."""
    worker.pass_time(2 * 86_400)

    other = worker.beside(key="sk-other")
    other.settle(other.granted(), KEY_DENIED)

    assert len(pauses.read(worker.client)) == 1


def test_neither_address_nor_key_can_be_read_in_a_pause(valkey: redis.Redis) -> None:
    """Some addresses hold a password, before the host or after it."""
    url = "https://me:hunter2@peer/v1"
    place = Place.of("openai", url, "small", SecretStr(KEY))
    limits = SharedLimits(valkey, "endpoint", LimitPolicy(), place=place)
    permit = limits.acquire(PermitRequest(permit="1", priority=Priority.INTERACTIVE, cost={}))
    assert isinstance(permit, Permit)

    limits.settle(permit, CallReport(result=CallResult.DENIED, denial=KEY_DENIED))

    (told,) = pauses.read(valkey)
    written = str(valkey.hgetall(pauses.KEY))
    assert told.holds_for("openai", url, "small")
    assert "The key is refused." in written
    assert KEY not in written
    assert "hunter2" not in written
