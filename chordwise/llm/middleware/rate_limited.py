"""Rate limiting: each request needs a permit within the limits that all workers share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from threading import Event, Lock, Semaphore
from typing import NoReturn
from uuid import uuid4

from chordwise import errors
from chordwise.domain import schemas, tokens
from chordwise.llm.limits.permits import (
    MAX_PAUSE_SECONDS,
    CallReport,
    CallResult,
    Denial,
    Limits,
    Permit,
    PermitRequest,
    Priority,
    QuotaKind,
    Wait,
    WaitReason,
)
from chordwise.llm.model import Completion, CompletionRequest, Middleware, ModelProfile, Usage

_SLOTS_PER_EXTRA_CALL = 4


def max_unstored_calls(slots: int) -> int:
    """Return how many calls may be in flight or unstored: what a killed process can lose."""
    return slots + slots // _SLOTS_PER_EXTRA_CALL


class Slots:
    """The slots of a process, which bound its calls in flight; see also `max_unstored_calls`."""

    def __init__(self, count: int) -> None:
        self.asking = Semaphore(max_unstored_calls(count))
        self.sent = Semaphore(count)
        self.unstored = Semaphore(max_unstored_calls(count))


class Turn:
    """A turn at one of the slots, for one thread.

    Entering it permits the thread to prepare a request; `send` permits it to send the request. With
    all answers it calls `finish` before it stores them, so that another thread can prepare, and
    `close` once they are stored. A request that fails, or gets no permit, ends the turn at once.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._is_asking = self._is_sent = self._is_unstored = False

    def __enter__(self) -> None:
        if not self._is_asking:
            self._is_asking = self._slots.asking.acquire()

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.release_slot()
        if error is not None:
            self.close()

    def send(self) -> None:
        """Wait, within the turn, until the request may be sent."""
        if not self._is_unstored:
            self._is_unstored = self._slots.unstored.acquire()
        if not self._is_sent:
            self._is_sent = self._slots.sent.acquire()

    def release_slot(self) -> None:
        """Release the slot of this thread's request, so that another thread can send one."""
        if self._is_sent:
            self._is_sent = False
            self._slots.sent.release()

    def finish(self) -> None:
        """End the requests of this turn, so that another thread can prepare one."""
        if self._is_asking:
            self._is_asking = False
            self._slots.asking.release()

    def close(self) -> None:
        """End the turn, if it is held."""
        self.finish()
        if self._is_unstored:
            self._is_unstored = False
            self._slots.unstored.release()


@dataclass(slots=True, eq=False)
class ConcurrencyLimited(Middleware):
    """Sends requests within one of the `turns`; in a server's queue, deadlines would expire."""

    turns: AbstractContextManager[object]

    def complete(self, request: CompletionRequest) -> Completion:
        """Wait for a turn, then ask."""
        with self.turns:
            return self.model.complete(request)


class NoPermitError(errors.RateLimitedError):
    """A recorded request has no permit; `answer` is the answer of the limits."""

    answer: Wait | Denial


