"""Leases of intakes: one process at a time takes in for a run, and a lost one is replaced."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, case, func, null, or_, select, update
from sqlalchemy.orm import Session

from chordwise.domain.states import RunStatus
from chordwise.storage import clock, runs
from chordwise.storage.listed_files import ListedFile
from chordwise.storage.runs import Run


def is_held() -> ColumnElement[bool]:
    """Return the condition that a process is taking in for a run."""
    is_alive = Run.intake_until.is_not(None) & (Run.intake_until > clock.database_now())
    return Run.intake_finished_at.is_(None) & is_alive


def is_interrupted() -> ColumnElement[bool]:
    """Return the condition that the intake of a run has stopped before its end."""
    is_lost = or_(Run.intake_until.is_(None), Run.intake_until <= clock.database_now())
    return and_(Run.intake_finished_at.is_(None), is_lost, Run.status != RunStatus.CANCELLED)


def claim(
    session: Session, run_id: uuid.UUID, token: uuid.UUID, lease: timedelta, *, by_force: bool
) -> bool:
    """Take over an intake that is interrupted, `by_force` one that is held, too."""
    is_free = is_interrupted() | (Run.intake_token == token)
    if by_force:
        is_free = Run.intake_finished_at.is_(None) & (Run.status != RunStatus.CANCELLED)
    statement = (
        update(Run)
        .where(Run.id == run_id, is_free)
        .values(intake_token=token, intake_until=clock.after(lease))
        .returning(Run.id)
    )
    return session.scalar(statement) is not None


def locked(session: Session, run_id: uuid.UUID) -> tuple[RunStatus, uuid.UUID | None]:
    """Return the status of a run and who takes in for it; the lock keeps both until the commit."""
    statement = (
        select(Run.status, Run.intake_token).where(Run.id == run_id).with_for_update(read=True)
    )
    status, token = session.execute(statement).one()
    return RunStatus(status), token


def held_until(session: Session, run_id: uuid.UUID) -> datetime | None:
    """Return until when a process takes in for a run; `None` where none does."""
    return session.scalar(select(Run.intake_until).where(Run.id == run_id, is_held()))


def extend(session: Session, tokens: Collection[uuid.UUID | None], lease: timedelta) -> None:
    """Prolong leases."""
    if not tokens:
        return
    session.execute(
        update(Run)
        .where(Run.intake_token.in_(tokens), Run.intake_finished_at.is_(None))
        .values(intake_until=clock.after(lease))
    )


def give_back(session: Session, run_id: uuid.UUID, token: uuid.UUID, unlisted: int) -> None:
    """End the lease; the intake is finished unless something on the list is left.

    `unlisted` is how much was taken in that was on no list. A lease that is lost ends nothing.
    """
    left = select(ListedFile.intake_id).where(ListedFile.run_id == run_id).exists()
    statement = (
        update(Run)
        .where(Run.id == run_id, Run.intake_token == token)
        .values(
            intake_token=None,
            intake_until=clock.database_now(),
            intake_finished_at=case((left, null()), else_=func.now()),
            found_count=func.coalesce(Run.found_count, 0) + unlisted,
        )
        .returning(Run.id)
    )
    if session.scalar(statement) is not None:
        runs.settle(session, run_id)


def finish_all(session: Session, of: ColumnElement[bool]) -> int:
    """Finish intakes whose process is lost and whose list is taken in; return how many."""
    left = select(ListedFile.intake_id).where(ListedFile.run_id == Run.id).exists()
    is_whole = Run.intake_finished_at.is_(None) & Run.found_count.is_not(None) & ~left
    statement = (
        update(Run)
        .where(of, is_whole, Run.status == RunStatus.OPEN)
        .values(intake_token=None, intake_finished_at=func.now())
        .returning(Run.id)
    )
    ids = session.scalars(statement).all()
    for run_id in ids:
        runs.settle(session, run_id)
    return len(ids)
