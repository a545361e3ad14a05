"""Rules of recovery for jobs and runs: not fanned out, not synthesized, not closed."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import ColumnElement, exists, func, or_, select, update
from sqlalchemy.orm import Session

from chordwise.domain.states import OPEN_CHUNKS, UNFINISHED_JOBS, JobStatus, RunStatus
from chordwise.pipeline.recovery import unclaimed
from chordwise.pipeline.recovery.chunks import BATCH, OVERTAKEN
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.messages import CONTROL_QUEUE, FAN_OUT, SYNTHESIZE
from chordwise.storage import clock, intakes, outbox, runs
from chordwise.storage.chunks import Chunk
from chordwise.storage.jobs import Job
from chordwise.storage.record import among
from chordwise.storage.runs import Run

_STEP = 400


def lost_messages(context: Context, session: Session) -> int:
    """Fan jobs out again that wait although younger ones have begun, or are in no queue."""
    stalled = timedelta(seconds=context.settings.pipeline.stalled_seconds)
    newest_begun = (
        select(func.max(Job.created_at))
        # The only chunk of a job may have been sent without a fan-out.
        .where(Job.started_at > clock.statement_start() - stalled * 2, Job.chunk_count > 1)
        .scalar_subquery()
    )
    sent_before = unclaimed.lost_since(context, session, newest_begun - OVERTAKEN, CONTROL_QUEUE)
    if sent_before is None:
        return 0
    return _send_jobs(
        session,
        FAN_OUT,
        (Job.status == JobStatus.QUEUED)
        & Job.reused_from.is_(None)
        & (Job.created_at < sent_before)  # no job was sent before; this is in the index
        & (Job.last_progress_at < sent_before),
    )


def missing_syntheses(context: Context, session: Session) -> int:
    """Send the synthesis of jobs whose chunks have all ended and which nobody is finishing.

    One that has been due, or abandoned, since it was last sent has no message and gets one at once.
    As long as other messages wait for a worker, so may that of any other: it gets more time then,
    and all the time that it takes while the queue is long. Whether all chunks of a job have ended
    is in no index: of the jobs without such a moment each call looks at the next few hundred.
    """
    settings = context.settings.pipeline
    now = clock.database_now()
    long_idle = Job.last_progress_at < now - timedelta(seconds=settings.stalled_seconds)
    idle_since = Job.last_progress_at < now - timedelta(seconds=settings.recovery_interval_seconds)
    overdue = (idle_since & unclaimed.queue_is_empty(context, CONTROL_QUEUE)) | (
        long_idle & unclaimed.worker_is_active() & ~unclaimed.queue_is_long(context, CONTROL_QUEUE)
    )
    # Looked for job by job: a condition that the planner can make a join of may read all chunks.
    open_chunk = select(Chunk.id).where(Chunk.job_id == Job.id, Chunk.status.in_(OPEN_CHUNKS))
    has_ended = open_chunk.limit(1).scalar_subquery().is_(None)
    waiting = (Job.status == JobStatus.WAITING) & or_(
        Job.due_at.is_(None), Job.due_at <= clock.database_now()
    )
    ran_out = (Job.lease_until < clock.database_now()) & clock.holders_have_come()
    abandoned = (Job.status == JobStatus.SYNTHESIZING) & ran_out
    idle = (Job.status == JobStatus.RUNNING) & Job.chunk_count.is_not(None)
    looked_at = [job_id for walk in context.walks for job_id in walk.step(session, _STEP)]
    wanted = (
        waiting & (Job.last_progress_at < Job.due_at),
        abandoned & (Job.last_progress_at < Job.lease_until),
        among(Job.id, looked_at) & or_(waiting, abandoned, idle) & overdue,
    )
    return sum(_send_jobs(session, SYNTHESIZE, each & has_ended) for each in wanted)


def abandoned_intakes(context: Context, session: Session) -> int:  # noqa: ARG001 - one shape for all
    """Finish the intake of runs whose submitter was lost after it had taken everything in.

    One with something left on its list stays interrupted: `chordwise resume` goes on with it.
    """
    return intakes.finish_all(session, intakes.is_interrupted())


def cancelled_runs(context: Context, session: Session) -> int:  # noqa: ARG001 - one shape for all
    """Cancel what a killed `cancel` has left of a run; return how many jobs that is."""
    unfinished = exists().where(Job.run_id == Run.id, Job.status.in_(UNFINISHED_JOBS))
    ids = session.scalars(
        select(Run.id)
        .where(Run.status == RunStatus.CANCELLED, or_(Run.finished_at.is_(None), unfinished))
        .order_by(Run.id)
    ).all()
    return sum(runs.cancel_jobs(session, run_id, BATCH) for run_id in ids)


def unsettled_runs(context: Context, session: Session) -> int:  # noqa: ARG001 - one shape for all
    """Finish runs whose jobs have all ended; the last job does this itself, unless killed."""
    unfinished = exists().where(Job.run_id == Run.id, Job.status.in_(UNFINISHED_JOBS))
    ids = session.scalars(
        select(Run.id).where(
            Run.status == RunStatus.OPEN, Run.intake_finished_at.is_not(None), ~unfinished
        )
    ).all()
    for run_id in ids:
        runs.settle(session, run_id)
    return len(ids)


def _send_jobs(session: Session, task: str, condition: ColumnElement[bool]) -> int:
    """Promise a message for each job that has none waiting, however long the broker is away."""
    ids = session.scalars(
        select(Job.id)
        .where(condition, ~outbox.is_promised(task, of=Job.id))
        .limit(BATCH)
        .with_for_update(key_share=True, skip_locked=True)
    ).all()
    if not ids:
        return 0
    outbox.put_all(session, task, ((job_id,) for job_id in ids), reason="recovery")
    session.execute(
        update(Job).where(Job.id.in_(ids)).values(last_progress_at=clock.database_now())
    )
    return len(ids)
