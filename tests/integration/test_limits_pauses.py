"""Tests that a rejected key costs one call and pauses all runs that use it until a retry."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import redis
from pydantic import SecretStr

from chordwise.domain.states import JobStatus
from chordwise.errors import ModelAccessError, ModelUnreachableError, QuotaExceededError
from chordwise.llm.limits.permits import (
    CallReport,
    CallResult,
    Denial,
    LimitPolicy,
    Permit,
    PermitRequest,
    Priority,
    QuotaKind,
    Wait,
    WaitReason,
)
from chordwise.llm.limits.shared_limits import (
    PAUSES_KEY,
    ModelEndpoint,
    Pause,
    SharedLimits,
    read_pauses,
    resume_pauses,
)
from chordwise.pipeline.diagnosis.doctor import check_pauses, check_question
from chordwise.pipeline.diagnosis.outcome import CheckStatus
from chordwise.pipeline.jobs import run_control
from chordwise.settings import ModelSettings, Settings
from tests.fakes.pipeline import AWAY, PARAGRAPH, SCRIPTED, Pipeline, a_pipeline, quoting_the_text

PAUSE_SECONDS = 300.0
HEAD_START_SECONDS = 2.0
ANSWERED = CallReport(result=CallResult.ANSWERED, latency_seconds=1.0)
BROKEN = CallReport(result=CallResult.FAILED)
KEY_DENIED = Denial(
    code="model_access", what="The key is refused.", hint="Check api_key.", is_about_key=True
)
MODEL_DENIED = Denial(code="model_access", what="There is no such model.", hint="Check model.")
KEY = "sk-very-secret"


def at_peer(model: str, base_url: str = "http://peer") -> ModelSettings:
    return ModelSettings(provider="openai", model=model, base_url=base_url)


@dataclass(slots=True, kw_only=True)
class Worker:
    """One of many workers that ask a model with a key, on a clock that the test sets."""

    client: redis.Redis
    model: str = "small"
    key: str = KEY
    has_head_start: bool = False
    now: list[float] = field(default_factory=lambda: [1_000.0])
    permits: list[str] = field(default_factory=list)

    def beside(self, *, model: str = "small", key: str = KEY) -> Worker:
        return Worker(client=self.client, model=model, key=key, now=self.now, permits=self.permits)

    def ask(self) -> Permit | Wait | Denial:
        self.permits.append("")
        name = f"permit-{len(self.permits)}"
        return self._limits().acquire(
            PermitRequest(permit=name, priority=Priority.INTERACTIVE, cost={QuotaKind.REQUESTS: 1})
        )

    def granted(self) -> Permit:
        answer = self.ask()
        assert isinstance(answer, Permit), answer
        return answer

    def denied(self) -> Denial:
        answer = self.ask()
        assert isinstance(answer, Denial), answer
        return answer

    def waits(self) -> WaitReason:
        answer = self.ask()
        assert isinstance(answer, Wait), answer
        return answer.reason

    def settle(self, permit: Permit, report: CallReport | Denial) -> None:
        if isinstance(report, Denial):
            report = CallReport(result=CallResult.DENIED, denial=report)
        self._limits().settle(permit, report)

    def pass_time(self, seconds: float) -> None:
        self.now[0] += seconds

    def _limits(self) -> SharedLimits:
        return SharedLimits(
            self.client,
            ModelEndpoint.of(at_peer(self.model), SecretStr(self.key)),
            LimitPolicy(pause_seconds=PAUSE_SECONDS, has_head_start=self.has_head_start),
            lambda: self.now[0],
        )


@pytest.fixture
def worker(valkey: redis.Redis) -> Worker:
    """Return a worker whose key was rejected."""
    first = Worker(client=valkey)
    first.settle(first.granted(), KEY_DENIED)
    return first


def everything(_: Pause) -> bool:
    return True


def test_a_rejected_key_pauses_all_callers_with_that_key(worker: Worker) -> None:
    assert (worker.denied().what, worker.denied().hint) == (KEY_DENIED.what, KEY_DENIED.hint)
    assert worker.beside(model="large").denied().code == KEY_DENIED.code
    worker.beside(key="sk-new").granted()


def test_a_missing_model_pauses_only_that_model(valkey: redis.Redis) -> None:
    worker = Worker(client=valkey)
    worker.settle(worker.granted(), MODEL_DENIED)

    assert worker.denied().what == MODEL_DENIED.what
    worker.beside(model="large").granted()


def test_one_call_checks_whether_the_pause_is_over(worker: Worker) -> None:
    worker.pass_time(PAUSE_SECONDS - 1)
    worker.denied()
    worker.pass_time(1)

    looking = worker.granted()
    assert worker.waits() is WaitReason.HEAD_START
    assert worker.beside(model="large").waits() is WaitReason.HEAD_START
    worker.settle(looking, ANSWERED)

    worker.granted()
    worker.granted()
    assert read_pauses(worker.client) == []


@pytest.mark.parametrize("report", [BROKEN, CallReport(result=CallResult.UNSENT)])
def test_an_inconclusive_check_is_followed_by_another(worker: Worker, report: CallReport) -> None:
    """A broken connection shows nothing about the key."""
    worker.pass_time(PAUSE_SECONDS)

    worker.settle(worker.granted(), report)

    worker.granted()
    assert worker.waits() is WaitReason.HEAD_START


def test_slow_answers_delay_workers_only_briefly(worker: Worker) -> None:
    """A denial is quick: after three checks without one, all workers proceed."""
    worker.pass_time(PAUSE_SECONDS)
    for _ in range(3):
        worker.granted()
        assert worker.waits() is WaitReason.HEAD_START
        worker.pass_time(HEAD_START_SECONDS)

    last = [worker.granted() for _ in range(5)][-1]

    worker.settle(last, KEY_DENIED)
    worker.denied()


@pytest.mark.parametrize("seconds", [PAUSE_SECONDS, 3 * PAUSE_SECONDS])
def test_a_pause_ends_when_the_clock_is_set_back(worker: Worker, seconds: float) -> None:
    worker.pass_time(PAUSE_SECONDS / 2)
    worker.pass_time(-seconds)

    looking = worker.granted()
    assert worker.waits() is WaitReason.HEAD_START
    worker.settle(looking, KEY_DENIED)
    worker.denied()
    worker.pass_time(PAUSE_SECONDS)
    worker.settle(worker.granted(), ANSWERED)

    assert read_pauses(worker.client) == []


def test_a_check_in_the_future_is_not_waited_for(worker: Worker) -> None:
    """The clock was set back during the check."""
    worker.pass_time(PAUSE_SECONDS)
    worker.granted()

    worker.pass_time(-3 * PAUSE_SECONDS)

    worker.granted()


def test_a_corrected_key_without_the_model_pauses_only_the_model(worker: Worker) -> None:
    worker.pass_time(PAUSE_SECONDS)

    worker.settle(worker.granted(), MODEL_DENIED)

    assert worker.denied().what == MODEL_DENIED.what
    worker.beside(model="large").granted()


def test_calls_from_before_a_pause_do_not_change_it(valkey: redis.Redis) -> None:
    worker = Worker(client=valkey)
    first, second, third = (worker.granted() for _ in range(3))
    worker.settle(first, KEY_DENIED)

    worker.pass_time(PAUSE_SECONDS / 2)
    worker.settle(second, ANSWERED)
    worker.settle(third, KEY_DENIED)

    worker.denied()
    worker.pass_time(PAUSE_SECONDS / 2)
    worker.granted()


def test_the_first_call_is_made_alone(valkey: redis.Redis) -> None:
    """If the key is denied, that was the only request; otherwise the others follow it."""
    worker = Worker(client=valkey, has_head_start=True)
    first = worker.granted()
    assert worker.waits() is WaitReason.HEAD_START

    worker.settle(first, KEY_DENIED)

    worker.denied()
    other = Worker(client=valkey, has_head_start=True, key="sk-other")
    other.settle(other.granted(), ANSWERED)
    other.granted()
    other.granted()


def test_a_rate_limited_first_call_is_repeated_alone(valkey: redis.Redis) -> None:
    """The refusal says when to ask again, and not how many calls are allowed."""
    worker = Worker(client=valkey, has_head_start=True)
    for _ in range(6):
        worker.settle(worker.granted(), CallReport(result=CallResult.LIMITED))
        worker.pass_time(1)

    looking = worker.granted()
    assert worker.waits() is WaitReason.HEAD_START
    worker.settle(looking, ANSWERED)

    for _ in range(LimitPolicy().first_in_flight):
        worker.granted()


@pytest.mark.parametrize("seconds", [HEAD_START_SECONDS, -3 * PAUSE_SECONDS])
def test_a_slow_first_answer_blocks_no_other_worker(valkey: redis.Redis, seconds: float) -> None:
    """Denials are quick: all proceed after a moment, or at once if the clock was set back."""
    worker = Worker(client=valkey, has_head_start=True)
    worker.granted()

    worker.pass_time(seconds)

    worker.granted()


def test_a_valkey_that_lost_its_data_costs_one_call(worker: Worker) -> None:
    worker.client.flushall()

    worker.settle(worker.granted(), KEY_DENIED)

    worker.denied()


def test_a_pause_is_listed_and_can_be_ended(valkey: redis.Redis) -> None:
    real = SharedLimits(
        valkey,
        ModelEndpoint.of(at_peer("small"), SecretStr(KEY)),
        LimitPolicy(pause_seconds=PAUSE_SECONDS),
    )
    requests = [
        PermitRequest(permit=str(n), priority=Priority.INTERACTIVE, cost={}) for n in range(4)
    ]
    permits = [real.acquire(request) for request in requests[:2]]
    assert isinstance(permits[0], Permit)
    assert isinstance(permits[1], Permit)
    real.settle(permits[0], CallReport(result=CallResult.DENIED, denial=KEY_DENIED))

    (told,) = read_pauses(valkey)
    assert told.denial == KEY_DENIED
    assert told.holds_for(at_peer("whatever"))
    assert not told.holds_for(at_peer("small", "http://elsewhere"))
    assert PAUSE_SECONDS - 60 < told.seconds <= PAUSE_SECONDS
    assert resume_pauses(valkey, everything) == 1

    # This call was sent before the resume, so its result does not concern the corrected key.
    real.settle(permits[1], CallReport(result=CallResult.DENIED, denial=KEY_DENIED))
    assert isinstance(real.acquire(requests[2]), Permit)
    assert isinstance(real.acquire(requests[3]), Wait)


def test_pauses_of_unused_keys_are_deleted(worker: Worker) -> None:
    worker.pass_time(2 * 86_400)

    other = worker.beside(key="sk-other")
    other.settle(other.granted(), KEY_DENIED)

    assert len(read_pauses(worker.client)) == 1


@pytest.mark.parametrize("entry", ["", "[]", "17", '{"model": "small"}', '{"asks_again_at": "x"}'])
def test_entries_that_are_no_pauses_are_removed(worker: Worker, entry: str) -> None:
    (pause,) = read_pauses(worker.client)
    worker.client.hset(PAUSES_KEY, pause.name, entry)
    worker.client.hset(PAUSES_KEY, "unused", entry)

    assert (read_pauses(worker.client), resume_pauses(worker.client, everything)) == ([], 0)

    worker.settle(worker.granted(), MODEL_DENIED)
    (pause,) = read_pauses(worker.client)
    assert pause.model == "small"
    assert worker.client.hlen(PAUSES_KEY) == 1


def test_a_pause_contains_neither_address_nor_key(valkey: redis.Redis) -> None:
    """Some addresses contain a password, before the host or after it."""
    model = at_peer("small", "https://me:hunter2@peer/v1")
    limits = SharedLimits(valkey, ModelEndpoint.of(model, SecretStr(KEY)), LimitPolicy())
    permit = limits.acquire(PermitRequest(permit="1", priority=Priority.INTERACTIVE, cost={}))
    assert isinstance(permit, Permit)

    limits.settle(permit, CallReport(result=CallResult.DENIED, denial=KEY_DENIED))

    (told,) = read_pauses(valkey)
    written = str(valkey.hgetall(PAUSES_KEY))
    assert told.holds_for(model)
    assert "The key is refused." in written
    assert KEY not in written
    assert "hunter2" not in written


REFUSED = ModelAccessError("The key is refused.", "Check api_key.")
REFUSED.is_about_key = True


def settings_asking(settings: Settings) -> Settings:
    return settings.model_copy(update={"model": SCRIPTED, "models": {SCRIPTED: AWAY}})


def job_states(pipeline: Pipeline) -> list[tuple[object, ...]]:
    return pipeline.rows("SELECT status, error_code, error_message, hint FROM jobs ORDER BY id")


def test_another_run_pauses_without_a_request(settings: Settings) -> None:
    pipeline = a_pipeline(settings, REFUSED)
    pipeline.analyze(PARAGRAPH)

    pipeline.analyze(f"Another text. {PARAGRAPH}")

    paused = (JobStatus.PAUSED, "model_access", "The key is refused.", "Check api_key.")
    assert job_states(pipeline) == [paused, paused]
    assert len(pipeline.model.requests) == 1
    assert pipeline.value("SELECT count(*) FROM model_calls") == 1


def test_a_retry_asks_again_and_ends_the_pause(settings: Settings) -> None:
    """The retried run continues; another run needs its own retry, and a new one none."""
    pipeline = a_pipeline(settings, REFUSED, quoting_the_text, repeat_last=True)
    first = pipeline.analyze(PARAGRAPH)
    second = pipeline.analyze(f"Another text. {PARAGRAPH}")

    run_control.retry(pipeline.context, first.run_id)
    pipeline.work(first)
    third = pipeline.analyze(f"A third text. {PARAGRAPH}")

    statuses = [pipeline.job(submission).status for submission in (first, second, third)]
    assert statuses == [JobStatus.SUCCEEDED, JobStatus.PAUSED, JobStatus.SUCCEEDED]
    run_control.retry(pipeline.context, second.run_id)
    pipeline.work(second)
    assert pipeline.job(second).status == JobStatus.SUCCEEDED


def test_an_unsuccessful_retry_costs_one_request(settings: Settings) -> None:
    pipeline = a_pipeline(settings, REFUSED, repeat_last=True)
    first = pipeline.analyze(PARAGRAPH, f"Another text. {PARAGRAPH}")

    run_control.retry(pipeline.context, first.run_id)
    pipeline.work(first)
    pipeline.analyze(f"A third text. {PARAGRAPH}")

    assert {row[0] for row in job_states(pipeline)} == {JobStatus.PAUSED}
    assert len(pipeline.model.requests) == 2


def test_a_changed_key_is_used_at_once(settings: Settings) -> None:
    old = a_pipeline(settings, QuotaExceededError("The money is spent."))
    old.analyze(PARAGRAPH)
    model_settings = ModelSettings.model_validate(
        {**AWAY.model_dump(), "api_key": SecretStr("sk-new")}
    )
    new = a_pipeline(settings, quoting_the_text, model_settings=model_settings)

    submission = new.analyze(f"Another text. {PARAGRAPH}")

    assert new.job(submission).status == JobStatus.SUCCEEDED


def test_doctor_reports_the_pause(settings: Settings) -> None:
    pipeline = a_pipeline(settings, REFUSED)
    assert check_pauses(settings_asking(settings)).status is CheckStatus.OK

    pipeline.analyze(PARAGRAPH)

    check = check_pauses(settings_asking(settings))
    assert check.status is CheckStatus.WARN
    assert check.finding == "The key is refused. Calls of all runs are paused for 5 min."
    assert check.hint == "Check api_key. To try again now: chordwise continue RUN."


def test_the_test_question_of_doctor_ignores_the_pause(settings: Settings) -> None:
    pipeline = a_pipeline(settings, REFUSED)
    pipeline.analyze(PARAGRAPH)

    with pytest.raises(ModelUnreachableError):
        check_question(settings_asking(settings))


def test_a_retry_succeeds_while_valkey_is_unavailable(settings: Settings) -> None:
    pipeline = a_pipeline(settings, REFUSED)
    submission = pipeline.analyze(PARAGRAPH)
    away = settings.model_copy(update={"broker_url": SecretStr("redis://127.0.0.1:1/0")})

    run_control.probe_again(away, [SCRIPTED])

    assert run_control.retry(pipeline.context, submission.run_id) == 1
