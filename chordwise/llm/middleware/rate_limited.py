"""No request without a permit: within the limits that all workers share, and in their order."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from chordwise.llm.model import Completion, CompletionRequest, Middleware, ModelProfile, Usage
from chordwise.llm.reported_limits import QuotaKind


@dataclass(slots=True, eq=False)
class RateLimited(Middleware):
    """Waits for a permit, then asks, and reports the outcome to the limits.

    The waiting takes nothing from the request's own time. Where it would be longer than
    `longest_wait_seconds`, the work is to be put off.
    """

    limits: Limits
    priority: Priority
    longest_wait_seconds: float
    sleep: Callable[[float], None]
    clock: Callable[[], float] = time.monotonic

    def complete(self, request: CompletionRequest) -> Completion:
        """Ask once, with a permit.

        Raises:
            RateLimitedError: There was no permit in time (`has_waited`), or the provider refused.
            ModelAccessError: The key, or the model, was denied to another call; none is sent.
            QuotaExceededError: As above.
            ModelOverloadedError: The provider failed too often and is not asked for now.
            ModelError: What the model inside raised.
        """
        permit = self._permit(request)
        started = self.clock()
        report = CallReport(result=CallResult.UNSENT)
        try:
            completion = self.model.complete(request)
            report = CallReport(
                result=CallResult.ANSWERED,
                latency_seconds=self.clock() - started,
                used=_used(completion.usage),
                limits=completion.limits,
            )
        except ChordwiseError as error:
            report = _failure(error)
            raise
        finally:
            self.limits.settle(permit, report)
        return completion

    def _permit(self, request: CompletionRequest) -> Permit:
        wanted = PermitRequest(
            permit=uuid4().hex, priority=self.priority, cost=cost_of(request, self.profile)
        )
        ends_at = self.clock() + self.longest_wait_seconds
        while True:
            answer = self.limits.take(wanted)
            if isinstance(answer, Permit):
                return answer
            if isinstance(answer, Denial):
                raise denied(answer)
            if self.clock() + answer.seconds > ends_at:
                self._give_up(answer)
            self.sleep(answer.seconds)

    def _give_up(self, wait: Wait) -> NoReturn:
        model = f"{self.profile.provider}/{self.profile.model}"
        error: TransientError
        if wait.reason is Reason.BREAKER:
            error = ModelOverloadedError(f"{model} failed too often and is left alone for now.")
        else:
            error = RateLimitedError(f"{model} has no room for another request for now.")
        error.retry_after_seconds = wait.seconds
        error.has_waited = True
        raise error


def denied(denial: Denial) -> ModelError:
    """Return the error that another call met, in the same words."""
    is_quota = denial.code == QuotaExceededError.code
    kind = QuotaExceededError if is_quota else ModelAccessError
    return kind(denial.what, denial.hint)


def cost_of(request: CompletionRequest, profile: ModelProfile) -> Mapping[QuotaKind, int]:
    """Return the most that a request can take of each quota, as providers reserve it."""
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
    said = {
        QuotaKind.INPUT_TOKENS: read,
        QuotaKind.OUTPUT_TOKENS: written,
        QuotaKind.TOKENS: total,
    }
    return {kind: count for kind, count in said.items() if count is not None}


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
        case _:  # the ledger was away: nothing was sent
            return CallResult.UNSENT
