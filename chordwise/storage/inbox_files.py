"""Inbox files: each version of a file that was claimed in a watched folder, and its outcome."""

from __future__ import annotations

import os
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    ForeignKey,
    Index,
    Row,
    and_,
    case,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    text,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, aliased, mapped_column

from chordwise.domain.states import TAKEN_IN, UNDELIVERED, UNFINISHED_JOBS, InboxStatus, JobStatus
from chordwise.remote import path_of
from chordwise.storage import clock, intakes
from chordwise.storage.chunks import Chunk
from chordwise.storage.intakes import Intake
from chordwise.storage.jobs import Job
from chordwise.storage.leases import Leased, require_all
from chordwise.storage.record import CreatedAt, Record, in_ids, insert_all, unnested
from chordwise.storage.runs import Run
from chordwise.storage.sql_text import status_in

_AT_ONCE = 500
Version: TypeAlias = tuple[bytes, int, int]
"""A path below an inbox, and the size and modification time of the file there, in nanoseconds."""


class InboxFile(Leased):
    """One version of a file; a process that reads or moves the file holds it by `lease_token`."""

    __tablename__ = "inbox_files"
    __table_args__ = (
        # The hash, because a path may be longer than an entry of an index.
        Index(
            "ux_inbox_files_open",
            "folder",
            text("sha256(raw_name)"),
            "byte_count",
            "modified_ns",
            unique=True,
            postgresql_where=status_in(UNDELIVERED),
        ),
    )

    AT_WORK = UNDELIVERED

    folder: Mapped[str]
    name: Mapped[str]
    raw_name: Mapped[bytes]
    byte_count: Mapped[int] = mapped_column(BigInteger)
    modified_ns: Mapped[int] = mapped_column(BigInteger)
    profile: Mapped[str]
    sha256: Mapped[str | None]
    run_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("runs.id"), index=True)
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    reason: Mapped[str | None]
    message: Mapped[str | None]
    hint: Mapped[str | None]
    delivered_path: Mapped[str | None]
    raw_destination: Mapped[bytes | None]
    created_at: Mapped[CreatedAt]
    submitted_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]

    @property
    def relative(self) -> Path:
        """The exact path below the inbox."""
        return Path(os.fsdecode(self.raw_name))

    @property
    def source(self) -> Path:
        """The exact path in the inbox."""
        return path_of(self.folder) / self.relative


