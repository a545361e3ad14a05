"""Whether anything is left to do: one statement that an idle process makes instead of many."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import ColumnElement, exists, or_, select
from sqlalchemy.orm import Session

from chordwise.domain.lanes import UNASKED_REQUESTS, BatchRequestStatus
from chordwise.domain.states import OPEN_CHUNKS, UNFINISHED_JOBS, RunStatus
from chordwise.storage import batches, deliveries, schedule_runs
from chordwise.storage.batch_requests import BatchRequest
from chordwise.storage.budget_reservations import BudgetReservation
from chordwise.storage.chunks import Chunk
from chordwise.storage.jobs import Job
from chordwise.storage.runs import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Whether deliveries, batches, and occurrences of schedules wait for a scheduler."""

    deliveries: bool = False
    batches: bool = False
    schedules: bool = False


def waiting(session: Session) -> Waiting:
    """Return what waits for the parts of a scheduler."""
    row = session.execute(
        select(
            deliveries.is_pending(),
            or_(_in(BatchRequest, (BatchRequestStatus.PENDING,)), batches.is_any_open()),
            schedule_runs.is_any_free(),
        )
    ).one()
    return Waiting(deliveries=row[0], batches=row[1], schedules=row[2])


def may_stop_moving(session: Session) -> bool:
    """Tell whether there is anything that a rule of recovery could find.

    That is an unfinished job, chunk, run, question of a batch, or reservation.
    """
    is_open = or_(Run.status == RunStatus.OPEN, Run.finished_at.is_(None))
    return bool(
        session.scalar(
            select(
                or_(
                    _in(Job, UNFINISHED_JOBS),
                    _in(Chunk, OPEN_CHUNKS),
                    exists().where(or_(is_open, Run.intake_finished_at.is_(None))),
                    _in(BatchRequest, UNASKED_REQUESTS),
                    exists().where(BudgetReservation.settled_at.is_(None)),
                )
            )
        )
    )


def _in(table: type[Job | Chunk | BatchRequest], states: Collection[str]) -> ColumnElement[bool]:
    return exists().where(table.status.in_(states))
