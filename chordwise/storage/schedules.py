"""Schedules: what is due when, defined by the configuration and by `chordwise schedules`."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import (
    ColumnElement,
    ForeignKey,
    Index,
    UniqueConstraint,
    exists,
    func,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import UNFINISHED_SCHEDULE_RUNS, ScheduleRunStatus
from chordwise.storage import clock
from chordwise.storage.leases import StepRecord
from chordwise.storage.record import CreatedAt, Identity, Record, update_rows
from chordwise.storage.sql_text import status_in


class ScheduleOrigin(StrEnum):
    """The origin of a schedule; the values of `schedules.origin`."""

    CONFIGURATION = "configuration"
    DATABASE = "database"


class Schedule(Record):
    """A command line and its times; a removed schedule is only disabled."""

    __tablename__ = "schedules"

    id: Mapped[Identity]
    name: Mapped[str] = mapped_column(unique=True)
    origin: Mapped[str]
    enabled: Mapped[bool] = mapped_column(server_default=true())
    cron: Mapped[str]
    time_zone: Mapped[str]
    run: Mapped[str]
    folder: Mapped[str]
    catch_up: Mapped[str]
    expires_after_hours: Mapped[float]
    next_due_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]
    changed_at: Mapped[CreatedAt]


def of_name(session: Session, name: str) -> Schedule | None:
    """Return a schedule, enabled or not, with its row locked."""
    statement = select(Schedule).where(Schedule.name == name).with_for_update()
    return session.scalars(statement).one_or_none()


def enabled(session: Session) -> Sequence[Schedule]:
    """Return the enabled schedules, ordered by name."""
    return session.scalars(select(Schedule).where(Schedule.enabled).order_by(Schedule.name)).all()


def next_due(
    session: Session, now: datetime, passed_over: Collection[uuid.UUID] = ()
) -> Schedule | None:
    """Return, locked, a due schedule that no other transaction has locked and not `passed_over`."""
    return session.scalars(
        select(Schedule)
        .where(Schedule.enabled, Schedule.next_due_at <= now, Schedule.id.not_in(passed_over))
        .order_by(Schedule.next_due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()


def insert_new(
    session: Session, name: str, origin: ScheduleOrigin, values: Mapping[str, object]
) -> None:
    """Insert a disabled schedule, unless one with this name exists."""
    row = {"name": name, "origin": origin, "enabled": False, **values}
    session.execute(insert(Schedule).values(row).on_conflict_do_nothing())


def disable_others(session: Session, names: Collection[str]) -> Sequence[str]:
    """Disable schedules that are no longer in the configuration; return their names."""
    return session.scalars(
        update(Schedule)
        .where(
            Schedule.origin == ScheduleOrigin.CONFIGURATION,
            Schedule.enabled,
            Schedule.name.not_in(names),
        )
        .values(enabled=False, next_due_at=None, changed_at=clock.database_now())
        .returning(Schedule.name)
    ).all()


class Trigger(StrEnum):
    """The trigger of an occurrence; the values of `schedule_runs.trigger`."""

    CLOCK = "clock"
    CATCH_UP = "catch_up"
    COMMAND = "command"


class ScheduleRun(StepRecord):
    """An occurrence: one due time of a schedule and its outcome, as the command reports it.

    A schedule has at most one unfinished occurrence at a time.
    """

    __tablename__ = "schedule_runs"
    __table_args__ = (
        UniqueConstraint("schedule_id", "due_at"),
        Index(
            "ix_schedule_runs_unfinished",
            "schedule_id",
            unique=True,
            postgresql_where=status_in(UNFINISHED_SCHEDULE_RUNS),
        ),
    )

    AT_WORK = (ScheduleRunStatus.RUNNING,)
    FREE = ScheduleRunStatus.DUE

    schedule_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("schedules.id"))
    schedule: Mapped[str]
    run: Mapped[str]
    due_at: Mapped[datetime]
    trigger: Mapped[str]
    outcome: Mapped[JsonObject | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    hint: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(server_default="0")
    expires_at: Mapped[datetime]
    created_at: Mapped[CreatedAt]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The end of an occurrence, or the reason why it was not begun."""

    status: ScheduleRunStatus
    code: str = ""
    message: str = ""
    hint: str = ""
    outcome: JsonObject | None = None


def add(
    session: Session,
    schedule: Schedule,
    end: End,
    due_at: datetime,
    trigger: Trigger,
    expires_at: datetime,
) -> bool:
    """Insert an occurrence that is due or not begun; return false if its due time has one."""
    statement = (
        insert(ScheduleRun)
        .values(
            schedule_id=schedule.id,
            schedule=schedule.name,
            run=schedule.run,
            due_at=due_at,
            trigger=trigger,
            expires_at=expires_at,
            **_values(end),
        )
        .on_conflict_do_nothing(constraint="uq_schedule_runs_schedule_id_due_at")
    )
    return session.scalar(statement.returning(ScheduleRun.id)) is not None


