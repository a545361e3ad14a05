"""Records every request in the ledger: a row before it is sent, completed afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Protocol, TypeAlias
from uuid import UUID, uuid4

import structlog

from chordwise.domain.analysis_tasks import AnalysisType, Stage
from chordwise.domain.tiers import Route
from chordwise.errors import ChordwiseError, RefusedError
from chordwise.llm.model import (
    Completion,
    CompletionRequest,
    FinishReason,
    Middleware,
    ModelProfile,
)
from chordwise.llm.prices import CostBasis, Price, booked_cost, booked_failure
from chordwise.telemetry import metrics

log = structlog.get_logger(__name__)
CallId: TypeAlias = UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStart:
    """A model call before it is made; `examples` are the ids of learned examples in its prompt.

    `max_cost` returns its maximum cost in US dollars, `None` if the price is unknown; a call on
    this machine has none. `timeout_seconds` is the time left for it. No two calls in flight have
    the same `question`, unless it is empty.
    """

    provider: str
    model: str
    stage: Stage
    analysis_type: AnalysisType
    prompt_version: str
    attempt: int
    sample: int = 1
    route: Route | None = None
    examples: tuple[UUID, ...] = ()
    question: str = ""
    max_cost: Callable[[], Decimal | None] | None = None
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOutcome:
    """The outcome of a model call; `None` means unknown, never zero.

    `reference_cost_usd` is the cost of the same tokens at the largest tier; it is computed for one
    request of each routed question.
    """

    latency_ms: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    cost_usd: Decimal | None = None
    cost_basis: CostBasis | None = None
    reference_cost_usd: Decimal | None = None
    response_length: int | None = None
    service_tier: str | None = None
    finish_reason: FinishReason | None = None
    refused: bool = False
    error_code: str | None = None
    error_message: str | None = None
    response_id: str | None = None


class CallLedger(Protocol):
    """Records model calls, each one separately and immediately."""

    def begin(self, start: CallStart) -> CallId:
        """Record a call that is about to be made; the row remains if the call never finishes.

        Raises:
            AlreadyAskedError: Another call asks the same `question`.
            BudgetReservedError: The money is available, but reserved by other calls.
            BudgetExceededError: The remaining budget is too small.
            ConfigurationError: There is a cap, and the price is unknown.
            ServiceUnavailableError: The ledger is unavailable.
        """

    def finish(self, call_id: CallId, outcome: CallOutcome) -> None:
        """Complete the call's row."""

    def withdraw(self, call_id: CallId) -> None:
        """Delete the row of a call that was not made."""


class NullLedger:
    """Records nothing, for use as a library."""

    def begin(self, start: CallStart) -> CallId:  # noqa: ARG002 - the signature is the port's
        """Return an id that is not stored."""
        return uuid4()

    def finish(self, call_id: CallId, outcome: CallOutcome) -> None:
        """Do nothing."""

    def withdraw(self, call_id: CallId) -> None:
        """Do nothing."""


def call_start(
    profile: ModelProfile,
    request: CompletionRequest,
    max_cost: Callable[[], Decimal | None] | None = None,
) -> CallStart:
    """Return the ledger's data about a request before it is made."""
    shown = request.task.examples if request.task.shows_examples else ()
    return CallStart(
        provider=profile.provider,
        model=profile.model,
        stage=request.task.stage,
        analysis_type=request.task.analysis_type,
        prompt_version=request.prompt_version,
        attempt=request.attempt,
        sample=request.task.sample,
        route=request.route,
        examples=tuple(example.id for example in shown if example.id is not None),
        question=request.question,
        max_cost=max_cost,
        timeout_seconds=request.timeout_seconds,
    )


