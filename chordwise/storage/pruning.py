"""Deletion by age, in small steps and in an order that satisfies the foreign keys."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TypeAlias, cast

from sqlalchemy import ColumnElement, CursorResult, delete, exists, func, select, update
from sqlalchemy.orm import Session

from chordwise.domain.json_values import JsonValue
from chordwise.domain.states import UNDELIVERED, UNFINISHED_JOBS, JobStatus, RunStatus
from chordwise.storage import clock, intakes
from chordwise.storage.batches import BatchRequest
from chordwise.storage.budgets import Budget
from chordwise.storage.cached_completions import CachedCompletion
from chordwise.storage.certifications import Certification
from chordwise.storage.chunks import Chunk
from chordwise.storage.database import Database
from chordwise.storage.deliveries import Delivery
from chordwise.storage.documents import Document
from chordwise.storage.experiments import Experiment, ExperimentDocument
from chordwise.storage.feedback import Feedback
from chordwise.storage.inbox_files import InboxFile, InboxIntake
from chordwise.storage.intakes import Intake, ListedFile
from chordwise.storage.jobs import Job
from chordwise.storage.judgments import Evaluation, Judgment
from chordwise.storage.learned_examples import LearnedExample
from chordwise.storage.model_calls import ModelCall
from chordwise.storage.record import in_ids
from chordwise.storage.results import Fact, PastResult, Result
from chordwise.storage.runs import Run

STEP = 200
"""The number of rows in a step; a step with fewer rows was the last one."""
_OVER = (RunStatus.FINISHED, RunStatus.CANCELLED)


Commit: TypeAlias = Callable[[Callable[[Session], int]], int]


def prune(
    database: Database, ages: Mapping[str, timedelta], commit: Commit
) -> Mapping[str, JsonValue]:
    """Delete data older than its age, in steps; return the number of deleted items by kind.

    `ages` has at least one of `cache`, `answers` and `runs`. `commit` runs a step in a transaction.
    """
    deleted: dict[str, JsonValue] = {}
    if age := ages.get("cache"):
        deleted["completions"] = _all(commit, partial(_forget_completions, age=age))
    if age := ages.get("answers"):
        deleted["answers"] = _all(commit, partial(_forget_answers, age=age))
        deleted["past_results"] = _all(commit, partial(_forget_past_results, age=age))
    if age := ages.get("runs"):
        deleted |= _forget_runs(database, age, commit)
    return deleted


def _forget_runs(database: Database, age: timedelta, commit: Commit) -> Mapping[str, JsonValue]:
    with database.read() as session:
        old = old_runs(session, age)
    runs = jobs = 0
    for run_id in old:
        jobs += _all(commit, partial(forget_jobs, run_id=run_id, age=age))
        runs += commit(partial(forget_run, run_id=run_id, age=age))
    documents = _all(commit, partial(forget_documents, age=age))
    return {"runs": runs, "jobs": jobs, "documents": documents}


def _all(commit: Commit, step: Callable[[Session], int]) -> int:
    total = count = commit(step)
    while count >= STEP:
        count = commit(step)
        total += count
    return total


def _forget_completions(session: Session, age: timedelta) -> int:
    is_old = CachedCompletion.created_at < clock.database_now() - age
    old = select(CachedCompletion.key).where(is_old).limit(STEP)
    # Checked again: a completion may be renewed at this moment.
    statement = delete(CachedCompletion).where(CachedCompletion.key.in_(old), is_old)
    return len(session.scalars(statement.returning(CachedCompletion.key)).all())


def _forget_answers(session: Session, age: timedelta) -> int:
    old = (
        select(Chunk.id)
        .join(Job, Job.id == Chunk.job_id)
        .where(
            Job.status == JobStatus.SUCCEEDED,
            Job.finished_at < clock.database_now() - age,
            Chunk.answer.is_not(None),
        )
        .limit(STEP)
    )
    statement = update(Chunk).where(Chunk.id.in_(old)).values(answer=None).returning(Chunk.id)
    return len(session.scalars(statement).all())


def _forget_past_results(session: Session, age: timedelta) -> int:
    old = (
        select(PastResult.id).where(PastResult.replaced_at < clock.database_now() - age).limit(STEP)
    )
    statement = delete(PastResult).where(PastResult.id.in_(old)).returning(PastResult.id)
    return len(session.scalars(statement).all())


def old_runs(session: Session, age: timedelta) -> Sequence[uuid.UUID]:
    """Return the runs that ended longer than `age` ago and can be pruned, the oldest first.

    A run with an undelivered inbox file, or of a running experiment, is kept. A run whose intake
    was interrupted ends when its jobs have ended, at the time of the interruption.
    """
    return session.scalars(select(Run.id).where(_is_old(age)).order_by(Run.id)).all()


def forget_jobs(session: Session, run_id: uuid.UUID, age: timedelta) -> int:
    """Delete some jobs of an old run, not retried meanwhile, and their rows; return their number.

    Their rows in the ledger are kept, since they account for the spending.
    """
    # Locked first, so that their results are not reused meanwhile.
    ids = session.scalars(
        select(Job.id).where(Job.run_id == run_id).order_by(Job.id).limit(STEP).with_for_update()
    ).all()
    if not _is_still_old(session, run_id, age):
        return 0
    delete_jobs(session, ids)
    return len(ids)


_OWNED_BY_JOB = (BatchRequest, Feedback, Fact, Result, PastResult, Chunk)


def delete_jobs(session: Session, ids: Sequence[uuid.UUID]) -> dict[str, int]:
    """Delete locked jobs and their rows; return the number of rows by table.

    The ledger is kept, and so are the judgments, without the values from the documents.
    """
    session.execute(update(Job).where(in_ids(Job.reused_from, ids)).values(reused_from=None))
    session.execute(
        update(ModelCall).where(in_ids(ModelCall.job_id, ids)).values(job_id=None, chunk_id=None)
    )
    session.execute(
        update(Judgment)
        .where(in_ids(Judgment.job_id, ids))
        .values(job_id=None, expected=None, found=None)
    )
    deleted: dict[str, int] = {}
    for table in _OWNED_BY_JOB:
        statement = delete(table).where(in_ids(table.job_id, ids))
        result = cast("CursorResult[object]", session.execute(statement))
        deleted[table.__tablename__] = result.rowcount
    session.execute(delete(Job).where(in_ids(Job.id, ids)))
    return deleted | {Job.__tablename__: len(ids)}


_OWNED_BY_RUN = (Budget, Certification, Delivery, InboxFile, ListedFile, Intake)


def forget_run(session: Session, run_id: uuid.UUID, age: timedelta) -> int:
    """Delete an old run without jobs, unless it was retried since; return 1 if it was deleted."""
    if not _is_still_old(session, run_id, age):
        return 0
    of_run = select(Intake.id).where(Intake.run_id == run_id)
    for owned_by_intake in (InboxIntake, ExperimentDocument):
        session.execute(delete(owned_by_intake).where(owned_by_intake.intake_id.in_(of_run)))
    for kept in (Evaluation, ModelCall, Experiment):
        session.execute(update(kept).where(kept.run_id == run_id).values(run_id=None))
    for owned in _OWNED_BY_RUN:
        session.execute(delete(owned).where(owned.run_id == run_id))
    return len(session.scalars(delete(Run).where(Run.id == run_id).returning(Run.id)).all())


def forget_documents(session: Session, age: timedelta) -> int:
    """Delete documents older than `age` that no run uses, with their examples; return their number.

    The lock prevents new references; the condition is checked again for those made just before.
    """
    ids = session.scalars(
        select(Document.id)
        .where(Document.created_at < clock.database_now() - age, _unused())
        .limit(STEP)
        .with_for_update(skip_locked=True)
    ).all()
    gone = select(Document.id).where(Document.id.in_(ids), _unused())
    session.execute(delete(LearnedExample).where(LearnedExample.document_id.in_(gone)))
    statement = delete(Document).where(Document.id.in_(ids), _unused()).returning(Document.id)
    return len(session.scalars(statement).all())


def _is_old(age: timedelta) -> ColumnElement[bool]:
    ended_at = func.coalesce(Run.finished_at, Run.lease_until, Run.created_at)
    unfinished = exists().where(Job.run_id == Run.id, Job.status.in_(UNFINISHED_JOBS))
    is_ended = Run.status.in_(_OVER) & Run.finished_at.is_not(None)
    is_over = is_ended | (intakes.is_interrupted() & ~unfinished)
    has_files = exists().where(InboxFile.run_id == Run.id, InboxFile.status.in_(UNDELIVERED))
    is_needed = exists().where(Experiment.run_id == Run.id, Experiment.concluded_at.is_(None))
    return is_over & (ended_at < clock.database_now() - age) & ~has_files & ~is_needed


def _is_still_old(session: Session, run_id: uuid.UUID, age: timedelta) -> bool:
    locked = select(Run.id).where(Run.id == run_id).with_for_update()
    if session.scalar(locked) is None:
        return False
    return session.scalar(select(Run.id).where(Run.id == run_id, _is_old(age))) is not None


def _unused() -> ColumnElement[bool]:
    of_intake = exists().where(Intake.document_id == Document.id)
    of_job = exists().where(Job.document_id == Document.id)
    return ~of_intake & ~of_job