class PermitQueue:
    """The threads of a process that wait for permits of one model and priority, in their order.

    The first one requests its permit, and again after each wait. It is woken by a call that returns
    its permit, or by a thread that leaves the queue.
    """

    # These waits end when another call returns its permit, which other processes do unnoticed.
    _UNTIL_RETURNED = (WaitReason.IN_FLIGHT, WaitReason.QUEUE, WaitReason.PRIORITY)
    _UNNOTICED_SECONDS = 0.05
    _CALM_SECONDS = 1.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.id = uuid4().hex
        self.is_busy = False
        """Set by a thread that joins or is refused, and cleared by a permit that is granted at once
        while no other thread waits, after a second without refusals, or after the first call of an
        endpoint, which is made alone.
        """
        self.refusal = Wait(seconds=self._UNNOTICED_SECONDS, reason=WaitReason.QUEUE)
        """The last refusal of any thread."""
        self._waiting: list[Event] = []
        self._refused_at = float("-inf")
        self._clock = clock
        self._lock = Lock()

    @contextmanager
    def joined(self) -> Iterator[Event]:
        """Wait in the queue within the block; yield the event that wakes this thread."""
        woken = Event()
        with self._lock:
            self.is_busy = True
            self._waiting.append(woken)
        try:
            yield woken
        finally:
            with self._lock:
                self._waiting.remove(woken)
            self._wake_first()

    def __len__(self) -> int:
        """Return the number of threads that wait."""
        return len(self._waiting)

    def is_first(self, woken: Event) -> bool:
        """Return whether the thread of this event is the first one."""
        with self._lock:
            return self._waiting[0] is woken

    def note_refused(self, refusal: Wait) -> float:
        """Note that a request was refused; return the seconds after which it is made again."""
        with self._lock:
            self.is_busy = True
            self._refused_at = self._clock()
            self.refusal = refusal
        is_until_returned = refusal.reason in self._UNTIL_RETURNED
        return self._UNNOTICED_SECONDS if is_until_returned else refusal.seconds

    def note_granted(self, refused_for: WaitReason | None) -> None:
        """Note that a permit was granted: at once, or after the refusal `refused_for`.

        Without pressure, and when the endpoint's first call has ended, all threads are woken; they
        then wait only for their slots.
        """
        with self._lock:
            is_calm = self._clock() >= self._refused_at + self._CALM_SECONDS
            is_granted_at_once = refused_for is None and (is_calm or len(self._waiting) == 1)
            if is_granted_at_once or refused_for is WaitReason.HEAD_START:
                self.is_busy = False
                for woken in self._waiting:
                    woken.set()

    def note_returned(self) -> None:
        """Note that a call has returned its permit."""
        if self.refusal.reason in self._UNTIL_RETURNED:
            self._wake_first()

    def _wake_first(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting[0].set()


@dataclass(slots=True, eq=False)
class Gate:
    """Takes the permit of a request last: after the request is recorded, and within its turn.

    A permit is therefore held no longer than its call. A gate belongs to one thread.
    """

    limits: Limits
    turn: Turn | None = None
    clock: Callable[[], float] = time.monotonic
    permit_request: PermitRequest | None = None
    permit: Permit | None = None
    entered_at: float = 0.0

    def enter(self) -> None:
        """Wait for the turn, and take the permit if there is none yet.

        Raises:
            NoPermitError: The permit is not granted at once; the slot is released.
        """
        if self.permit is None and self.permit_request is not None:
            answer = self.ask(self.permit_request)
            if not isinstance(answer, Permit):
                error = NoPermitError("No permit is available for this request yet.")
                error.answer = answer
                raise error
            self.permit = answer
        elif self.turn:
            self.turn.send()
        self.entered_at = self.clock()

    def ask(self, permit_request: PermitRequest) -> Permit | Wait | Denial:
        """Wait for the turn, and request the permit; without a permit, the slot is released."""
        if self.turn:
            self.turn.send()
        answer = self.limits.acquire(permit_request)
        if self.turn and not isinstance(answer, Permit):
            self.turn.release_slot()
        return answer


@dataclass(slots=True, eq=False)
class RateLimited(Middleware):
    """Waits for a permit, sends the request, and reports the outcome to the limits.

    The wait does not count toward the request's time. If it would exceed `max_wait_seconds`, an
    error postpones the work. With a `gate`, which the wrapped model enters before it sends a
    request, the permit is taken there as long as permits are granted at once.
    """

    limits: Limits
    priority: Priority
    max_wait_seconds: float
    wait: Callable[[Event, float], bool] = Event.wait
    clock: Callable[[], float] = time.monotonic
    gate: Gate | None = None
    queue: PermitQueue = field(default_factory=PermitQueue)

    def complete(self, request: CompletionRequest) -> Completion:
        """Send one request, with a permit.

        Raises:
            RateLimitedError: There was no permit in time (`has_waited`), or the provider refused.
            ModelAccessError: The key, or the model, was denied to another call; no request is sent.
            QuotaExceededError: As above.
            ModelOverloadedError: The provider failed too often; the circuit breaker is open.
            ModelError: The error of the wrapped model.
        """
        permit_request = PermitRequest(
            permit=uuid4().hex,
            priority=self.priority,
            cost=cost_of(request, self.profile),
            waiter=self.queue.id,
        )
        gate = self.gate or Gate(self.limits)
        gate.permit_request, gate.permit = permit_request, None
        answer: Wait | Denial | None = None
        if self.gate and not self.queue.is_busy:
            try:
                return self._send(request, gate)
            except NoPermitError as error:
                answer = error.answer
        gate.permit = self._permit(gate, permit_request, answer)
        return self._send(request, gate)

    def _send(self, request: CompletionRequest, gate: Gate) -> Completion:
        gate.entered_at = self.clock()
        report = CallReport(result=CallResult.UNSENT)
        try:
            completion = self.model.complete(request)
            report = CallReport(
                result=CallResult.ANSWERED,
                latency_seconds=self.clock() - gate.entered_at,
                used=_used(completion.usage),
                limits=completion.limits,
            )
        except errors.ChordwiseError as error:
            report = _failure(error)
            raise
        finally:
            if gate.permit is not None:
                self.limits.settle(gate.permit, report)
                self.queue.note_returned()
        return completion

    def _permit(
        self, gate: Gate, permit_request: PermitRequest, answer: Wait | Denial | None
    ) -> Permit:
        """Wait for a permit; `answer` is the limits' answer to an earlier request for it."""
        ends_at = self.clock() + self.max_wait_seconds
        with self.queue.joined() as woken:
            reply: Permit | Wait | Denial | None = answer
            refused_for: WaitReason | None = None
            if reply is None and self.queue.is_first(woken):
                reply = gate.ask(permit_request)
            while not isinstance(reply, Permit):
                if isinstance(reply, Denial):
                    raise denied(reply)
                refused_for = reply.reason if reply else refused_for
                self._wait_in_queue(woken, reply, ends_at)
                reply = gate.ask(permit_request)
            self.queue.note_granted(refused_for)
        return reply

    def _wait_in_queue(self, woken: Event, refusal: Wait | None, ends_at: float) -> None:
        """Wait until this thread should request its permit; `refusal` is the answer so far."""
        left = ends_at - self.clock()
        seconds = self.queue.note_refused(refusal) if refusal else left
        is_first = self.queue.is_first(woken)
        if refusal and is_first and seconds > left:
            self._raise_unavailable(refusal)
        is_woken = self.wait(woken, seconds if is_first else left)
        if not (is_woken or is_first):
            self._raise_unavailable(self.queue.refusal)
        woken.clear()

    def _raise_unavailable(self, wait: Wait) -> NoReturn:
        model = f"{self.profile.provider}/{self.profile.model}"
        error: errors.TransientError
        if wait.reason is WaitReason.BREAKER:
            error = errors.ModelOverloadedError(
                f"{model} failed repeatedly; no requests are sent to it for now."
            )
        else:
            error = errors.RateLimitedError(
                f"{model} has no capacity for another request at present."
            )
        error.retry_after_seconds = min(wait.seconds, MAX_PAUSE_SECONDS)
        error.has_waited = True
        raise error


def denied(denial: Denial) -> errors.ModelError:
    """Return the error of the call that was denied, with the same text."""
    is_quota = denial.code == errors.QuotaExceededError.code
    kind = errors.QuotaExceededError if is_quota else errors.ModelAccessError
    return kind(denial.what, denial.hint)


def cost_of(request: CompletionRequest, profile: ModelProfile) -> Mapping[QuotaKind, int]:
    """Return the most that a request can use of each quota, as providers reserve it."""
    read = tokens.estimate(request.system) + tokens.estimate(request.user)
    read += schemas.estimated_tokens(request.schema)
    read += sum(picture.estimated_tokens for picture in request.pictures)
    written = min(request.max_output_tokens, profile.output_ceiling)
    return {
        QuotaKind.REQUESTS: 1,
        QuotaKind.TOKENS: read + written,
        QuotaKind.INPUT_TOKENS: read,
        QuotaKind.OUTPUT_TOKENS: written,
    }


def _used(usage: Usage) -> Mapping[QuotaKind, int]:
    read, written = usage.input_tokens, usage.output_tokens
    total = None if read is None or written is None else read + written
    counts = {
        QuotaKind.INPUT_TOKENS: read,
        QuotaKind.OUTPUT_TOKENS: written,
        QuotaKind.TOKENS: total,
    }
    return {kind: count for kind, count in counts.items() if count is not None}


def _failure(error: errors.ChordwiseError) -> CallReport:
    if isinstance(error, errors.ModelAccessError | errors.QuotaExceededError):
        denial = Denial(
            code=error.code, what=error.what, hint=error.hint, is_about_key=error.is_about_key
        )
        return CallReport(result=CallResult.DENIED, denial=denial)
    if not isinstance(error, errors.TransientError):
        return CallReport(result=_result(error))
    if error.retry_after_seconds is not None:
        error.retry_after_seconds = min(error.retry_after_seconds, MAX_PAUSE_SECONDS)
    reported = error.reported_limits
    return CallReport(
        result=_result(error),
        retry_after_seconds=error.retry_after_seconds,
        limits=reported if isinstance(reported, Mapping) else {},
    )


def _result(error: errors.ChordwiseError) -> CallResult:
    match error:
        case errors.RateLimitedError():
            return CallResult.LIMITED
        case errors.ModelTransportError() | errors.ModelOverloadedError():
            return CallResult.FAILED
        case errors.BudgetReservedError() | errors.BudgetExceededError():
            return CallResult.UNSENT
        case errors.ModelError():
            return CallResult.ANSWERED
        case _:  # the ledger was unavailable: nothing was sent
            return CallResult.UNSENT
