"""Postpones work after transient errors, and pauses jobs that need intervention.

`run_control.retry` continues paused jobs; `endpoint_pauses` has the pauses of providers.
"""

from __future__ import annotations

import uuid
from datetime import timedelta
from random import Random

import structlog
from sqlalchemy import update
from sqlalchemy.orm import Session

from chordwise.domain.states import WORKING_JOBS, JobStatus
from chordwise.errors import AwaitingBatchError, ChordwiseError, LeaseLostError, TransientError
from chordwise.pipeline.jobs.step import Step
from chordwise.pipeline.runtime.context import Context
from chordwise.settings import PipelineSettings
from chordwise.storage import attempts, jobs, leases, runs
from chordwise.storage.chunk_claims import ClaimedChunk
from chordwise.storage.jobs import Job
from chordwise.storage.outbox import Urgency
from chordwise.storage.synthesis_claims import ClaimedSynthesis

log = structlog.get_logger(__name__)


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


def postpone(step: Step[ClaimedChunk] | Step[ClaimedSynthesis], error: ChordwiseError) -> None:
    """Let leased work wait until a due time, with a message for it.

    Raises:
        LeaseLostError: Another worker has claimed the work.
    """
    context, lease, work = step.context, step.lease, step.claimed
    delay = postponement(context.settings.pipeline, work.postponements, error, context.random)
    lease.require()
    for attempt in context.database.attempts(context.outage_timeout):
        with attempt as session:
            jobs.lock(session, lease.job_id)
            if attempts.postpone(session, *lease.work, delay, error):
                if lease.chunk_id is not None:
                    jobs.record_progress(session, [lease.job_id])
                    jobs.mark_waiting(session, lease.job_id)
                urgency = Urgency.of_run(work.priority)
                lease.promise(session, error.code, urgency=urgency, delay=delay)
            elif not leases.has_ended(session, *lease.work):
                raise LeaseLostError("Another worker has claimed the work.")
    log.info(
        "work.postponed",
        job_id=str(lease.job_id),
        chunk_id=str(lease.chunk_id),
        code=error.code,
        delay=str(delay),
    )


def pause(step: Step[ClaimedChunk] | Step[ClaimedSynthesis], error: ChordwiseError) -> None:
    """Release leased work and pause all jobs of its run that ask the same model.

    The message is for the case that this process is killed in between.
    """
    context, lease = step.context, step.lease
    for attempt in context.database.attempts(context.lease):
        with attempt as session:
            if leases.release(session, *lease.work):
                urgency = Urgency.of_run(step.claimed.priority)
                lease.promise(session, error.code, urgency=urgency, delay=context.lease)
    pause_jobs(context, lease.job_id, error)


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
