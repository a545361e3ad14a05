"""Tests of rate limits: no request is sent without a permit."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event, Lock

import pytest

from chordwise import errors
from chordwise.llm.limits.permits import (
    MAX_PAUSE_SECONDS,
    CallReport,
    CallResult,
    Denial,
    Permit,
    PermitRequest,
    Priority,
    Quota,
    QuotaKind,
    Wait,
    WaitReason,
)
from chordwise.llm.middleware.metered import Metered
from chordwise.llm.middleware.rate_limited import Gate, PermitQueue, RateLimited, Slots, Turn
from chordwise.llm.prices import FreePrice
from tests.fakes.clocks import SleptClock
from tests.fakes.completion_requests import a_page, a_request
from tests.fakes.list_ledger import ListLedger
from tests.fakes.processes import wait_until
from tests.fakes.scripted_model import Line, ScriptedModel

FREE = FreePrice()


class ScriptedLimits:
    """Returns the `waits` in turn, then grants; records its calls."""

    def __init__(self, waits: Sequence[Wait | Denial] = ()) -> None:
        self.requests: list[PermitRequest] = []
        self.reports: list[CallReport] = []
        self._waits = list(waits)

    def acquire(self, request: PermitRequest) -> Permit | Wait | Denial:
        self.requests.append(request)
        return self._waits.pop(0) if self._waits else Permit(request=request, granted_at=0.0)

    def settle(self, permit: Permit, report: CallReport) -> None:  # noqa: ARG002 - as in the port
        self.reports.append(report)


def limited(limits: ScriptedLimits, *script: Line, clock: SleptClock | None = None) -> RateLimited:
    slept = clock or SleptClock()
    model = ScriptedModel(script or ["{}"])
    return RateLimited(model, limits, Priority.INTERACTIVE, 60, slept.wait, slept)


def test_a_call_waits_for_its_permit_and_settles_it() -> None:
    limits, clock = ScriptedLimits([Wait(seconds=5, reason=WaitReason.RATE)] * 3), SleptClock()

    assert limited(limits, "{}", clock=clock).complete(a_request()).text == "{}"
    assert clock.sleeps == [5, 5, 5]
    assert len({request.permit for request in limits.requests}) == 1
    assert [report.result for report in limits.reports] == [CallResult.ANSWERED]


def test_no_wait_postpones_work_for_longer_than_a_pause_may_last() -> None:
    """Other programs can write the times in Valkey; so long a duration cannot be represented."""
    limits = ScriptedLimits([Wait(seconds=1e300, reason=WaitReason.PAUSED)])

    with pytest.raises(errors.RateLimitedError) as caught:
        limited(limits).complete(a_request())

    assert caught.value.retry_after_seconds == MAX_PAUSE_SECONDS


def test_waiting_does_not_count_toward_the_timeout_of_the_request() -> None:
    limits = ScriptedLimits([Wait(seconds=50, reason=WaitReason.RATE)])
    model, clock = ScriptedModel(["{}"]), SleptClock()
    subject = RateLimited(model, limits, Priority.NIGHTLY, 60, clock.wait, clock)

    subject.complete(a_request(timeout_seconds=30))

    assert model.requests[0].timeout_seconds == 30
    assert limits.requests[0].priority is Priority.NIGHTLY


def test_the_maximum_usage_of_a_call_is_reserved() -> None:
    limits = ScriptedLimits()

    limited(limits).complete(a_request(max_output_tokens=512))
    limited(limits).complete(a_request(pictures=(a_page(width=750, height=1_000),)))

    cost, of_picture = (request.cost for request in limits.requests)
    assert of_picture[QuotaKind.INPUT_TOKENS] == cost[QuotaKind.INPUT_TOKENS] + 1_000
    assert cost[QuotaKind.REQUESTS] == 1
    assert cost[QuotaKind.OUTPUT_TOKENS] == 512
    assert cost[QuotaKind.TOKENS] == cost[QuotaKind.INPUT_TOKENS] + 512
    assert cost[QuotaKind.INPUT_TOKENS] > 40
    assert limits.reports[0].used[QuotaKind.INPUT_TOKENS] == 100


@pytest.mark.parametrize(
    ("waits", "error", "is_throttling"),
    [
        ([Wait(seconds=45, reason=WaitReason.RATE)] * 2, errors.RateLimitedError, True),
        ([Wait(seconds=61, reason=WaitReason.BREAKER)], errors.ModelOverloadedError, False),
    ],
)
def test_too_long_a_wait_postpones_the_work(
    waits: list[Wait], error: type[errors.TransientError], *, is_throttling: bool
) -> None:
    """Nothing is sent; the error has the delay, and the wait does not count as a failure.

    While the circuit breaker is open for long, the provider counts as overloaded.
    """
    limits = ScriptedLimits(waits)

    with pytest.raises(error) as caught:
        limited(limits).complete(a_request())

    assert caught.value.retry_after_seconds == waits[0].seconds
    assert (caught.value.is_throttling, caught.value.has_waited) == (is_throttling, True)
    assert caught.value.hint
    assert limits.reports == []


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (errors.RateLimitedError("slow down"), CallResult.LIMITED),
        (errors.ModelOverloadedError("busy"), CallResult.FAILED),
        (errors.ModelTransportError("broken"), CallResult.FAILED),
        (errors.ContextTooLongError("long"), CallResult.ANSWERED),
        (errors.BudgetExceededError("spent"), CallResult.UNSENT),
        (errors.ServiceUnavailableError("no ledger"), CallResult.UNSENT),
    ],
)
def test_every_error_returns_the_permit(error: errors.ChordwiseError, result: CallResult) -> None:
    limits = ScriptedLimits()

    with pytest.raises(type(error)):
        limited(limits, error).complete(a_request())

    assert [report.result for report in limits.reports] == [result]


@pytest.mark.parametrize("kind", [errors.ModelAccessError, errors.QuotaExceededError])
def test_a_denial_of_another_call_sends_no_request(kind: type[errors.ModelError]) -> None:
    denial = Denial(code=kind.code, what="No.", hint="Mend it.")
    limits = ScriptedLimits([Wait(seconds=1, reason=WaitReason.HEAD_START), denial])

    with pytest.raises(kind) as caught:
        limited(limits).complete(a_request())

    assert (caught.value.what, caught.value.hint) == ("No.", "Mend it.")
    assert limits.reports == []


@pytest.mark.parametrize("is_about_key", [False, True])
def test_a_denial_is_reported_with_its_scope(*, is_about_key: bool) -> None:
    error: errors.PausingError = errors.ModelAccessError("No.", "Mend it.")
    error.is_about_key = is_about_key
    limits = ScriptedLimits()

    with pytest.raises(errors.ModelAccessError):
        limited(limits, error).complete(a_request())

    denial = Denial(code="model_access", what="No.", hint="Mend it.", is_about_key=is_about_key)
    assert limits.reports == [CallReport(result=CallResult.DENIED, denial=denial)]


def test_a_rate_limit_is_reported_with_its_delay_and_limits() -> None:
    error: errors.TransientError = errors.RateLimitedError("slow down")
    error.retry_after_seconds = 99_999
    error.reported_limits = {QuotaKind.REQUESTS: Quota(limit=60, remaining=0)}
    limits = ScriptedLimits()

    with pytest.raises(errors.RateLimitedError) as caught:
        limited(limits, error).complete(a_request())

    assert caught.value.retry_after_seconds == MAX_PAUSE_SECONDS
    assert limits.reports[0].retry_after_seconds == MAX_PAUSE_SECONDS
    assert limits.reports[0].limits[QuotaKind.REQUESTS].limit == 60


def test_an_unexpected_error_returns_the_permit() -> None:
    def broken(_: object) -> str:
        raise ZeroDivisionError

    limits = ScriptedLimits()

    with pytest.raises(ZeroDivisionError):
        limited(limits, broken).complete(a_request())

    assert [report.result for report in limits.reports] == [CallResult.UNSENT]


def gated(limits: ScriptedLimits, ledger: ListLedger, clock: SleptClock) -> RateLimited:
    gate = Gate(limits, Turn(Slots(1)), clock=clock)
    metered = Metered(ScriptedModel(["{}"], repeat_last=True), ledger, FREE, clock, wait=gate.enter)
    return RateLimited(metered, limits, Priority.NIGHTLY, 60, clock.wait, clock, gate)


def test_a_permit_is_taken_at_the_gate() -> None:
    """It is held only for the call while no caller waits for permits."""
    limits, ledger = ScriptedLimits(), ListLedger()
    subject = gated(limits, ledger, SleptClock())

    subject.complete(a_request())

    assert len(limits.requests) == len(limits.reports) == len(ledger.rows) == 1
    assert not subject.queue.is_busy


def test_a_call_that_waits_for_a_permit_has_no_row_and_no_slot() -> None:
    """Later calls take the permit first, until one is granted without a wait."""
    limits = ScriptedLimits([Wait(seconds=5, reason=WaitReason.RATE)] * 2)
    ledger, clock = ListLedger(), SleptClock()
    subject = gated(limits, ledger, clock)

    subject.complete(a_request())
    assert len(limits.requests) == 3
    assert len({request.permit for request in limits.requests}) == 1
    assert len(ledger.rows) == 1
    assert clock.sleeps == [5, 5]
    assert subject.queue.is_busy

    subject.complete(a_request())
    assert [report.result for report in limits.reports] == [CallResult.ANSWERED] * 2
    assert not subject.queue.is_busy


def test_a_denial_at_the_gate_is_raised() -> None:
    denial = Denial(code=errors.ModelAccessError.code, what="no such key", hint="")
    ledger = ListLedger()
    subject = gated(ScriptedLimits([denial]), ledger, SleptClock())

    with pytest.raises(errors.ModelAccessError, match="no such key"):
        subject.complete(a_request())

    assert not ledger.rows


class CountedLimits(ScriptedLimits):
    """Grants one permit at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.granted: list[str] = []
        self._lock = Lock()

    def acquire(self, request: PermitRequest) -> Permit | Wait | Denial:
        with self._lock:
            self.requests.append(request)
            if len(self.granted) > len(self.reports):
                return Wait(seconds=30, reason=WaitReason.IN_FLIGHT)
            self.granted.append(request.permit)
            return Permit(request=request, granted_at=0.0)