class InboxIntake(Record):
    """One item of a file of an inbox; `position` counts from 0."""

    __tablename__ = "inbox_intakes"

    intake_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("intakes.id"), primary_key=True)
    inbox_file_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("inbox_files.id"), index=True)
    position: Mapped[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process that holds files, each for a lease that it extends."""

    token: uuid.UUID
    duration: timedelta

    def holds(self) -> ColumnElement[bool]:
        """Return the condition that this process holds a file."""
        return InboxFile.lease_token == self.token

    def may_hold(self) -> ColumnElement[bool]:
        """Return the condition that this process holds a file already, or that none does."""
        return or_(self.holds(), InboxFile.lease_until.is_(None), InboxFile.has_expired())

    def lease(self) -> dict[str, ColumnElement[uuid.UUID] | ColumnElement[datetime]]:
        """Return the columns of a file that this process holds from now on."""
        return {"lease_token": literal(self.token), "lease_until": clock.now_plus(self.duration)}


NO_LEASE = {"lease_token": None, "lease_until": None}
_CLAIMED = ("id", "folder", "name", "raw_name", "byte_count", "modified_ns", "profile")


def claim(session: Session, holder: Holder, files: Sequence[InboxFile]) -> list[InboxFile]:
    """Insert the rows of unclaimed versions, and return them, ordered by id."""
    columns = {name: [getattr(file, name) for file in files] for name in _CLAIMED}
    rows = unnested(InboxFile, columns)
    same = {"status": literal(InboxStatus.CLAIMED), "attempts": literal(1), **holder.lease()}
    statement = (
        insert(InboxFile)
        .from_select([*columns, *same], select(*(rows.c[name] for name in columns), *same.values()))
        .on_conflict_do_nothing()
        .returning(InboxFile)
    )
    return sorted(session.scalars(statement), key=lambda file: file.id)


def claim_unread(
    session: Session,
    holder: Holder,
    of: ColumnElement[bool],
    run_ids: Collection[uuid.UUID],
    limit: int,
) -> list[InboxFile]:
    """Claim files to read, of this process and of lost ones, the oldest claims first.

    A file of a run whose intake another process holds is left to that process; the intakes of
    `run_ids` belong to this one.
    """
    of_run = Run.id == InboxFile.run_id
    is_held_elsewhere = exists().where(of_run, intakes.is_held(), ~in_ids(Run.id, run_ids))
    is_claimed = InboxFile.status == InboxStatus.CLAIMED
    condition = and_(is_claimed, holder.may_hold(), ~is_held_elsewhere)
    return _claim(session, holder, of & condition, limit, attempts=next_attempt(holder))


def next_attempt(holder: Holder) -> ColumnElement[int]:
    """Return the number of the attempt to read a file that a claim begins or goes on with."""
    return InboxFile.attempts + case((holder.holds(), 0), else_=1)


def claim_answered(
    session: Session, holder: Holder, of: ColumnElement[bool], limit: int
) -> list[InboxFile]:
    """Claim files to move: their jobs have ended, or their move was interrupted."""
    is_working = (
        exists()
        .where(InboxIntake.inbox_file_id == InboxFile.id)
        .where(Intake.id == InboxIntake.intake_id)
        .where(_of_intake(), Job.status.in_(UNFINISHED_JOBS))
    )
    is_answered = and_(InboxFile.status == InboxStatus.SUBMITTED, ~is_working)
    is_begun = and_(InboxFile.status == InboxStatus.MOVING, holder.may_hold())
    condition = of & or_(is_answered, is_begun)
    return _claim(session, holder, condition, limit, status=InboxStatus.MOVING)


def within(folders: Sequence[str], besides: Collection[uuid.UUID]) -> ColumnElement[bool]:
    """Return the condition that a file is in one of the folders, and none of `besides`."""
    return and_(InboxFile.folder.in_(folders), ~in_ids(InboxFile.id, besides))


def _claim(
    session: Session,
    holder: Holder,
    condition: ColumnElement[bool],
    limit: int,
    **values: object,
) -> list[InboxFile]:
    picked = (
        select(InboxFile.id)
        .where(InboxFile.status.in_(UNDELIVERED), condition)
        .order_by(InboxFile.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("picked")
    )
    statement = update(InboxFile).where(InboxFile.id == picked.c.id)
    claimed = session.scalars(statement.values(**holder.lease(), **values).returning(InboxFile))
    return sorted(claimed, key=lambda file: file.id)


def release(session: Session, holder: Holder, ids: Collection[uuid.UUID] | None = None) -> None:
    """Release all files of a process, or some; its attempts to read them do not count."""
    is_unread = InboxFile.status == InboxStatus.CLAIMED
    attempts = InboxFile.attempts - case((is_unread, 1), else_=0)
    is_held = and_(holder.holds(), InboxFile.is_at_work())
    of = true() if ids is None else in_ids(InboxFile.id, ids)
    session.execute(update(InboxFile).where(is_held, of).values(attempts=attempts, **NO_LEASE))


def forget(session: Session, holder: Holder, ids: Collection[uuid.UUID]) -> None:
    """Delete the rows of files of which nothing was read, so that they are claimed anew."""
    is_unread = and_(InboxFile.status == InboxStatus.CLAIMED, InboxFile.run_id.is_(None))
    session.execute(delete(InboxFile).where(in_ids(InboxFile.id, ids), holder.holds(), is_unread))


def open_versions(session: Session, folder: str, versions: Sequence[Version]) -> set[Version]:
    """Return those of the versions that are claimed and not delivered."""
    names, counts, times = zip(*versions, strict=True) if versions else ((), (), ())
    columns = {"raw_name": list(names), "byte_count": list(counts), "modified_ns": list(times)}
    rows = unnested(InboxFile, columns)
    statement = (
        select(InboxFile.raw_name, InboxFile.byte_count, InboxFile.modified_ns)
        .where(InboxFile.folder == folder, InboxFile.status.in_(UNDELIVERED))
        .where(func.sha256(InboxFile.raw_name) == func.sha256(rows.c.raw_name))
        .where(InboxFile.byte_count == rows.c.byte_count)
        .where(InboxFile.modified_ns == rows.c.modified_ns)
    )
    return {(name, count, time) for name, count, time in session.execute(statement)}


def change(
    session: Session,
    holder: Holder,
    files: Mapping[uuid.UUID, Mapping[str, object]],
    same: Mapping[str, object],
) -> set[uuid.UUID]:
    """Update files in one statement: each with separate values, and all with the values `same`.

    Returns the ids of those that the process still holds; the others are not changed.
    """
    if not files:
        return set()
    names = next(iter(files.values()))
    columns = {name: [values[name] for values in files.values()] for name in names}
    rows = unnested(InboxFile, {"id": list(files), **columns})
    statement = update(InboxFile).where(InboxFile.id == rows.c.id, holder.holds())
    values = {name: rows.c[name] for name in names}
    return set(session.scalars(statement.values(**values, **same).returning(InboxFile.id)))


def record_submitted(session: Session, holder: Holder, files: Sequence[InboxFile]) -> None:
    """Record that files are completely taken in, or the reason why they are not.

    Raises:
        LeaseLostError: Another process holds one of them.
    """
    names = ("sha256", "reason", "message", "hint")
    rows = {file.id: {name: getattr(file, name) for name in names} for file in files}
    same = {"status": InboxStatus.SUBMITTED, "submitted_at": clock.database_now(), **NO_LEASE}
    require_all(change(session, holder, rows, same), rows)


def put_into_run(
    session: Session, holder: Holder, run_id: uuid.UUID, ids: Collection[uuid.UUID]
) -> None:
    """Record the run of files.

    Raises:
        LeaseLostError: Another process holds one of them.
    """
    rows: dict[uuid.UUID, Mapping[str, object]] = {file_id: {"run_id": run_id} for file_id in ids}
    require_all(change(session, holder, rows, {}), ids)


def link_all(session: Session, links: Sequence[tuple[uuid.UUID, uuid.UUID, int]]) -> None:
    """Link files to intakes; a link is file id, intake id and position."""
    names = ("inbox_file_id", "intake_id", "position")
    insert_all(session, InboxIntake, [dict(zip(names, link, strict=True)) for link in links])


def has_intakes(session: Session, file_id: uuid.UUID) -> bool:
    """Return whether an item of a file was taken in."""
    statement = select(InboxIntake.intake_id).where(InboxIntake.inbox_file_id == file_id)
    return session.scalar(statement.limit(1)) is not None


def done(session: Session, ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Return the files whose items were all taken in and whose jobs all succeeded."""
    taken_in = func.bool_and(Intake.outcome.in_(TAKEN_IN))
    succeeded = func.coalesce(func.bool_and(Job.status == JobStatus.SUCCEEDED), true())
    statement = (
        select(InboxIntake.inbox_file_id)
        .join(Intake, Intake.id == InboxIntake.intake_id)
        .join(Job, _of_intake(), isouter=True)
        .where(in_ids(InboxIntake.inbox_file_id, ids))
        .group_by(InboxIntake.inbox_file_id)
        .having(taken_in & succeeded)
    )
    return set(session.scalars(statement))


def first_failure(session: Session, file_id: uuid.UUID) -> dict[str, str | None]:
    """Return reason, message and hint of the first failed intake or job of a file."""
    is_out = Intake.outcome.not_in(TAKEN_IN)
    statement = (
        select(
            case(
                (is_out, func.coalesce(Intake.reason, Intake.outcome)),
                else_=func.coalesce(Job.error_code, Job.status),
            ).label("reason"),
            case((is_out, Intake.message), else_=Job.error_message).label("message"),
            case((is_out, Intake.hint), else_=Job.hint).label("hint"),
        )
        .select_from(InboxIntake)
        .join(Intake, Intake.id == InboxIntake.intake_id)
        .join(Job, _of_intake(), isouter=True)
        .where(InboxIntake.inbox_file_id == file_id, is_out | (Job.status != JobStatus.SUCCEEDED))
        .order_by(InboxIntake.position, Job.id)
        .limit(1)
    )
    failure = session.execute(statement).mappings().one_or_none()
    return (
        {} if failure is None else {name: failure[name] for name in ("reason", "message", "hint")}
    )


def outcomes(
    session: Session, ids: Collection[uuid.UUID]
) -> Iterable[Row[uuid.UUID, Intake, Job | None, uuid.UUID | None, int | None]]:
    """Return the intakes of files in order, each with each of its jobs, as a stream.

    A row consists of the id of the file, the intake, the job, the id of the intake that was
    analyzed (another one for a reused answer), and the highest number of claims of a chunk of the
    job.
    """
    analyzed, has_answer = aliased(Job), Job.status == JobStatus.SUCCEEDED
    claims = select(func.max(Chunk.attempts)).where(Chunk.job_id == Job.id).scalar_subquery()
    return session.execute(
        select(
            InboxIntake.inbox_file_id,
            Intake,
            Job,
            func.coalesce(analyzed.intake_id, Job.intake_id),
            claims,
        )
        .join(Intake, InboxIntake.intake_id == Intake.id)
        .join(Job, _of_intake(), isouter=True)
        .join(analyzed, has_answer & (analyzed.id == Job.reused_from), isouter=True)
        .where(in_ids(InboxIntake.inbox_file_id, ids))
        .order_by(InboxIntake.inbox_file_id, InboxIntake.position, Job.id)
        .execution_options(yield_per=_AT_ONCE)
    )


def _of_intake() -> ColumnElement[bool]:
    return and_(Job.run_id == Intake.run_id, Job.document_id == Intake.document_id)
