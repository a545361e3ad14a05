"""The ledger of model calls in PostgreSQL: each call is recorded before it is made.

Its answer is kept in the cache of completions with its end.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal

import structlog
import tenacity

from chordwise.domain import json_values, money
from chordwise.domain.json_values import JsonObject
from chordwise.errors import BudgetReservedError, ChordwiseError, ServiceUnavailableError
from chordwise.llm.middleware.cached import Lookup
from chordwise.llm.middleware.metered import CallOutcome, CallStart
from chordwise.llm.model import EXTRACTIVE, Completion, FinishReason, Usage
from chordwise.llm.prices import CostBasis
from chordwise.pipeline.asking.check import CheckResult
from chordwise.pipeline.models.budgets import reservation_of
from chordwise.settings import Settings
from chordwise.storage.cached_completions import CompletionStore
from chordwise.storage.chunk_work import CallEntry
from chordwise.storage.database import Database
from chordwise.storage.record import new_id

log = structlog.get_logger(__name__)
# Before anything is paid for, there is no reason to wait for long.
_BEGIN_TIMEOUT = timedelta(seconds=15)
_CACHE_TIMEOUT = timedelta(seconds=5)
MAX_WAIT_SECONDS = 10.0
"""A call that waits for money may hold a permit and a slot; with a longer wait it is postponed."""
_sleep = time.sleep  # noqa: TID251 - the sleep function of this module
_IDS = ("id", "run_id", "job_id", "chunk_id")


@dataclass(slots=True, kw_only=True)
class Ledger:
    """Records the calls of one chunk, one synthesis (no chunk) or one sample (no job).

    Calls that read a page of a document have its `source` and the run that takes it in. If a budget
    `is_limited`, a call reserves its maximum cost when it begins.

    A call is committed before it is made. Its end is stored with the next entry or with the end of
    the work, which takes it (`pop_ended`); an error is stored at once. The end of an answered call
    waits for an unavailable database. With the `token` of a claim, no call starts once the claim is
    lost. `completions` is the cache, `None` without one: an answer is stored there with the end of
    its call, unless it is invalid or incomplete. `enter` stores an entry and waits for the database
    up to the given time. A ledger belongs to one thread.
    """

    enter: Callable[[CallEntry, timedelta], ChordwiseError | None]
    settings: Settings
    is_limited: bool = False
    job_id: uuid.UUID | None = None
    chunk_id: uuid.UUID | None = None
    token: uuid.UUID | None = None
    run_id: uuid.UUID | None = None
    source: str | None = None
    completions: CompletionStore | None = None
    sleep: Callable[[float], None] = _sleep
    _ended: dict[str, dict[str, object]] = field(default_factory=dict)

    @property
    def cache(self) -> Ledger | None:
        """The ledger, if answers are read from the cache and kept in it."""
        return self if self.completions else None

    def begin(self, start: CallStart) -> uuid.UUID:
        """Record a call that is about to be made, and reserve its maximum cost.

        It waits up to `MAX_WAIT_SECONDS` for money that other calls have reserved.

        Raises:
            LeaseLostError: The run is cancelled, or another worker has claimed the work.
            BudgetReservedError: The money is there, but reserved by other calls.
            BudgetExceededError: The remaining budget is too small.
            ConfigurationError: There is a cap, and the price is unknown.
        """
        call_id = new_id()
        row, token = self._row(call_id, start), self.token
        if not self.is_limited or start.max_cost is None:
            lasts = self._longest(start) if start.question else None
            self._begin(CallEntry(begun=row, token=token, lasts=lasts))
            return call_id
        reservation = reservation_of(self.settings, start.max_cost())
        row["reserved_usd"] = reservation.amount_usd
        lasts = self._longest(start)
        waiting_for_money = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(BudgetReservedError),
            wait=tenacity.wait_random_exponential(multiplier=0.1, min=0.05, max=1),
            stop=lambda state: state.idle_for + state.upcoming_sleep > MAX_WAIT_SECONDS,
            sleep=self.sleep,
            reraise=True,
        )
        entry = CallEntry(begun=row, token=token, lasts=lasts, reservation=reservation)
        waiting_for_money(self._begin, entry)
        return call_id

    def _longest(self, start: CallStart) -> timedelta:
        """Return how long a call may take, with the time to store its end."""
        seconds = start.timeout_seconds or self.settings.retries.total_seconds
        return timedelta(seconds=seconds + self.settings.pipeline.lease_seconds)

    def _begin(self, entry: CallEntry) -> None:
        ended = self.pop_ended()
        try:
            refusal = self.enter(replace(entry, ended=ended), _BEGIN_TIMEOUT)
        except BaseException:
            self.restore_ended(ended)
            raise
        if refusal is not None:
            raise refusal

    def withdraw(self, call_id: uuid.UUID) -> None:
        """Delete the row of a call that was not made."""
        self.enter(CallEntry(withdrawn=(call_id,)), self._timeout)

    def record_hit(self, start: CallStart, completion: Completion, latency_ms: int) -> uuid.UUID:
        """Record a cache hit: no request, no tokens, no cost."""
        call_id = new_id()
        begun = self._row(call_id, start) | {"cache_hit": True}
        known = hit_of(completion) | {"id": str(call_id), "latency_ms": latency_ms}
        self.enter(CallEntry(begun=begun), _BEGIN_TIMEOUT)
        self._ended[str(call_id)] = known
        return call_id

    def find(self, key: str) -> Completion | Lookup:
        """Return the cached completion of a question, or whether another owner asks it.

        Answers for the cache are stored first, since others may wait for them, as are the costs of
        calls under a budget, whose reservations others may need.
        """
        if self.completions is None:
            return Lookup.UNKNOWN
        if any({"completion", "charged_usd"} & call.keys() for call in self._ended.values()):
            self.flush()
        try:
            state = self.completions.find(key)
        except ServiceUnavailableError as error:
            log.warning("cache.unreachable", reason=error.what)
            return Lookup.UNKNOWN
        if state is not None and state.completion is not None:
            return completion_from_json(state.completion)
        owner = self.chunk_id or self.job_id or self.run_id
        is_free = state is None or (owner is not None and state.owner == owner)
        return Lookup.FREE if is_free else Lookup.ASKED

    def keep(self, key: str, completion: Completion) -> None:
        """Store the completion in the cache with the end of its call, unless its check fails."""
        call = self._ended[completion.call_id]
        call.update(question=key, completion=completion_to_json(completion))

    def finish(self, call_id: uuid.UUID, outcome: CallOutcome) -> None:
        """Record how a call ended."""
        known = {name: getattr(outcome, name) for name in CallOutcome.__dataclass_fields__}
        if self.is_limited:
            cost_usd = outcome.cost_usd
            known["charged_usd"] = None if cost_usd is None else money.rounded_up(cost_usd)
        self._ended[str(call_id)] = {**known, "id": str(call_id)}
        if outcome.error_code is not None:
            self.flush()

    def check(self, completion: Completion, verdict: CheckResult) -> None:
        """Record the result of checking the answer beside its call."""
        known = self._ended.get(completion.call_id)
        if not (verdict.valid and verdict.is_complete):
            self._discard(completion.cache_key, known or {})
        if known is not None:
            known.update(valid=verdict.valid, quality=verdict.quality)
        elif completion.call_id:
            checked = {"id": completion.call_id, "valid": verdict.valid, "quality": verdict.quality}
            self.enter(CallEntry(checked=(checked,)), self._timeout)
        if self.job_id is None:
            self.flush()

    def _discard(self, key: str, call: dict[str, object]) -> None:
        """Keep an unusable completion out of the cache, or delete it there."""
        call.pop("question", None)
        if call.pop("completion", None) is None and key and self.completions is not None:
            try:
                self.completions.discard(key, _CACHE_TIMEOUT)
            except ServiceUnavailableError as error:
                log.warning("cache.unreachable", reason=error.what)

    def pop_ended(self) -> list[dict[str, object]]:
        """Return the ends of calls that are not stored yet; the caller stores them."""
        ended, self._ended = list(self._ended.values()), {}
        return ended

    def restore_ended(self, ended: Sequence[Mapping[str, object]]) -> None:
        """Put ends of calls that could not be stored back into the ledger."""
        self._ended = {str(call["id"]): dict(call) for call in ended} | self._ended

    def flush(self) -> None:
        """Store the ends of calls that are not stored yet."""
        if not self._ended:
            return
        ended = self.pop_ended()
        try:
            self.enter(CallEntry(ended=ended), self._timeout)
        except BaseException:
            self.restore_ended(ended)
            raise

    @property
    def _timeout(self) -> timedelta:
        return timedelta(seconds=self.settings.pipeline.database_outage_timeout_seconds)

    def _row(self, call_id: uuid.UUID, start: CallStart) -> dict[str, object]:
        ids = (call_id, self.run_id, self.job_id, self.chunk_id)
        row = {name: str(id_) if id_ else None for name, id_ in zip(_IDS, ids, strict=True)}
        row |= {"source": self.source, "question": start.question or None}
        return {**row, **row_of(start), "cache_hit": False}


def row_of(start: CallStart) -> JsonObject:
    """Return the columns of a ledger row that are known before the call is made."""
    return {
        "stage": start.stage.value,
        "provider": start.provider,
        "model": start.model,
        "language_model": start.provider != EXTRACTIVE,
        "prompt_version": start.prompt_version,
        "attempt": start.attempt,
        "sample": start.sample,
        "examples": [str(example_id) for example_id in start.examples] or None,
        "tier": start.route.tier.value if start.route else None,
        "escalated": start.route.escalated if start.route else None,
    }


def hit_of(completion: Completion) -> dict[str, object]:
    """Return the ledger entry of an answer that took no request: no tokens, no cost."""
    return {
        "cache_hit": True,
        "input_tokens": 0,
        "output_tokens": 0,
        "cost_usd": Decimal(0),
        "cost_basis": CostBasis.NOT_BILLED.value,
        "response_length": len(completion.text),
        "response_id": completion.response_id or None,
        "finish_reason": completion.finish_reason.value,
        "refused": completion.finish_reason is FinishReason.REFUSAL,
    }


_COUNTS = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens")


def completion_store(settings: Settings, database: Database) -> CompletionStore | None:
    """Return the cache of a process, or `None` if the settings disable it."""
    if not settings.cache.enabled:
        return None
    return CompletionStore(database, timedelta(days=settings.cache.max_age_days))


def completion_to_json(completion: Completion) -> JsonObject:
    """Return a clean completion as it is stored in the table."""
    usage: JsonObject = {name: getattr(completion.usage, name) for name in _COUNTS}
    return {
        "text": completion.text,
        "provider": completion.provider,
        "model": completion.model,
        "response_id": completion.response_id,
        "service_tier": completion.service_tier,
        "usage": usage,
    }


def completion_from_json(stored: JsonObject) -> Completion:
    """Return the completion that `completion_to_json` has written."""
    usage = json_values.as_object(stored.get("usage") or {})
    counts = {name: count for name in _COUNTS if isinstance(count := usage.get(name), int)}
    return Completion(
        text=json_values.text(stored.get("text")),
        finish_reason=FinishReason.STOP,
        usage=Usage(**counts),
        provider=json_values.text(stored.get("provider")),
        model=json_values.text(stored.get("model")),
        response_id=json_values.text(stored.get("response_id")),
        service_tier=json_values.text(stored.get("service_tier")),
    )
