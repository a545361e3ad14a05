"""Rate limiting: each request needs a permit within the limits that all workers share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn
from uuid import uuid4

from chordwise.domain import schemas, tokens
from chordwise.errors import (
    BudgetExceededError,
    BudgetReservedError,
    ChordwiseError,
    ModelAccessError,
    ModelError,
    ModelOverloadedError,
    ModelTransportError,
    QuotaExceededError,
    RateLimitedError,
    TransientError,
)
from chordwise.llm.limits.permits import (
    LONGEST_PAUSE_SECONDS,
    CallReport,
    CallResult,
    Denial,
    Limits,
    Permit,
    PermitRequest,
    Priority,
    Reason,
    Wait,
)
from chordwise.llm.middleware.concurrency_limited import Turn
from chordwise.llm.model import Completion, CompletionRequest, Middleware, ModelProfile, Usage
from chordwise.llm.reported_limits import QuotaKind


class NoPermitError(RateLimitedError):
    """A recorded request has no permit; `answer` is the answer of the limits."""

    answer: Wait | Denial


@dataclass(slots=True)
class Pressure:
    """Whether the last request for a permit had to wait, of all callers that share it."""

    is_high: bool = False


@dataclass(slots=True, eq=False)
class Gate:
    """Takes the permit of a request last: after the request is recorded, and within its turn.

    A permit is therefore held no longer than its call. A gate belongs to one thread and holds the
    state of its current request: the request for a permit, the granted permit, and the time at
    which it entered.
    """

    limits: Limits
    turn: Turn | None = None
    pressure: Pressure = field(default_factory=Pressure)
    clock: Callable[[], float] = time.monotonic
    permit_request: PermitRequest | None = None
    permit: Permit | None = None
    entered_at: float = 0.0

    def enter(self) -> None:
        """Wait for the turn, and take the permit if there is none yet.

        Raises:
            NoPermitError: The permit is not granted at once; the slot is released.
        """
        if self.turn:
            self.turn.send()
        if self.permit is None and self.permit_request is not None:
            answer = self.limits.acquire(self.permit_request)
            self.pressure.is_high = not isinstance(answer, Permit)
            if not isinstance(answer, Permit):
                if self.turn:
                    self.turn.recall()
                error = NoPermitError("No permit is available for this request yet.")
                error.answer = answer
                raise error
            self.permit = answer
        self.entered_at = self.clock()


@dataclass(slots=True, eq=False)
class RateLimited(Middleware):
    """Waits for a permit, sends the request, and reports the outcome to the limits.

    The wait does not count toward the request's time. If it would exceed `longest_wait_seconds`, an
    error postpones the work. With a `gate`, which the wrapped model enters before it sends a
    request, the permit is taken there as long as permits are granted at once.
    """

    limits: Limits
    priority: Priority
    longest_wait_seconds: float
    sleep: Callable[[float], None]
    clock: Callable[[], float] = time.monotonic
    gate: Gate | None = None

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
            permit=uuid4().hex, priority=self.priority, cost=cost_of(request, self.profile)
        )
        answer: Wait | Denial | None = None
        if self.gate and not self.gate.pressure.is_high:
            try:
                return self._send(request, permit_request, None)
            except NoPermitError as error:
                answer = error.answer
        return self._send(request, permit_request, self._permit(permit_request, answer))

    def _send(
        self, request: CompletionRequest, permit_request: PermitRequest, permit: Permit | None
    ) -> Completion:
        """Send one request; report its outcome to the limits if it had a permit."""
        gate = self.gate or Gate(self.limits)
        gate.permit_request, gate.permit, gate.entered_at = permit_request, permit, self.clock()
        report = CallReport(result=CallResult.UNSENT)
        try:
            completion = self.model.complete(request)
            report = CallReport(
                result=CallResult.ANSWERED,
                latency_seconds=self.clock() - gate.entered_at,
                used=_used(completion.usage),
                limits=completion.limits,
            )
        except ChordwiseError as error:
            report = _failure(error)
            raise
        finally:
            if gate.permit is not None:
                self.limits.settle(gate.permit, report)
        return completion

    def _permit(self, permit_request: PermitRequest, answer: Wait | Denial | None) -> Permit:
        """Wait for a permit; `answer` is the limits' answer to an earlier request for it."""
        ends_at = self.clock() + self.longest_wait_seconds
        pressure = self.gate.pressure if self.gate else Pressure()
        pressure.is_high = answer is not None
        while True:
            found = answer or self.limits.acquire(permit_request)
            if isinstance(found, Permit):
                return found
            if isinstance(found, Denial):
                raise denied(found)
            answer, pressure.is_high = None, True
            if self.clock() + found.seconds > ends_at:
                self._raise_unavailable(found)
            self.sleep(found.seconds)

    def _raise_unavailable(self, wait: Wait) -> NoReturn:
        model = f"{self.profile.provider}/{self.profile.model}"
        error: TransientError
        if wait.reason is Reason.BREAKER:
            error = ModelOverloadedError(
                f"{model} failed repeatedly; no requests are sent to it for now."
            )
        else:
            error = RateLimitedError(f"{model} has no capacity for another request at present.")
        error.retry_after_seconds = min(wait.seconds, LONGEST_PAUSE_SECONDS)
        error.has_waited = True
        raise error


def denied(denial: Denial) -> ModelError:
    """Return the error of the call that was denied, with the same text."""
    is_quota = denial.code == QuotaExceededError.code
    kind = QuotaExceededError if is_quota else ModelAccessError
    return kind(denial.what, denial.hint)


def cost_of(request: CompletionRequest, profile: ModelProfile) -> Mapping[QuotaKind, int]:
    """Return the most that a request can use of each quota, as providers reserve it."""
    read = tokens.estimate(request.system) + tokens.estimate(request.user)
    read += schemas.estimated_tokens(request.schema)
    read += sum(each.estimated_tokens for each in request.pictures)
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


def _failure(error: ChordwiseError) -> CallReport:
    if isinstance(error, ModelAccessError | QuotaExceededError):
        denial = Denial(
            code=error.code, what=error.what, hint=error.hint, is_about_key=error.is_about_key
        )
        return CallReport(result=CallResult.DENIED, denial=denial)
    if not isinstance(error, TransientError):
        return CallReport(result=_result(error))
    if error.retry_after_seconds is not None:
        error.retry_after_seconds = min(error.retry_after_seconds, LONGEST_PAUSE_SECONDS)
    reported = error.reported_limits
    return CallReport(
        result=_result(error),
        retry_after_seconds=error.retry_after_seconds,
        limits=reported if isinstance(reported, Mapping) else {},
    )


def _result(error: ChordwiseError) -> CallResult:
    match error:
        case RateLimitedError():
            return CallResult.LIMITED
        case ModelTransportError() | ModelOverloadedError():
            return CallResult.FAILED
        case BudgetReservedError() | BudgetExceededError():
            return CallResult.UNSENT
        case ModelError():
            return CallResult.ANSWERED
        case _:  # the ledger was unavailable: nothing was sent
            return CallResult.UNSENT
