"""Schedules: what is due when, written by the configuration and by `chordwise schedules`."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from datetime import datetime
from enum import StrEnum

from sqlalchemy import true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column
from sqlalchemy.sql import select

from chordwise.domain.json_values import JsonObject
from chordwise.storage import clock
from chordwise.storage.record import CreatedAt, Identity, Record, new_id


class Origin(StrEnum):
    """Who wrote a schedule; the values of `schedules.origin`."""

    CONFIGURATION = "configuration"
    DATABASE = "database"


class Schedule(Record):
    """What is done at which times; `next_due_at` is null while it is not `enabled`.

    A schedule that was taken away stays, not enabled, for the sake of its history. `options` are
    its settings, with paths that are absolute.
    """

    __tablename__ = "schedules"

    id: Mapped[Identity]
    name: Mapped[str] = mapped_column(unique=True)
    origin: Mapped[str]
    enabled: Mapped[bool] = mapped_column(server_default=true())
    cron: Mapped[str]
    time_zone: Mapped[str]
    kind: Mapped[str]
    options: Mapped[JsonObject]
    next_due_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]
    changed_at: Mapped[CreatedAt]


def of_name(session: Session, name: str) -> Schedule | None:
    """Return a schedule, enabled or not, whose row nobody else can change meanwhile."""
    statement = select(Schedule).where(Schedule.name == name).with_for_update()
    return session.scalars(statement.execution_options(populate_existing=True)).one_or_none()


def enabled(session: Session) -> Sequence[Schedule]:
    """Return the schedules that are kept, by name."""
    return session.scalars(select(Schedule).where(Schedule.enabled).order_by(Schedule.name)).all()


def next_due(
    session: Session, now: datetime, passed_over: Collection[uuid.UUID] = ()
) -> Schedule | None:
    """Return one schedule that is due, locked, and none that somebody else has locked."""
    return session.scalars(
        select(Schedule)
        .where(Schedule.enabled, Schedule.next_due_at <= now, Schedule.id.not_in(passed_over))
        .order_by(Schedule.next_due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    ).one_or_none()


def insert_new(session: Session, name: str, origin: Origin, options: JsonObject) -> None:
    """Insert a schedule that is not enabled yet, unless there is one of this name."""
    session.execute(
        insert(Schedule)
        .values(
            id=new_id(),
            name=name,
            origin=origin,
            enabled=False,
            cron="",
            time_zone="",
            kind="",
            options=options,
        )
        .on_conflict_do_nothing()
    )


def disable_others(session: Session, names: Collection[str]) -> Sequence[str]:
    """Take out of force what the configuration no longer has; return the names of those."""
    return session.scalars(
        update(Schedule)
        .where(
            Schedule.origin == Origin.CONFIGURATION, Schedule.enabled, Schedule.name.not_in(names)
        )
        .values(enabled=False, next_due_at=None, changed_at=clock.database_now())
        .returning(Schedule.name)
    ).all()
