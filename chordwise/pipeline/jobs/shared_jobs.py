"""Lets jobs with the same question wait for one of them: one analysis for all.

A job that follows another is queued, names it in `reused_from`, and has no message. Recovery gives
it the answer once there is one; if there will be none, the job is analyzed itself.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import structlog
from sqlalchemy import exists, or_, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, aliased

from chordwise.domain.states import FOLLOWING_JOBS, WORKING_JOBS, JobStatus, Lane, RunStatus
from chordwise.llm.limits.permits import Priority
from chordwise.pipeline.models.batch_queue import batch_until
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.messages import FAN_OUT
from chordwise.storage import clock, jobs, outbox, results, runs
from chordwise.storage.jobs import Job
from chordwise.storage.outbox import Urgency
from chordwise.storage.record import in_ids
from chordwise.storage.results import ResultKey
from chordwise.storage.runs import Run

log = structlog.get_logger(__name__)

_MAX_AT_ONCE = 500


def leaders(
    session: Session, run: Run, questions: Sequence[ResultKey], before: uuid.UUID
) -> dict[ResultKey, uuid.UUID]:
    """Return the earliest job before `before` that asks each question with the same urgency.

    An online job does not wait for a batch, nor an interactive one for a nightly run. A leader is
    always earlier than its followers, so two jobs cannot wait for each other.
    """
    statement = (
        select(Job.document_id, Job.options_hash, Job.id)
        .ext(distinct_on(Job.document_id, Job.options_hash))
        .join(Run, Run.id == Job.run_id)
        .where(
            in_ids(Job.document_id, {document_id for document_id, _ in questions}),
            Job.options_hash.in_({options_hash for _, options_hash in questions}),
            Job.status.in_(WORKING_JOBS),
            Run.status != RunStatus.CANCELLED,
            Job.id < before,
        )
        .order_by(Job.document_id, Job.options_hash, Job.id)
    )
    if run.lane == Lane.ONLINE:
        statement = statement.where(Run.lane == Lane.ONLINE)
    if run.priority == Priority.INTERACTIVE:
        statement = statement.where(Run.priority == Priority.INTERACTIVE)
    rows = session.execute(statement)
    return {(document_id, options_hash): job_id for document_id, options_hash, job_id in rows}


def end_followers(context: Context, session: Session) -> int:
    """End the jobs whose leader has an answer, and dispatch those whose leader will have none.

    A follower that was paused with its run receives the answer as well, since it asks no model.
    """
    leader = aliased(Job)
    followed = exists().where(leader.id == Job.reused_from)
    is_working = followed.where(leader.status.in_(WORKING_JOBS))
    has_answer = followed.where(leader.status == JobStatus.SUCCEEDED)
    is_over = (Job.status == JobStatus.QUEUED) & ~is_working
    followers = session.scalars(
        select(Job)
        .where(
            Job.reused_from.is_not(None),
            Job.status.in_(FOLLOWING_JOBS),
            or_(is_over, (Job.status == JobStatus.PAUSED) & has_answer),
        )
        .order_by(Job.id)
        .limit(_MAX_AT_ONCE)
        .with_for_update(key_share=True, skip_locked=True)
    ).all()
    for job in followers:
        _end_or_dispatch(context, session, job)
    session.flush()
    for run_id in sorted({job.run_id for job in followers if job.status == JobStatus.SUCCEEDED}):
        runs.settle(session, run_id)
    return len(followers)


def _end_or_dispatch(context: Context, session: Session, job: Job) -> None:
    """End a queued job whose answer is stored; else let it follow another, or dispatch it."""
    # Queried first: a leader that ends between the two queries has its answer in the second.
    question = job.document_id, job.options_hash
    run = session.get_one(Run, job.run_id)
    leader = leaders(session, run, [question], job.id).get(question)
    stored = results.reusable_all(session, [question]).get(question)
    job.reused_from = stored or leader
    if stored is not None:
        results.copy_all(session, {job.id: stored})
        jobs.end(job, JobStatus.SUCCEEDED)
        log.info("job.ended", job_id=str(job.id), status=job.status)
    elif leader is None:
        until = batch_until(context.settings, Lane(run.lane))
        job.batch_until = None if until is None else session.scalar(select(until))
        job.last_progress_at = clock.read(session)
        urgency = Urgency.of_run(run.priority)
        reason = "no job to follow"
        outbox.promise(session, FAN_OUT, [job.id], reason=reason, urgency=urgency)
