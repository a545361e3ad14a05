"""Stores the outcomes of a batch: in the ledger, the budget and the cache, and for waiting jobs."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from decimal import Decimal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chordwise.domain import tokens
from chordwise.domain.identifiers import id_in
from chordwise.domain.json_values import text
from chordwise.domain.states import BatchRequestStatus
from chordwise.errors import ModelError, ModelTransportError, RefusedError, TransientError
from chordwise.llm.batching import LineOutcome
from chordwise.llm.middleware.cached import is_cacheable
from chordwise.llm.middleware.metered import CallOutcome, count_call, outcome_of_answer
from chordwise.llm.model import Completion
from chordwise.llm.prices import BATCH, CostBasis, Price
from chordwise.pipeline.models import answer_cache
from chordwise.pipeline.models.batch_queue import from_json, to_json
from chordwise.pipeline.models.ledger import hit_of
from chordwise.storage import batch_requests, budgets, cached_completions, clock, model_calls
from chordwise.storage.batch_requests import BatchRequest
from chordwise.storage.jobs import Job
from chordwise.storage.record import new_id
from chordwise.storage.runs import Run

MAX_ATTEMPTS = 3
"""The number of batches that are tried for a question before it is asked online."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """Stores the outcomes of one batch; `reference` is the price of the largest tier.

    `uses_cache` is the setting of the cache. A question with a transient error is due again after
    `delay`. `counts_as_attempt` is false for a batch that was too large, or that a cancellation
    stopped.
    """

    batch_id: uuid.UUID
    price: Price
    reference: Price | None
    uses_cache: bool
    delay: timedelta
    counts_as_attempt: bool = True

    def store(self, session: Session, outcomes: Sequence[LineOutcome]) -> int:
        """Store the new outcomes of these lines, in any order; return how many were new."""
        by_call = {id_in(line.custom_id): line.outcome for line in outcomes}
        call_ids = [call_id for call_id in by_call if call_id is not None]
        rows = batch_requests.with_lines(session, self.batch_id, call_ids, len(call_ids))
        return self._store(session, {row: by_call[row.call_id] for row in rows})

    def store_missing(self, session: Session, error: ModelError, limit: int) -> int:
        """Store an error for at most `limit` lines without an outcome; return their number."""
        rows = batch_requests.with_lines(session, self.batch_id, None, limit)
        return self._store(session, dict.fromkeys(rows, error))

    def _store(
        self, session: Session, outcomes: Mapping[BatchRequest, Completion | ModelError]
    ) -> int:
        costs: dict[uuid.UUID, Decimal | None] = {}
        for row, outcome in outcomes.items():
            if isinstance(outcome, ModelError):
                cost = self._store_error(session, row, outcome)
            else:
                cost = self._store_answer(session, row, outcome)
            if row.finished_at is not None:
                costs[row.id] = cost
        _copy_to_followers(session, list(outcomes))
        session.flush()
        budgets.settle(session, costs)
        return len(outcomes)

    def _store_answer(
        self, session: Session, row: BatchRequest, completion: Completion
    ) -> Decimal | None:
        answer = replace(completion, service_tier=BATCH)
        reference = self.reference if row.is_compared else None
        outcome = outcome_of_answer(answer, self.price, reference, tokens.weigh(row.body))
        _finish_call(session, row, asdict(outcome))
        count_call(text(row.call["provider"]), text(row.call["model"]), outcome)
        row.answer, row.finished_at = to_json(answer), clock.read(session)
        if row.status == BatchRequestStatus.SUBMITTED:
            row.status = BatchRequestStatus.ANSWERED
        of_job = select(Run.use_cache).join(Job, Job.run_id == Run.id).where(Job.id == row.job_id)
        if self.uses_cache and is_cacheable(answer) and session.scalar(of_job):
            cached_completions.store(session, row.key, answer_cache.to_json(answer))
        return outcome.cost_usd

    def _store_error(
        self, session: Session, row: BatchRequest, error: ModelError
    ) -> Decimal | None:
        """Store an error; its cost is zero, or unknown if the answer was lost."""
        cost = None if isinstance(error, ModelTransportError) else Decimal(0)
        values: dict[str, object] = {
            "cost_usd": cost,
            "cost_basis": None if cost is None else CostBasis.NOT_BILLED.value,
            "service_tier": BATCH,
            "refused": isinstance(error, RefusedError),
            "error_code": error.code,
            "error_message": error.what,
        }
        _finish_call(session, row, values)
        outcome = CallOutcome(cost_usd=cost, error_code=error.code)
        count_call(text(row.call["provider"]), text(row.call["model"]), outcome)
        row.error_code, row.error_message, row.hint = error.code, error.what, error.hint or None
        again = isinstance(error, TransientError) and row.status == BatchRequestStatus.SUBMITTED
        if again and not self.counts_as_attempt:
            row.attempts -= 1
        if again and row.attempts < MAX_ATTEMPTS:
            row.status, row.batch_id, row.call_id = BatchRequestStatus.PENDING, None, None
            row.due_at = clock.read(session) + self.delay
            return cost
        row.finished_at = clock.read(session)
        if again:
            row.status = BatchRequestStatus.GIVEN_UP
        elif row.status == BatchRequestStatus.SUBMITTED:
            row.status = BatchRequestStatus.FAILED
        return cost


def _finish_call(session: Session, row: BatchRequest, values: Mapping[str, object]) -> None:
    """Complete the row of the ledger, without a latency, which is unknown."""
    if row.call_id is not None:
        finished_at = func.clock_timestamp()
        model_calls.change(session, row.call_id, finished_at=finished_at, **values)


def _copy_to_followers(session: Session, rows: Sequence[BatchRequest]) -> None:
    """Copy the outcomes of leading questions to their followers, and end the leadership.

    Questions without an outcome continue to lead. The ledger is written in bulk, because one
    question may lead thousands.
    """
    leaders = {row.key: row for row in rows if row.leads and row.finished_at is not None}
    followers = batch_requests.lock_followers(session, leaders)
    for row in leaders.values():
        row.leads = False
    if not followers:
        return
    now = clock.read(session)
    hits = {
        key: {**hit_of(from_json(leader)), "finished_at": now}
        for key, leader in leaders.items()
        if leader.answer is not None
    }
    answered = {new_id(): row for row in followers if row.key in hits}
    calls = [
        {**row.call, "id": id_, "job_id": row.job_id, "chunk_id": row.chunk_id, **hits[row.key]}
        for id_, row in answered.items()
    ]
    model_calls.add_all(session, calls)
    for id_, row in answered.items():
        row.call_id = id_
    for follower in followers:
        follower.finished_at, leader = now, leaders[follower.key]
        if leader.answer is None:
            follower.status, follower.hint = leader.status, leader.hint
            follower.error_code, follower.error_message = leader.error_code, leader.error_message
        else:  # also if it was too late for the leader
            follower.status, follower.answer = BatchRequestStatus.ANSWERED, leader.answer
