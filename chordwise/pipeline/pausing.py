"""Pausing the jobs that a person has to help: no key, no money, no model."""

from __future__ import annotations

import uuid

from sqlalchemy import update
from sqlalchemy.orm import Session

from chordwise.domain.states import WORKING_JOBS, JobStatus
from chordwise.errors import ChordwiseError
from chordwise.pipeline import backoff
from chordwise.pipeline.context import Context
from chordwise.storage import jobs, runs
from chordwise.storage.jobs import Job


def pause(context: Context, job_id: uuid.UUID, error: ChordwiseError) -> None:
    """Pause every job of the run that asks the same model: each would fail alike.

    `chordwise retry RUN` takes them up again, with what they have reached so far.
    """
    backoff.store(context, lambda session: _pause(session, job_id, error))


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
