"""The batch lane: prepares batches, exchanges them with the provider and stores their answers.

One process does this, in steps that a crash may interrupt anywhere: each step is recorded in the
database before it is executed, and no transaction is open during a request to the provider.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from itertools import islice

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chordwise.domain import json_values, tokens
from chordwise.domain.identifiers import id_in
from chordwise.domain.states import BatchRequestStatus, BatchStatus
from chordwise.errors import (
    ConfigurationError,
    ContextTooLongError,
    ModelError,
    ModelOverloadedError,
    ModelTransportError,
    PausingError,
    RateLimitedError,
    RefusedError,
    ServiceUnavailableError,
    TransientError,
)
from chordwise.llm.batching import (
    BatchApi,
    BatchLine,
    BatchPhase,
    BatchState,
    LineOutcome,
    PreparedBatch,
)
from chordwise.llm.middleware.cached import is_cacheable
from chordwise.llm.middleware.metered import CallOutcome, count_call, outcome_of_answer
from chordwise.llm.model import Completion
from chordwise.llm.prices import BATCH, CostBasis, Price
from chordwise.pipeline.models.batch_queue import from_json, to_json
from chordwise.pipeline.models.ledger import completion_to_json, hit_of
from chordwise.pipeline.runtime.context import Context
from chordwise.storage import batches, budgets, cached_completions, clock, model_calls
from chordwise.storage.batches import Batch, BatchRequest
from chordwise.storage.jobs import Job
from chordwise.storage.record import new_id
from chordwise.storage.runs import Run

log = structlog.get_logger(__name__)
_SLICE = 100
# Providers end a batch after a day, and keep its results for weeks.
_LONGEST = timedelta(days=3)
_GROWTH = 1.5
_MAX_WAIT_SECONDS = 3_600


def tick(context: Context) -> None:
    """Prepare and submit the waiting questions, and poll each batch that is due.

    Raises:
        ServiceUnavailableError: The database cannot be reached; no data is lost.
    """
    _Batches(context).tick()


class _CancelledQuestionsError(ModelOverloadedError):
    """A batch contains questions of a cancelled run; the others are put into another batch."""


class _Batches:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._commit = context.database.commit
        self._settings = context.settings.batch

    def tick(self) -> None:
        prepare(self._context)
        for batch in self._commit(batches.due):
            try:
                api = self._context.models.batch_api(batch.model_name)
                if batch.provider_id is None:
                    self._submit(api, batch)
                else:
                    self._follow(api, batch, api.retrieve(batch.provider_id))
            except ServiceUnavailableError:
                raise
            except (ModelError, ConfigurationError) as error:
                self._postpone(batch, error)
            except Exception as defect:  # a defect must not block the other batches
                log.exception("batch.defect", batch_id=str(batch.id))
                what = f"An internal error occurred ({type(defect).__name__}); see the log."
                self._postpone(batch, ModelTransportError(what))

    def _submit(self, api: BatchApi, batch: Batch) -> None:
        """Create the batch, unless an earlier attempt did so and its response was lost.

        While the outcome of an earlier attempt is unknown, the batch is not rejected.
        """
        rows = self._commit(lambda s: batches.of_batch(s, batch.id))
        prepared = PreparedBatch(
            marker=str(batch.id),
            prepared_at=batch.created_at,
            lines=[_line_of(row) for row in rows],
            upload=batch.upload_id or "",
        )
        state = None
        if batch.attempted_at is not None:
            state = api.find(prepared, self._commit(batches.provider_ids))
        if state is None and not self._is_needed(batch):
            self._reject(batch, ModelOverloadedError("No job waits for this batch now."))
            return
        try:
            state = state or self._create(api, batch, prepared)
        except ModelError as error:
            is_cancelled = isinstance(error, _CancelledQuestionsError)
            if isinstance(error, TransientError) and not is_cancelled:
                raise
            self._reject(batch, error)
            return
        if state is None:
            # Another leader is creating it; it cannot be found until that is done.
            longest = timedelta(seconds=self._settings.max_poll_seconds)
            self._commit(lambda s: batches.postpone(s, batch.id, longest))
            return
        self._commit(
            lambda s: batches.postpone(
                s,
                batch.id,
                timedelta(seconds=self._settings.poll_seconds),
                status=BatchStatus.RUNNING,
                provider_id=state.provider_id,
                provider_status=state.status,
                submitted_at=clock.database_now(),
                expires_at=state.expires_at,
                error_code=None,
                error_message=None,
            )
        )
        log.info("batch.submitted", batch_id=str(batch.id), provider_id=state.provider_id)

    def _create(self, api: BatchApi, batch: Batch, prepared: PreparedBatch) -> BatchState | None:
        """Create the batch; `None` if another leader is creating it."""
        self._commit(lambda s: _require_no_cancelled(s, batch))
        upload = prepared.upload or api.upload(prepared)

        def attempt(session: Session) -> bool:
            _require_no_cancelled(session, batch)
            return batches.attempt(session, batch, upload)

        if not self._commit(attempt):
            log.warning("batch.created_elsewhere", batch_id=str(batch.id))
            return None
        return api.create(replace(prepared, upload=upload))

    def _is_needed(self, batch: Batch) -> bool:
        return self._commit(lambda s: batches.has_waiting_jobs(s, batch.id))

    def _follow(self, api: BatchApi, batch: Batch, state: BatchState) -> None:
        match state.phase:
            case BatchPhase.RUNNING:
                self._wait_for(api, batch, state)
            case BatchPhase.FAILED:
                error = state.error or ModelOverloadedError("The provider rejected the batch.")
                self._reject(batch, error)
            case BatchPhase.ENDED:
                self._fetch(api, batch, state)

    def _wait_for(self, api: BatchApi, batch: Batch, state: BatchState) -> None:
        """Postpone the next poll; cancel an unneeded batch, and give up one that does not end."""
        if self._is_lost(batch):
            self._abandon(batch, "The provider has not finished it within three days.")
            return
        values: dict[str, object] = {
            "provider_status": state.status,
            "counts": dict(state.counts),
            "error_code": None,
            "error_message": None,
        }
        if not self._is_needed(batch) and batch.cancel_asked_at is None:
            api.cancel(state.provider_id)
            values["cancel_asked_at"] = clock.database_now()
            log.info("batch.cancelled", batch_id=str(batch.id), provider_id=state.provider_id)
        self._commit(lambda s: batches.postpone(s, batch.id, self._pause(batch.polls), **values))

    def _fetch(self, api: BatchApi, batch: Batch, state: BatchState) -> None:
        """Store the results in slices; results that were stored before are skipped."""
        arrivals = self._arrivals(batch)
        stored = 0
        outcomes = api.results(state)
        while some := list(islice(outcomes, _SLICE)):
            stored += self._commit(partial(arrivals.store, outcomes=some))
        missing = ModelTransportError("The provider's result files do not contain this question.")
        lacking = self._store_for_all(arrivals, missing)
        self._end(batch, BatchStatus.ENDED, state)
        log.info("batch.ended", batch_id=str(batch.id), stored=stored, missing=lacking)

    def _reject(self, batch: Batch, error: ModelError) -> None:
        """End a batch that the provider did not accept.

        Errors that a person has to resolve pause the jobs, as they do online. After any other error
        the questions are submitted again in another batch, and finally asked online one by one.
        """
        outcome: ModelError = error
        if not isinstance(error, TransientError | PausingError):
            outcome = ModelOverloadedError(error.what, error.hint)
        self._store_for_all(self._arrivals_after(batch, error), outcome)
        self._end(batch, BatchStatus.FAILED, None, error)
        log.warning("batch.rejected", batch_id=str(batch.id), code=error.code, what=error.what)

    def _store_for_all(self, arrivals: Arrivals, outcome: ModelError) -> int:
        total = 0
        while count := self._commit(lambda s: arrivals.store_missing(s, outcome, _SLICE)):
            total += count
        return total

    def _end(
        self,
        batch: Batch,
        status: BatchStatus,
        state: BatchState | None,
        error: ModelError | None = None,
    ) -> None:
        values: dict[str, object] = {
            "status": status,
            "ended_at": clock.database_now(),
            "error_code": error.code if error else None,
            "error_message": error.what if error else None,
        }
        if state is not None:
            values |= {"provider_status": state.status, "counts": dict(state.counts)}
        self._commit(lambda s: batches.change(s, batch.id, **values))

    def _postpone(self, batch: Batch, error: ModelError | ConfigurationError) -> None:
        """Postpone the next poll after an error, or give the batch up if it is too old."""
        if self._is_lost(batch):
            self._abandon(batch, error.what)
            return
        log.warning("batch.postponed", batch_id=str(batch.id), code=error.code, what=error.what)
        known = {"error_code": error.code, "error_message": error.what}
        seconds = error.retry_after_seconds if isinstance(error, TransientError) else None
        requested = timedelta(seconds=min(seconds or 0, _MAX_WAIT_SECONDS))
        pause = max(self._pause(batch.polls), requested)
        self._commit(lambda s: batches.postpone(s, batch.id, pause, **known))

    def _is_lost(self, batch: Batch) -> bool:
        return self._commit(lambda s: batches.is_older(s, batch.id, _LONGEST))

    def _abandon(self, batch: Batch, reason: str) -> None:
        lost = ModelTransportError(f"The batch is lost: {reason}")
        self._store_for_all(self._arrivals(batch), lost)
        self._end(batch, BatchStatus.FAILED, None, lost)

    def _pause(self, times: int) -> timedelta:
        """Return the time until the next poll: it grows with each poll, up to a limit."""
        seconds = self._settings.poll_seconds * _GROWTH ** min(times, 50)
        return timedelta(seconds=min(seconds, self._settings.max_poll_seconds))

    def _arrivals_after(self, batch: Batch, error: ModelError) -> Arrivals:
        """Return the `Arrivals` that record the rejection of a batch.

        A batch that was too large, or that a cancellation stopped, does not count as an attempt.
        """
        arrivals = self._arrivals(batch)
        if isinstance(error, _CancelledQuestionsError):
            return replace(arrivals, counts_as_attempt=False)
        too_long = isinstance(error, ContextTooLongError) and batch.request_count > 1
        if not (too_long or isinstance(error, RateLimitedError)):
            return arrivals
        times = len(self._commit(lambda s: rejected_batch_sizes(s, batch.model_name)))
        return replace(arrivals, delay=self._pause(times), counts_as_attempt=False)

    def _arrivals(self, batch: Batch) -> Arrivals:
        price, reference = self._context.models.batch_prices(batch.model_name)
        return Arrivals(
            batch_id=batch.id,
            price=price,
            reference=reference,
            uses_cache=self._context.settings.cache.enabled,
            delay=timedelta(seconds=self._settings.poll_seconds),
        )


def _require_no_cancelled(session: Session, batch: Batch) -> None:
    """Reject a batch with unneeded questions of cancelled runs; lock its runs until the commit."""
    if batches.has_cancelled(session, batch.id):
        raise _CancelledQuestionsError(
            "A run was cancelled before this batch was submitted; other runs ask again."
        )


def _line_of(row: BatchRequest) -> BatchLine:
    return BatchLine(custom_id=str(row.call_id), body=json_values.as_object(json.loads(row.body)))


MAX_BYTES = 32 * 1024 * 1024
"""Far below the limits of providers (200 and 256 MB), because a batch is in memory when sent."""
# The provider rejected the batch, or a gateway its file, as too large: a smaller one may fit.
_TOO_MUCH = (RateLimitedError.code, ContextTooLongError.code)
_REMEMBERED = timedelta(days=1)


def prepare(context: Context) -> None:
    """Combine the questions that are ready into batches, one transaction each; nothing is sent."""
    settings = context.settings.batch
    gather, max_requests = timedelta(seconds=settings.gather_seconds), settings.max_requests
    with context.database.write() as session:
        ready = batches.ready_models(session, gather, max_requests, MAX_BYTES)
    for name in ready:
        with context.database.write() as session:
            if size := _size(session, name, max_requests):
                _create_batch(session, name, size)


def rejected_batch_sizes(session: Session, name: str) -> Sequence[int]:
    """Return the sizes of a model's batches that were too large within a day, newest first."""
    return batches.refused_sizes(session, name, _TOO_MUCH, _REMEMBERED)


