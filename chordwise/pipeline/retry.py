"""Taking up again what has not succeeded, and calling off what has not ended."""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal

from sqlalchemy import ColumnElement, case, null, select, update
from sqlalchemy.orm import Session, sessionmaker

from chordwise.domain.states import (
    OPEN_CHUNKS,
    RETRYABLE_JOBS,
    UNFINISHED_JOBS,
    ChunkStatus,
    JobStatus,
    RunStatus,
)
from chordwise.pipeline import budgets, endpoint_pauses, lanes
from chordwise.pipeline.context import Context
from chordwise.pipeline.messages import FAN_OUT
from chordwise.storage import batch_requests, clock, deliveries, outbox
from chordwise.storage.chunks import Chunk
from chordwise.storage.engine import reaching_database
from chordwise.storage.jobs import Job
from chordwise.storage.record import among
from chordwise.storage.runs import Run


def retry(context: Context, run_id: uuid.UUID, budget_usd: Decimal | None = None) -> int:
    """Queue every job of the run that has not succeeded; return how many those are.

    What chunks have reached stays: only those that have not succeeded are asked again. Where the
    models of the run are paused for everybody, one call looks whether they still have to be.
    `budget_usd` is what the run may cost from now on, with what it did cost already.

    Raises:
        UsageError: More is spent already, or the budget is none.
        ConfigurationError: There is a new budget, and an unknown price.
        ServiceUnavailableError: The database cannot be reached.
    """
    _resume_models(context, run_id)
    with reaching_database(), context.sessions.begin() as session:
        if budget_usd is not None:
            _change_budget(context, session, run_id, budget_usd)
        job_ids = session.scalars(
            select(Job.id)
            .where(Job.run_id == run_id, Job.status.in_(RETRYABLE_JOBS))
            .with_for_update(key_share=True)
        ).all()
        if job_ids:
            session.execute(update(Run).where(Run.id == run_id).values(_OPEN_RUN))
        for job_id in job_ids:
            _reopen(context, session, job_id)
        return len(job_ids)


def cancel(sessions: sessionmaker[Session], run_id: uuid.UUID) -> int:
    """Call off every job of the run that has not ended; return how many those are.

    Calls in flight are not stopped, but their answers are not stored.

    Raises:
        ServiceUnavailableError: The database cannot be reached.
    """
    with reaching_database(), sessions.begin() as session:
        job_ids = session.scalars(
            update(Job)
            .where(Job.run_id == run_id, Job.status.in_(UNFINISHED_JOBS))
            .values(
                status=JobStatus.CANCELLED,
                error_code="cancelled",
                error_message="The run was cancelled.",
                hint="`chordwise retry RUN` takes it up again.",
                finished_at=clock.database_now(),
                lease_token=None,
                lease_until=None,
            )
            .returning(Job.id)
        ).all()
        session.execute(
            update(Chunk)
            .where(among(Chunk.job_id, job_ids), Chunk.status.in_(OPEN_CHUNKS))
            .values(status=ChunkStatus.CANCELLED, lease_token=None, lease_until=None)
        )
        _cancel_run(session, run_id)
        return len(job_ids)


def _cancel_run(session: Session, run_id: uuid.UUID) -> None:
    cancelled = session.scalars(
        update(Run)
        .where(Run.id == run_id, Run.status.in_((RunStatus.OPEN, RunStatus.PAUSED)))
        .values(status=RunStatus.CANCELLED, finished_at=clock.database_now())
        .returning(Run.id)
    ).all()
    for each in cancelled:
        deliveries.announce(session, each, RunStatus.CANCELLED)


def _resume_models(context: Context, run_id: uuid.UUID) -> None:
    """Before anything is queued: no worker may meet a pause that a person has just ended."""
    with reaching_database(), context.sessions() as session:
        models = session.scalars(select(Job.model).where(Job.run_id == run_id).distinct()).all()
    endpoint_pauses.resume(context.settings, models)


def _change_budget(
    context: Context, session: Session, run_id: uuid.UUID, budget_usd: Decimal
) -> None:
    models = session.scalars(select(Job.model).where(Job.run_id == run_id).distinct()).all()
    budgets.require_known_prices(context.settings, models)
    budgets.change_cap(session, run_id, budgets.checked_cap(budget_usd))


_OPEN_RUN = {"status": RunStatus.OPEN, "finished_at": None}
_FRESH = {"attempts": 0, "postponements": 0, "error_code": None, "error_message": None}


def _is_in_flight() -> ColumnElement[bool]:
    """Return the condition that somebody is at a chunk: its answer is worth waiting for."""
    return (Chunk.status == ChunkStatus.RUNNING) & (Chunk.lease_until > clock.database_now())


def _batch_until(context: Context) -> ColumnElement[datetime | None]:
    """Return until when a job that waited for batches does so from now on."""
    until = lanes.spill_over(context.settings)
    return case((Job.batch_until.is_not(None), until), else_=null())


def _reopen(context: Context, session: Session, job_id: uuid.UUID) -> None:
    batch_requests.forget_failures(session, job_id)
    cleared = {**_FRESH, "hint": None, "due_at": None, "lease_token": None, "lease_until": None}
    session.execute(
        update(Chunk)
        .where(Chunk.job_id == job_id, Chunk.status != ChunkStatus.SUCCEEDED, ~_is_in_flight())
        .values(status=ChunkStatus.PENDING, sent_at=None, finished_at=None, **cleared)
    )
    session.execute(
        update(Job)
        .where(Job.id == job_id)
        .values(
            status=JobStatus.QUEUED,
            finished_at=None,
            last_progress_at=clock.database_now(),
            batch_until=_batch_until(context),
            **cleared,
        )
    )
    outbox.put(session, FAN_OUT, job_id, reason="retry")