def outcome_of_answer(
    completion: Completion, price: Price, reference: Price | None, prompt_tokens: float
) -> CallOutcome:
    """Return the ledger's data about an answer to a prompt, without a latency."""
    cost = booked_cost(price, completion, prompt_tokens)
    if cost.basis is CostBasis.ESTIMATED:
        log.warning(
            "model.cost_implausible",
            model=completion.model,
            reported_usd=str(completion.reported_cost_usd),
            input_tokens=completion.usage.input_tokens,
            output_tokens=completion.usage.output_tokens,
            estimated_usd=str(cost.usd),
            hint='If the model costs nothing, set price = "free" (docs/costs.md).',
        )
    # The reference is the price of another model, not of the one that the answer names.
    compared_usd = reference.cost_usd(replace(completion, model="")) if reference else None
    return CallOutcome(
        **asdict(completion.usage),
        cost_usd=cost.usd,
        cost_basis=cost.basis,
        reference_cost_usd=compared_usd,
        response_length=len(completion.text),
        service_tier=completion.service_tier or None,
        finish_reason=completion.finish_reason,
        refused=completion.finish_reason is FinishReason.REFUSAL,
        response_id=completion.response_id or None,
    )


def count_call(provider: str, model: str, outcome: CallOutcome | None) -> None:
    """Count a call that has ended, or a cache hit (`None`), for the metrics of this process."""
    counters = metrics.counters
    if counters is None:
        return
    labels = (provider, metrics.label_of(provider, model))
    if outcome is None:
        counters.calls.labels(*labels, "cached").inc()
        return
    answered = "refused" if outcome.refused else "answered"
    counters.calls.labels(*labels, outcome.error_code or answered).inc()
    counters.tokens.labels(*labels, "input").inc(outcome.input_tokens or 0)
    counters.tokens.labels(*labels, "cached_input").inc(outcome.cached_input_tokens or 0)
    counters.tokens.labels(*labels, "output").inc(outcome.output_tokens or 0)
    counters.cost_usd.labels(*labels).inc(float(outcome.cost_usd or 0))
    if outcome.latency_ms is not None:
        counters.seconds.labels(*labels).observe(outcome.latency_ms / 1000)


@dataclass(slots=True, eq=False)
class Metered(Middleware):
    """Writes one ledger row for every request, answered or not, with its cost and latency.

    `reference` is the price of the largest tier, for the comparison of routed questions. Only a
    model that `is_billed` takes part in budgets. `wait` is
    called after a request is recorded, and returns when it may be sent; if it raises, nothing is
    sent and the row is withdrawn. `clock` returns seconds and is monotonic.
    """

    ledger: CallLedger
    price: Price
    clock: Callable[[], float] = time.monotonic
    reference: Price | None = None
    wait: Callable[[], None] = lambda: None
    is_billed: bool = False

    def complete(self, request: CompletionRequest) -> Completion:
        """Send one request and record it; `call_id` of the completion is its row.

        Raises:
            ModelError: The error of the wrapped model, or of the budget.
            ConfigurationError: There is a cap, and the price is unknown.
            ServiceUnavailableError: The ledger is unavailable. If that happens before the request,
                none is sent.
        """
        max_cost = partial(self.price.max_usd, request) if self.is_billed else None
        call_id = self.ledger.begin(call_start(self.profile, request, max_cost))
        try:
            self.wait()
        except ChordwiseError:
            self.ledger.withdraw(call_id)
            raise
        started = self.clock()
        try:
            completion = self.model.complete(replace(request, call_id=str(call_id)))
        except ChordwiseError as error:
            self._finish(call_id, self._failure(error, self._milliseconds_since(started)))
            raise
        latency_ms = self._milliseconds_since(started)
        is_compared = request.route is not None and request.route.is_compared
        reference = self.reference if is_compared else None
        outcome = outcome_of_answer(completion, self.price, reference, request.estimated_tokens)
        self._finish(call_id, replace(outcome, latency_ms=latency_ms))
        return replace(completion, call_id=str(call_id))

    def _finish(self, call_id: CallId, outcome: CallOutcome) -> None:
        self.ledger.finish(call_id, outcome)
        count_call(self.profile.provider, self.profile.model, outcome)

    def _milliseconds_since(self, started: float) -> int:
        return round((self.clock() - started) * 1000)

    def _failure(self, error: ChordwiseError, latency_ms: int) -> CallOutcome:
        cost = booked_failure(self.price, error)
        return CallOutcome(
            latency_ms=latency_ms,
            cost_usd=cost.usd,
            cost_basis=cost.basis,
            refused=isinstance(error, RefusedError),
            error_code=error.code,
            error_message=error.what,
        )
