"""How long to put work off, and pausing jobs that need a person."""

from __future__ import annotations

import uuid
from datetime import timedelta
from random import Random

from sqlalchemy import update
from sqlalchemy.orm import Session

from chordwise.domain.states import WORKING_JOBS, JobStatus
from chordwise.errors import AwaitingBatchError, ChordwiseError, TransientError
from chordwise.pipeline.runtime.context import Context
from chordwise.settings import PipelineSettings
from chordwise.storage import jobs, runs
from chordwise.storage.jobs import Job


def postponement(
    settings: PipelineSettings, before: int, error: ChordwiseError, random: Random
) -> timedelta:
    """Return the wait after `before` earlier ones: exponential, jittered, Retry-After honoured.

    The jitter is between half and the whole of the wait: put-off work is not due at once.
    Whoever waits for a batch is due when nobody waits for it any more.
    """
    if isinstance(error, AwaitingBatchError):
        return timedelta(seconds=error.retry_after_seconds or 0.0)
    ceiling = min(
        settings.postponement_max_seconds, settings.postponement_base_seconds * 2.0**before
    )
    wait = random.uniform(ceiling / 2, ceiling)
    asked_for = error.retry_after_seconds if isinstance(error, TransientError) else None
    return timedelta(seconds=max(wait, asked_for or 0.0))


def pause(context: Context, job_id: uuid.UUID, error: ChordwiseError) -> None:
    """Pause every job of the run that asks the same model: each would fail alike.

    `chordwise retry RUN` takes them up again, with what they have reached so far.
    """
    for attempt in context.database.attempts(context.lease):
        with attempt as session:
            _pause(session, job_id, error)


def _pause(session: Session, job_id: uuid.UUID, error: ChordwiseError) -> None:
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
