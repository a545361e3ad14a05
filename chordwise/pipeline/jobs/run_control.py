"""Retries the jobs of a run that have not succeeded, and cancels those that have not ended.

A retry also ends the pauses of models and keys that a provider has denied.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from functools import partial

import redis
import structlog
from sqlalchemy import case, func, null, select, true, update
from sqlalchemy.orm import Session

from chordwise.domain.states import RETRYABLE_JOBS, ChunkStatus, JobStatus, RunStatus
from chordwise.errors import ConfigurationError
from chordwise.llm.limits.shared_limits import (
    ModelEndpoint,
    Pause,
    open_client,
    read_pauses,
    resume_pauses,
)
from chordwise.pipeline.models import budgets
from chordwise.pipeline.models.batch_queue import spill_over_time
from chordwise.pipeline.runtime import broker
from chordwise.pipeline.runtime.context import DATABASE_TIMEOUT, Context
from chordwise.pipeline.runtime.messages import FAN_OUT
from chordwise.settings import ModelSettings, Settings
from chordwise.storage import batches, clock, jobs, outbox, runs
from chordwise.storage.chunks import Chunk
from chordwise.storage.database import Database
from chordwise.storage.jobs import Job
from chordwise.storage.outbox import Urgency
from chordwise.storage.record import in_ids
from chordwise.storage.runs import Run

log = structlog.get_logger(__name__)


def retry(context: Context, run_id: uuid.UUID, budget_usd: Decimal | None = None) -> int:
    """Queue all jobs of the run that have not succeeded, and return their number.

    Results of chunks that have succeeded are kept. If the models of the run are paused, one call
    probes whether the pause can end. If the run is being cancelled, the cancellation is completed
    first. `budget_usd` is the new cap of the run, including what it has already cost.

    The jobs are queued in short transactions; their messages are due after the last of these, so
    that no job ends the run before all are queued. After a kill, the queued jobs begin some minutes
    later, and another `retry` queues the rest.

    Raises:
        UsageError: More is spent already, or the amount cannot be a budget.
        ConfigurationError: There is a new budget, and a model with an unknown price.
    """
    with context.database.read() as session:
        models = session.scalars(select(Job.model).where(Job.run_id == run_id).distinct()).all()
    # Before the jobs are queued, so that no worker finds the pauses still in force.
    probe_again(context.settings, models)
    _cancel_jobs(context.database, run_id)
    if budget_usd is not None:
        budgets.require_known_prices(context.settings, models)
        with context.database.write() as session:
            budgets.change_cap(session, run_id, budgets.checked_cap(budget_usd))
    ranges, count, after = [], 0, _BEFORE_ALL
    while job_ids := context.database.commit(
        partial(_reopen_some, context=context, run_id=run_id, after=after), DATABASE_TIMEOUT
    ):
        count, after = count + len(job_ids), job_ids[-1]
        ranges.append((job_ids[0], after))
    for number in range(0, len(ranges), 3):
        first, last = ranges[number][0], ranges[number : number + 3][-1][1]
        hasten = partial(outbox.hasten, reason=_RETRY, first=first, last=last)
        context.database.commit(hasten, DATABASE_TIMEOUT)
    return count


def cancel(database: Database, run_id: uuid.UUID) -> int:
    """Cancel a run and all jobs of it that have not ended, and return their number.

    The run is cancelled in a transaction of its own: after its commit, nothing is taken in, claimed
    or asked for the run. Its jobs follow in short transactions; after a kill, recovery, another
    `cancel` or `retry` completes them. Calls in flight are not stopped, but their answers are not
    stored.
    """
    begun_at = database.commit(clock.read, DATABASE_TIMEOUT)
    database.commit(partial(runs.mark_cancelled, run_id=run_id), DATABASE_TIMEOUT)
    _cancel_jobs(database, run_id)
    since = partial(runs.cancelled_since, run_id=run_id, moment=begun_at)
    return database.commit(since, DATABASE_TIMEOUT)


def _cancel_jobs(database: Database, run_id: uuid.UUID) -> None:
    step = partial(runs.cancel_jobs, run_id=run_id, limit=_STEP)
    while database.commit(step, DATABASE_TIMEOUT):
        continue


_STEP = 1_000
"""The maximum number of jobs that one transaction cancels, each with its chunk."""
_QUEUED_STEP = 2 * _STEP // 3
"""The maximum number of jobs that one transaction queues, each with its chunk and its message."""
_BEFORE_ALL = uuid.UUID(int=0)
_RETRY = "retry"
# After a kill before all jobs are queued, those that are begin after this time.
_UNTIL_ALL_ARE_QUEUED = timedelta(minutes=5)
_OPEN_RUN = {"status": RunStatus.OPEN, "finished_at": None}
_FRESH = {"attempts": 0, "postponements": 0, "error_code": None, "error_message": None}


def _reopen_some(
    session: Session, context: Context, run_id: uuid.UUID, after: uuid.UUID
) -> Sequence[uuid.UUID]:
    """Queue the next jobs of a run that are to be retried, after a job; return their ids."""
    rows = session.execute(
        select(Job.id, Job.chunk_count)
        .where(Job.run_id == run_id, Job.status.in_(RETRYABLE_JOBS), Job.id > after)
        .order_by(Job.id)
        .limit(_QUEUED_STEP)
        .with_for_update(key_share=True)
    ).all()
    if not rows:
        return ()
    may_open = true() if after == _BEFORE_ALL else Run.status != RunStatus.CANCELLED
    opened = update(Run).where(Run.id == run_id, may_open).values(_OPEN_RUN).returning(Run.id)
    if session.scalar(opened) is None:
        return ()  # cancelled since the first step
    job_ids = jobs.of_one_step((row[0], row[1]) for row in rows)
    batches.forget_failures(session, job_ids)
    cleared = {**_FRESH, "hint": None, "due_at": None, "lease_token": None, "lease_until": None}
    is_at_work = (Chunk.status == ChunkStatus.RUNNING) & (Chunk.lease_until > clock.database_now())
    is_left = (Chunk.status != ChunkStatus.SUCCEEDED) & ~is_at_work
    # Found by their job and not by their state.
    is_open = (Chunk.job_id == Job.id) & Chunk.finished_at.is_(None)
    open_chunks = select(func.count()).select_from(Chunk).where(is_open)
    waited_for_batches, until = Job.batch_until.is_not(None), spill_over_time(context.settings)
    session.execute(
        update(Chunk)
        .where(in_ids(Chunk.job_id, job_ids), is_left)
        .values(status=ChunkStatus.PENDING, finished_at=None, **cleared)
    )
    session.execute(
        update(Job)
        .where(in_ids(Job.id, job_ids))
        .values(
            status=JobStatus.QUEUED,
            finished_at=None,
            last_progress_at=clock.database_now(),
            batch_until=case((waited_for_batches, until), else_=null()),
            open_chunks=open_chunks.correlate(Job).scalar_subquery(),
            **cleared,
        )
    )
    asking = select(Job.id).where(in_ids(Job.id, job_ids), Job.reused_from.is_(None))
    urgency = Urgency.of_run(session.get_one(Run, run_id).priority)
    outbox.promise(
        session,
        FAN_OUT,
        session.scalars(asking).all(),
        reason=_RETRY,
        urgency=urgency,
        delay=_UNTIL_ALL_ARE_QUEUED,
    )
    return job_ids


def probe_again(settings: Settings, names: Iterable[str]) -> None:
    """Let the next call to each of these models and fallbacks probe whether its pause can end.

    Keys are not compared, because a command may have another key than the workers, or none. If
    Valkey is unavailable, the pauses end by their own timeout.
    """
    if settings.broker_url is None:
        return
    models = list(_models(settings, names))

    def applies(pause: Pause) -> bool:
        return any(map(pause.holds_for, models))

    try:
        with open_client(settings.broker_url) as client:
            resume_pauses(client, applies)
    except (redis.RedisError, OSError) as error:
        log.warning("pauses.not_resumed", error=type(error).__name__)


def active_pauses(settings: Settings) -> list[Pause]:
    """Return the active pauses that apply to the models and API keys in the settings.

    Raises:
        ServiceUnavailableError: The broker cannot be reached.
        ConfigurationError: The broker has no database of the number in its address.
    """
    if settings.broker_url is None:
        return []
    endpoints = {
        name
        for model in _models(settings, (settings.model,))
        for name in ModelEndpoint.of(model, settings.api_key_for(model)).names
    }
    with broker.translating_errors(), open_client(settings.broker_url) as client:
        return [pause for pause in read_pauses(client) if pause.name in endpoints]


def _models(settings: Settings, names: Iterable[str]) -> Iterator[ModelSettings]:
    """Yield the models that may answer for each name; unknown names are skipped."""
    for name in (*names, *settings.fallback):
        with suppress(ConfigurationError):
            yield from [settings.model_named(model) for model in settings.selected_names(name)]
