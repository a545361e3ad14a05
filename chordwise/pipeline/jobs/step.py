"""A step of a job in the hands of this worker: a leased chunk, or the synthesis of the job.

It ends, is postponed after a transient error, or pauses the jobs if intervention is needed;
`run_control.retry` continues paused jobs.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random
from typing import Generic, TypeVar

import structlog
from sqlalchemy import update
from sqlalchemy.orm import Session

from chordwise.domain.analysis_tasks import AnalysisTask
from chordwise.domain.grounding import Source
from chordwise.domain.states import WORKING_JOBS, JobStatus, Lane
from chordwise.errors import (
    AwaitingBatchError,
    ChordwiseError,
    ConfigurationError,
    InternalError,
    LeaseLostError,
    ModelError,
    PausingError,
    ServiceUnavailableError,
    TransientError,
)
from chordwise.llm.limits.permits import Priority
from chordwise.llm.middleware.batched import BatchQueue
from chordwise.llm.middleware.rate_limited import Turn
from chordwise.pipeline.asking import Question
from chordwise.pipeline.asking.question import policy_of
from chordwise.pipeline.models.batch_queue import JobBatches
from chordwise.pipeline.models.ledger import Ledger
from chordwise.pipeline.models.model_client import CallContext
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.leases import Lease
from chordwise.settings import PipelineSettings
from chordwise.storage import claims, jobs, leases, runs
from chordwise.storage.chunk_work import ChunkEnd, JobEnd, Outcome, Stored
from chordwise.storage.claims import ClaimedStep
from chordwise.storage.jobs import Job
from chordwise.storage.outbox import Urgency

log = structlog.get_logger(__name__)
Claimed = TypeVar("Claimed", bound=ClaimedStep)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Generic[Claimed]):
    """Claimed work with its lease, and the ledger and turn of its calls."""

    context: Context
    claimed: Claimed
    lease: Lease
    ledger: Ledger
    turn: Turn

    def question(self, task: AnalysisTask, source: Source) -> Question:
        """Return a question of this step, whose calls have its ledger, priority and cache.

        Raises:
            ConfigurationError: The model is unknown, or cannot be used as configured.
        """
        context, claimed, ledger = self.context, self.claimed, self.ledger
        completions = ledger.completions

        def batches(name: str) -> BatchQueue:
            return JobBatches(
                database=context.database,
                settings=context.settings if ledger.is_limited else None,
                job_id=claimed.job_id,
                chunk_id=ledger.chunk_id,
                model_name=name,
                max_age=completions.max_age if completions else None,
            )

        call_context = CallContext(
            ledger=ledger,
            priority=Priority(claimed.priority),
            cache=ledger.cache,
            turn=self.turn,
            batches=batches if claimed.lane == Lane.BATCH else None,
        )
        return Question(
            model=context.models.open(claimed.model, call_context),
            task=task,
            source=source,
            record_check=ledger.check,
            policy=policy_of(context.settings, self.lease.require),
        )

    def end(self, end: ChunkEnd | JobEnd) -> Outcome:
        """Store the end of the step and the ends of its calls, if the lease is still held.

        A paid answer waits while the database is unavailable; no other worker can claim the work
        during that time. If the end is refused, the ledger keeps the calls.

        Raises:
            LeaseLostError: Another worker has claimed the work.
            ServiceUnavailableError: The database was unavailable for too long.
        """
        self.lease.require()
        self.turn.finish()
        calls = self.ledger.pop_ended()
        stores, timeout = self.context.stores.chunks, self.context.outage_timeout
        try:
            stored = stores.end(replace(end, token=self.lease.token, calls=calls), timeout)
        except ServiceUnavailableError:
            raise
        except Exception:
            self.ledger.restore_ended(calls)
            raise
        if stored is Stored.LOST:
            raise LeaseLostError("Another worker has claimed the work.")
        return stored

    def perform(self, work: Callable[[], object], fail: Callable[[ChordwiseError], object]) -> bool:
        """Do the work, which ends the step; return false if it was postponed, paused or lost.

        A defect fails the step.

        Raises:
            ServiceUnavailableError: The database cannot be reached; recovery sends the work again.
        """
        try:
            try:
                work()
            except (PausingError, ConfigurationError) as error:
                self._pause(error)
                return False
            except (ModelError, AwaitingBatchError) as error:
                self._postpone(error)
                return False
        except LeaseLostError:
            self.context.leases.record_loss(self.lease, "answer")
            return False
        except ServiceUnavailableError:
            raise  # the database, not the model
        except Exception as error:  # a defect ends the step visibly
            log.exception("step.defect", **self.lease.names)
            name = "this chunk" if self.lease.chunk_id else "the synthesis"
            what = f"A bug in Chordwise stopped {name} ({type(error).__name__})."
            fail(InternalError(what, "See the worker's log."))
        return True

    def is_given_up(self, error: ChordwiseError) -> bool:
        """Return whether all postponements were used up by errors other than throttling."""
        used_up = self.claimed.postponements >= self.context.settings.pipeline.max_postponements
        return used_up and isinstance(error, TransientError) and not error.is_throttling

    def _postpone(self, error: ChordwiseError) -> None:
        """Let the work wait until a due time, with a message for it."""
        context, lease, work = self.context, self.lease, self.claimed
        delay = postponement(context.settings.pipeline, work.postponements, error, context.random)
        lease.require()
        for attempt in context.database.attempts(context.outage_timeout):
            with attempt as session:
                jobs.lock(session, lease.job_id)
                if claims.postpone(session, *lease.work, delay, error):
                    if lease.chunk_id is not None:
                        jobs.record_progress(session, [lease.job_id])
                        jobs.mark_waiting(session, lease.job_id)
                    urgency = Urgency.of_run(work.priority)
                    lease.promise(session, error.code, urgency=urgency, delay=delay)
                elif not leases.has_ended(session, *lease.work):
                    raise LeaseLostError("Another worker has claimed the work.")
        log.info("work.postponed", **lease.names, code=error.code, delay=str(delay))

    def _pause(self, error: ChordwiseError) -> None:
        """Release the work, and pause all jobs of its run that ask the same model.

        The message is for the case that this process is killed in between.
        """
        context, lease = self.context, self.lease
        for attempt in context.database.attempts(context.lease):
            with attempt as session:
                if leases.release(session, *lease.work):
                    urgency = Urgency.of_run(self.claimed.priority)
                    lease.promise(session, error.code, urgency=urgency, delay=context.lease)
        pause_jobs(context, lease.job_id, error)


@contextmanager
def working(context: Context, claimed: Claimed, lease: Lease) -> Iterator[Step[Claimed]]:
    """Hold the lease of claimed work inside the block, and store the ends of its calls after it.

    Raises:
        ServiceUnavailableError: The database cannot be reached; the lease is released later.
    """
    with context.leases.holding(lease), closing(context.models.turn()) as turn:
        ledger = ledger_of(context, claimed, lease)
        try:
            yield Step(context=context, claimed=claimed, lease=lease, ledger=ledger, turn=turn)
        finally:
            ledger.flush()


def ledger_of(context: Context, claimed: ClaimedStep, lease: Lease) -> Ledger:
    """Return the ledger of claimed work: no call starts once its lease is lost."""
    return Ledger(
        enter=context.stores.chunks.enter,
        settings=context.settings,
        is_limited=claimed.is_capped or context.settings.budget.usd_per_day is not None,
        job_id=lease.job_id,
        chunk_id=lease.chunk_id,
        token=lease.token,
        completions=context.stores.completions if claimed.use_cache else None,
    )


def postponement(
    settings: PipelineSettings, before: int, error: ChordwiseError, random: Random
) -> timedelta:
    """Return the wait after `before` earlier ones: exponential, with jitter, at least Retry-After.

    The jitter is between half of the wait and all of it, so that postponed work is not due all at
    once. Work that waits for a batch is due when the batch is.
    """
    if isinstance(error, AwaitingBatchError):
        return timedelta(seconds=error.retry_after_seconds or 0.0)
    ceiling = min(
        settings.max_postponement_seconds, settings.postponement_base_seconds * 2.0**before
    )
    wait = random.uniform(ceiling / 2, ceiling)
    requested_seconds = error.retry_after_seconds if isinstance(error, TransientError) else None
    return timedelta(seconds=max(wait, requested_seconds or 0.0))


def pause_jobs(context: Context, job_id: uuid.UUID, error: ChordwiseError) -> None:
    """Pause all jobs of the run that ask the same model, because each would fail in the same way.

    `chordwise continue RUN` continues them; results of chunks that have ended are kept.
    """

    def pause_all(session: Session) -> None:
        job = jobs.get(session, job_id)
        if job is None:
            return
        session.execute(
            update(Job)
            .where(Job.run_id == job.run_id, Job.model == job.model, Job.status.in_(WORKING_JOBS))
            .values(
                status=JobStatus.PAUSED,
                error_code=error.code,
                error_message=error.what,
                hint=error.hint or None,
                lease_token=None,
                lease_until=None,
            )
        )
        runs.settle(session, job.run_id)

    context.database.commit(pause_all, context.lease)
