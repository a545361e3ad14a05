"""The ledger of model calls in PostgreSQL: each call is recorded before it is made."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal

from chordwise.domain.json_values import JsonObject
from chordwise.errors import LeaseLostError
from chordwise.llm.middleware.metered import CallOutcome, CallStart
from chordwise.llm.model import EXTRACTIVE, Completion, FinishReason
from chordwise.llm.prices import CostBasis
from chordwise.pipeline.asking.check import CheckResult
from chordwise.storage.chunk_work import CallEntry
from chordwise.storage.record import new_id

# Before anything is paid for, there is no reason to wait for long.
_BEGIN_TIMEOUT = timedelta(seconds=15)
_IDS = ("id", "run_id", "job_id", "chunk_id")


@dataclass(slots=True, kw_only=True)
class Ledger:
    """Records the calls of one chunk, one synthesis (no chunk) or one sample (no job).

    Calls that read a page of a document have its `source` and the run that takes it in.

    A call is committed before it is made. Its end is stored with the next entry or with the end of
    the work, which takes it (`pop_ended`); an error is stored at once. The end of an answered call
    waits `timeout` for an unavailable database. With the `token` of a claim, no call starts once
    the claim is lost. `discard` deletes an invalid or incomplete completion from the cache.
    `enter` stores an entry and waits for the database up to the given time. A ledger belongs to one
    thread.
    """

    enter: Callable[[CallEntry, timedelta], bool]
    timeout: timedelta
    job_id: uuid.UUID | None = None
    chunk_id: uuid.UUID | None = None
    token: uuid.UUID | None = None
    run_id: uuid.UUID | None = None
    source: str | None = None
    discard: Callable[[Completion], None] = lambda _completion: None
    _ended: dict[str, dict[str, object]] = field(default_factory=dict)

    def begin(self, start: CallStart) -> uuid.UUID:
        """Record a call that is about to be made.

        Raises:
            LeaseLostError: The run is cancelled, or another worker has claimed the work.
        """
        call_id = new_id()
        begun = self._row(call_id, start)
        ended = self.pop_ended()
        entry = CallEntry(begun=begun, token=self.token, ended=ended)
        try:
            begins = self.enter(entry, _BEGIN_TIMEOUT)
        except BaseException:
            self.restore_ended(ended)
            raise
        if not begins:
            raise LeaseLostError("The run was cancelled, or the work was taken over.")
        return call_id

    def withdraw(self, call_id: uuid.UUID) -> None:
        """Delete the row of a call that was not made."""
        self.enter(CallEntry(withdrawn=(call_id,)), self.timeout)

    def record_hit(self, start: CallStart, completion: Completion, latency_ms: int) -> uuid.UUID:
        """Record a cache hit: no request, no tokens, no cost."""
        call_id = new_id()
        begun = self._row(call_id, start) | {"cache_hit": True}
        known = hit_of(completion) | {"id": str(call_id), "latency_ms": latency_ms}
        self.enter(CallEntry(begun=begun), _BEGIN_TIMEOUT)
        self._ended[str(call_id)] = known
        return call_id

    def finish(self, call_id: uuid.UUID, outcome: CallOutcome) -> None:
        """Record how a call ended."""
        known = {name: getattr(outcome, name) for name in CallOutcome.__dataclass_fields__}
        self._ended[str(call_id)] = {**known, "id": str(call_id)}
        if outcome.error_code is not None or self.job_id is None:
            self.flush()

    def check(self, completion: Completion, verdict: CheckResult) -> None:
        """Record the result of checking the answer beside its call."""
        if not (verdict.valid and verdict.is_complete):
            self.discard(completion)
        known = self._ended.get(completion.call_id)
        if known is not None:
            known.update(valid=verdict.valid, quality=verdict.quality)
        elif completion.call_id:
            checked = {"id": completion.call_id, "valid": verdict.valid, "quality": verdict.quality}
            self.enter(CallEntry(checked=(checked,)), self.timeout)

    def pop_ended(self) -> list[dict[str, object]]:
        """Return the ends of calls that are not stored yet; the caller stores them."""
        ended, self._ended = list(self._ended.values()), {}
        return ended

    def restore_ended(self, ended: Sequence[Mapping[str, object]]) -> None:
        """Put ends of calls that could not be stored back into the ledger."""
        self._ended = {str(call["id"]): dict(call) for call in ended} | self._ended

    def flush(self) -> None:
        """Store the ends of calls that are not stored yet."""
        if self._ended:
            self.enter(CallEntry(ended=self.pop_ended()), self.timeout)

    def _row(self, call_id: uuid.UUID, start: CallStart) -> dict[str, object]:
        ids = (call_id, self.run_id, self.job_id, self.chunk_id)
        row = {name: str(id_) if id_ else None for name, id_ in zip(_IDS, ids, strict=True)}
        return {**row, "source": self.source, **row_of(start), "cache_hit": False}


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