def _size(session: Session, name: str, max_requests: int) -> int:
    """Return how many questions a batch may have now; 0 if no batch may be prepared.

    After a batch was too large for the provider, the next one has half of its size, and is prepared
    only while no other batch of the model is open.
    """
    too_large = rejected_batch_sizes(session, name)
    if not too_large:
        return max_requests
    return 0 if batches.is_open(session, name) else min(max_requests, max(1, too_large[0] // 2))


def _create_batch(session: Session, name: str, size: int) -> None:
    rows = batches.lock_next(session, name, size, MAX_BYTES)
    if not rows:
        return
    batch = Batch(
        id=new_id(),
        provider=json_values.text(rows[0].call.get("provider")),
        model=json_values.text(rows[0].call.get("model")),
        model_name=name,
        request_count=len(rows),
    )
    session.add(batch)
    session.flush()
    for row in rows:
        call_id = new_id()
        attempt = int(json_values.number(row.call.get("attempt")) or 1) + row.attempts
        known = {"id": call_id, "job_id": row.job_id, "chunk_id": row.chunk_id, "cache_hit": False}
        model_calls.begin_all(session, [{**row.call, **known, "attempt": attempt}])
        row.call_id = call_id
        row.batch_id, row.status = batch.id, BatchRequestStatus.SUBMITTED
        row.attempts += 1
    log.info("batch.prepared", batch_id=str(batch.id), model=batch.model, count=len(rows))


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
        rows = batches.with_lines(session, self.batch_id, call_ids, len(call_ids))
        return self._store(session, {row: by_call[row.call_id] for row in rows})

    def store_missing(self, session: Session, error: ModelError, limit: int) -> int:
        """Store an error for at most `limit` lines without an outcome; return their number."""
        rows = batches.with_lines(session, self.batch_id, None, limit)
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
        count_call(
            json_values.text(row.call["provider"]), json_values.text(row.call["model"]), outcome
        )
        row.answer, row.finished_at = to_json(answer), clock.read(session)
        if row.status == BatchRequestStatus.SUBMITTED:
            row.status = BatchRequestStatus.ANSWERED
        of_job = select(Run.use_cache).join(Job, Job.run_id == Run.id).where(Job.id == row.job_id)
        if self.uses_cache and is_cacheable(answer) and session.scalar(of_job):
            cached_completions.store(session, row.key, completion_to_json(answer))
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
        count_call(
            json_values.text(row.call["provider"]), json_values.text(row.call["model"]), outcome
        )
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
    followers = batches.lock_followers(session, leaders)
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