def test_a_returned_permit_wakes_the_longest_waiting_thread() -> None:
    limits, queue, may_answer = CountedLimits(), PermitQueue(), Event()
    model = ScriptedModel([lambda _: "{}" if may_answer.wait(30) else "late"], repeat_last=True)

    def complete() -> str:
        subject = RateLimited(model, limits, Priority.NIGHTLY, 60, queue=queue)
        subject.wait = lambda woken, _seconds: woken.wait(30)  # asks again only when it is woken
        return subject.complete(a_request()).text

    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(complete)]
        wait_until(lambda: len(model.requests) == 1, 10, "the first call")
        calls.append(threads.submit(complete))
        wait_until(lambda: len(limits.requests) == 2, 10, "a refusal")
        calls += [threads.submit(complete) for _ in range(2)]
        wait_until(lambda: len(queue) == 3, 10, "the queue")
        assert len(limits.requests) == 2
        may_answer.set()
        assert [call.result(20) for call in calls] == ["{}"] * 4

    assert limits.granted[1] == limits.requests[1].permit
    # Each granted and each returned permit wakes one thread.
    assert len(limits.requests) <= 2 + 2 * len(calls)


def test_permits_are_taken_first_until_they_are_plentiful() -> None:
    """A second after the last refusal, threads that wait only for their slots no longer count."""
    clock, states = SleptClock(), []
    queue = PermitQueue(clock)

    with queue.joined():
        queue.note_refused(Wait(seconds=5, reason=WaitReason.RATE))
        states.append(queue.is_busy)
    with queue.joined() as waiting, queue.joined():
        queue.note_granted(refused_for=None)
        states.append(queue.is_busy)
        assert not waiting.is_set()
        clock.now += 1
        queue.note_granted(refused_for=None)
        states.append(queue.is_busy)
        assert waiting.is_set()
    with queue.joined():
        states.append(queue.is_busy)
        queue.note_granted(refused_for=None)
        states.append(queue.is_busy)

    assert states == [True, True, False, True, False]


@pytest.mark.parametrize(
    ("reason", "are_woken"), [(WaitReason.HEAD_START, True), (WaitReason.RATE, False)]
)
def test_all_threads_ask_once_the_first_call_of_an_endpoint_has_ended(
    reason: WaitReason, *, are_woken: bool
) -> None:
    """They had to wait for this call only; after other refusals, permits may still be scarce."""
    limits, clock = ScriptedLimits([Wait(seconds=1, reason=reason)]), SleptClock()
    subject = RateLimited(ScriptedModel(["{}"]), limits, Priority.NIGHTLY, 60, clock=clock)
    others: list[Event] = []

    def wait(event: Event, seconds: float) -> bool:
        others.extend(stack.enter_context(subject.queue.joined()) for _ in range(2))
        return clock.wait(event, seconds)

    subject.wait = wait
    with ExitStack() as stack:
        subject.complete(a_request())
        assert [event.is_set() for event in others] == [True, are_woken]
        assert subject.queue.is_busy is not are_woken