def unfinished(session: Session, schedule_id: uuid.UUID) -> ScheduleRun | None:
    """Return the unfinished occurrence of a schedule, or `None`."""
    return session.scalars(
        select(ScheduleRun).where(
            ScheduleRun.schedule_id == schedule_id, ScheduleRun.status.in_(UNFINISHED_SCHEDULE_RUNS)
        )
    ).one_or_none()


def waiting(session: Session) -> Sequence[ScheduleRun]:
    """Return, locked, the occurrences that wait for their runs, except those locked by others."""
    return session.scalars(
        select(ScheduleRun)
        .where(ScheduleRun.status == ScheduleRunStatus.WAITING)
        .order_by(ScheduleRun.id)
        .with_for_update(skip_locked=True)
    ).all()


def is_any_free() -> ColumnElement[bool]:
    """Return the condition that an occurrence is due or its lease has expired."""
    return exists().where(_is_free())


def claim(session: Session, token: uuid.UUID, lease: timedelta) -> ScheduleRun | None:
    """Claim the oldest free occurrence by the clock of the database, and count the attempt."""
    oldest = (
        select(ScheduleRun.id)
        .where(_is_free())
        .order_by(ScheduleRun.due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    return session.scalars(
        update(ScheduleRun)
        .where(ScheduleRun.id == oldest)
        .values(
            status=ScheduleRunStatus.RUNNING,
            attempts=ScheduleRun.attempts + 1,
            lease_token=token,
            lease_until=clock.now_plus(lease),
            started_at=func.coalesce(ScheduleRun.started_at, clock.database_now()),
        )
        .returning(ScheduleRun)
    ).one_or_none()


def holds(session: Session, schedule_run_id: uuid.UUID, token: uuid.UUID) -> bool:
    """Return whether the lease is still held, and lock it until the commit."""
    query = (
        select(ScheduleRun.id)
        .where(ScheduleRun.is_held(schedule_run_id, token))
        .with_for_update(read=True)
    )
    return session.scalar(query) is not None


def finish(session: Session, schedule_run_id: uuid.UUID, token: uuid.UUID, end: End) -> bool:
    """End an occurrence, or set it to waiting for its runs; return false if the lease is lost."""
    return update_rows(
        session, ScheduleRun, ScheduleRun.is_held(schedule_run_id, token), **_values(end)
    )


def settle(session: Session, schedule_run_id: uuid.UUID, end: End) -> None:
    """End a waiting occurrence whose runs have ended."""
    waiting = ScheduleRun.status == ScheduleRunStatus.WAITING
    update_rows(session, ScheduleRun, (ScheduleRun.id == schedule_run_id) & waiting, **_values(end))


def expire(session: Session, now: datetime) -> Sequence[ScheduleRun]:
    """Expire overdue occurrences, which lose their lease; what one waited for stays the reason."""
    end = End(
        status=ScheduleRunStatus.EXPIRED,
        code="expired",
        message="The occurrence was not finished in time.",
        hint="Its runs continue; raise expires_after_hours, or analyze less at a time.",
    )
    noted = {
        name: func.coalesce(getattr(ScheduleRun, name), _values(end)[name])
        for name in ("error_code", "error_message", "hint")
    }
    return session.scalars(
        update(ScheduleRun)
        .where(ScheduleRun.status.in_(UNFINISHED_SCHEDULE_RUNS), ScheduleRun.expires_at <= now)
        .values(**{**_values(end), **noted})
        .returning(ScheduleRun)
    ).all()


def last_success(session: Session, name: str, before: datetime) -> datetime | None:
    """Return the last due time before `before` whose occurrence succeeded."""
    return session.scalar(
        select(func.max(ScheduleRun.due_at)).where(
            ScheduleRun.schedule == name,
            ScheduleRun.status == ScheduleRunStatus.SUCCEEDED,
            ScheduleRun.due_at < before,
        )
    )


def _values(end: End) -> dict[str, object]:
    ended = end.status not in UNFINISHED_SCHEDULE_RUNS
    values: dict[str, object] = {
        "status": end.status,
        "error_code": end.code or None,
        "error_message": end.message or None,
        "hint": end.hint or None,
        "lease_until": None,
        "finished_at": clock.database_now() if ended else None,
    }
    return values if end.outcome is None else {**values, "outcome": end.outcome}


def _is_free() -> ColumnElement[bool]:
    return or_(ScheduleRun.status == ScheduleRunStatus.DUE, ScheduleRun.has_expired())
