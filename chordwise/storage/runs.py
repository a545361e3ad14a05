"""Runs: jobs that were submitted together, with their options and final account."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import (
    JSON,
    ColumnElement,
    ForeignKey,
    bindparam,
    delete,
    func,
    select,
    text,
    true,
    update,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.identifiers import id_in
from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import (
    OPEN_CHUNKS,
    UNFINISHED_JOBS,
    WORKING_JOBS,
    ChunkStatus,
    JobStatus,
    Lane,
    RunStatus,
)
from chordwise.errors import UsageError
from chordwise.storage import clock, deliveries, jobs
from chordwise.storage.chunks import Chunk
from chordwise.storage.jobs import Job
from chordwise.storage.leases import Leased
from chordwise.storage.outbox import OutboxMessage
from chordwise.storage.record import CreatedAt, in_ids
from chordwise.storage.schedules import ScheduleRun
from chordwise.storage.sql_text import status_in


class Run(Leased):
    """One submission; `intake_finished_at` is null until everything that was found is taken in.

    The account of `found_count` items and `type_count` analyses of each document must balance. A
    cancelled run without `finished_at` still has jobs to be cancelled.
    """

    __tablename__ = "runs"

    name: Mapped[str] = mapped_column(unique=True)
    status: Mapped[str] = mapped_column(default=RunStatus.OPEN)
    options: Mapped[JsonObject] = mapped_column(JSON)  # keeps the order of the members of a schema
    type_count: Mapped[int]
    priority: Mapped[str] = mapped_column(server_default="interactive")
    lane: Mapped[str] = mapped_column(server_default=Lane.ONLINE)
    use_cache: Mapped[bool] = mapped_column(server_default=true())
    saved_as: Mapped[str | None]
    request_key: Mapped[str | None] = mapped_column(unique=True)
    request_hash: Mapped[str | None]
    found_count: Mapped[int | None]
    schedule_run_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey(ScheduleRun.id), index=True
    )
    created_at: Mapped[CreatedAt]
    intake_finished_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    @classmethod
    def is_at_work(cls) -> ColumnElement[bool]:
        """Return the condition that the intake has not ended."""
        return cls.intake_finished_at.is_(None)


def find(session: Session, name_or_id: str) -> Run:
    """Return the run with this name or id; `latest` is the newest.

    Raises:
        UsageError: No such run exists.
    """
    if name_or_id == "latest":
        run = session.scalars(select(Run).order_by(Run.id.desc()).limit(1)).one_or_none()
    else:
        run_id = id_in(name_or_id)
        condition = Run.id == run_id if run_id else Run.name == name_or_id
        run = session.scalars(select(Run).where(condition)).one_or_none()
    if run is None:
        raise UsageError(f"There is no run “{name_or_id}”.", "`chordwise runs` lists the runs.")
    return run


def requested_with(session: Session, key: str) -> Run | None:
    """Return the run that a request of the API with this key began, or `None`."""
    return session.scalars(select(Run).where(Run.request_key == key)).one_or_none()


def newest_saved_as(session: Session, table: str) -> Run | None:
    """Return the newest run whose answers are in a table, or `None`."""
    newest = select(Run).where(Run.saved_as == table).order_by(Run.id.desc()).limit(1)
    return session.scalars(newest).one_or_none()


def newest_names(session: Session, limit: int) -> Sequence[str]:
    """Return the names of the newest runs, the newest first."""
    return session.scalars(select(Run.name).order_by(Run.id.desc()).limit(limit)).all()


def is_cancelled(session: Session, run_id: uuid.UUID) -> bool:
    """Return whether a run is cancelled."""
    return session.scalar(select(Run.status).where(Run.id == run_id)) == RunStatus.CANCELLED


def mark_cancelled(session: Session, run_id: uuid.UUID) -> None:
    """Mark an open or paused run as cancelled: after the commit, none of its work begins."""
    session.execute(
        update(Run)
        .where(Run.id == run_id, Run.status.in_((RunStatus.OPEN, RunStatus.PAUSED)))
        .values(status=RunStatus.CANCELLED)
    )


def cancel_jobs(session: Session, run_id: uuid.UUID, limit: int) -> int:
    """Cancel some jobs of a run that is still cancelled, and finish it if none is left.

    Return the number of cancelled jobs.
    """
    if not is_cancelled(session, run_id):
        return 0
    is_unfinished = (Job.run_id == run_id) & Job.status.in_(UNFINISHED_JOBS)
    some = select(Job.id).where(is_unfinished).limit(limit)
    rows = session.execute(
        select(Job.id, Job.chunk_count)
        .where(Job.id.in_(some), is_unfinished)
        .order_by(Job.id)
        .with_for_update(key_share=True)
    ).all()
    job_ids = jobs.of_one_step((row[0], row[1]) for row in rows)
    run = _locked(session, run_id)  # jobs are always locked before their run
    if run.status != RunStatus.CANCELLED:
        return 0
    session.execute(
        update(Job)
        .where(in_ids(Job.id, job_ids))
        .values(
            status=JobStatus.CANCELLED,
            error_code="cancelled",
            error_message="The run was cancelled.",
            hint="`chordwise continue RUN` resumes it.",
            finished_at=clock.database_now(),
            lease_token=None,
            lease_until=None,
        )
    )
    cancelled = (
        update(Chunk)
        .where(in_ids(Chunk.job_id, job_ids), Chunk.status.in_(OPEN_CHUNKS))
        .values(status=ChunkStatus.CANCELLED, lease_token=None, lease_until=None)
        .returning(Chunk.id)
        .cte()
    )
    is_unwanted = in_ids(OutboxMessage.id, job_ids) | OutboxMessage.id.in_(select(cancelled.c.id))
    session.execute(delete(OutboxMessage).where(is_unwanted).add_cte(cancelled))
    unfinished = {"run_id": run_id, "states": list(UNFINISHED_JOBS)}
    if run.finished_at is None and not session.scalar(_HAS_JOBS, unfinished):
        run.finished_at = clock.read(session)
        deliveries.announce(session, "run.cancelled", run_id=run_id)
    return len(job_ids)


def cancelled_since(session: Session, run_id: uuid.UUID, moment: datetime) -> int:
    """Return how many jobs of a run were cancelled since `moment`."""
    cancelled = Job.status == JobStatus.CANCELLED
    counted = select(func.count()).where(Job.run_id == run_id, cancelled)
    return session.scalar(counted.where(Job.finished_at >= moment)) or 0


def settle(session: Session, run_id: uuid.UUID) -> None:
    """Update the status of a run from its jobs; call it after a job changed its end state.

    The lock on the row orders two jobs that end at the same time, so that the later one sees both.
    It is not FOR UPDATE, with which two transactions that write a job twice would deadlock:
    PostgreSQL checks the foreign key with a shared lock. The run of an experiment's additional
    answers is not announced.
    """
    run = _locked(session, run_id)
    if run.intake_finished_at is None or run.status == RunStatus.CANCELLED:
        return
    before = run.status
    is_worked_on, is_paused = session.execute(_STANDING, {"run_id": run_id}).one()
    if is_worked_on:
        run.status, run.finished_at = RunStatus.OPEN, None
    elif is_paused:
        run.status, run.finished_at = RunStatus.PAUSED, None
    else:
        run.status, run.finished_at = RunStatus.FINISHED, func.now()
    if run.status != before and not session.scalar(_IS_OF_PAIRS, {"run_id": run_id}):
        deliveries.announce(session, f"run.{run.status}", run_id=run_id)


def _locked(session: Session, run_id: uuid.UUID) -> Run:
    """Return the current state of a run, locked, whatever this transaction read before."""
    return session.scalars(_LOCK, {"id": run_id}).one()


# Every job uses these statements, so they are built once.
_STANDING = text(f"""
    SELECT EXISTS (SELECT FROM jobs WHERE run_id = :run_id AND {status_in(WORKING_JOBS)}),
        EXISTS (SELECT FROM jobs WHERE run_id = :run_id AND status = 'paused')""")
_IS_OF_PAIRS = text("SELECT EXISTS (SELECT FROM experiments WHERE run_id = :run_id)")
_HAS_JOBS = text(
    "SELECT EXISTS (SELECT FROM jobs WHERE run_id = :run_id AND status = ANY(:states))"
)
_LOCK = select(Run).where(Run.id == bindparam("id")).with_for_update(key_share=True)
