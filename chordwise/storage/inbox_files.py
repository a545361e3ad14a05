"""Inbox files: each file that was taken from a watched folder, and its outcome."""

from __future__ import annotations

import os
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    ForeignKey,
    Index,
    Row,
    and_,
    case,
    exists,
    func,
    select,
    true,
    update,
)
from sqlalchemy.orm import Mapped, Session, aliased, mapped_column

from chordwise.domain.states import TAKEN_IN, UNDELIVERED, UNFINISHED_JOBS, InboxStatus, JobStatus
from chordwise.storage import clock
from chordwise.storage.chunks import Chunk
from chordwise.storage.intakes import Intake
from chordwise.storage.jobs import Job
from chordwise.storage.record import CreatedAt, Identity, Record, in_ids, insert_all, unnested
from chordwise.storage.runs import Run
from chordwise.storage.sql_text import status_in

_AT_ONCE = 500


class InboxFile(Record):
    """One file; `store_id` distinguishes the stores of several homes.

    `folder` is the inbox and `name` the printable path below it; `raw_name` and `raw_destination`
    are exact bytes. `reason`, `message` and `hint` say why there is no intake; once the file is
    delivered, they describe its first failure. `attempts` counts the processes that began to read
    it and did not stop normally.
    """

    __tablename__ = "inbox_files"
    __table_args__ = (
        Index(
            "ix_inbox_files_undelivered",
            "store_id",
            "status",
            postgresql_where=status_in(UNDELIVERED),
        ),
    )

    id: Mapped[Identity]
    store_id: Mapped[uuid.UUID]
    folder: Mapped[str]
    name: Mapped[str]
    raw_name: Mapped[bytes]
    profile: Mapped[str]
    status: Mapped[str] = mapped_column(default=InboxStatus.TAKING)
    sha256: Mapped[str | None]
    byte_count: Mapped[int | None] = mapped_column(BigInteger)
    stored_path: Mapped[str]
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
        """The path of the file before it was taken."""
        return Path(self.folder) / self.relative


class InboxIntake(Record):
    """One item of a file of an inbox; `position` counts from 0."""

    __tablename__ = "inbox_intakes"

    intake_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("intakes.id"), primary_key=True)
    inbox_file_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("inbox_files.id"), index=True)
    position: Mapped[int]


def change(session: Session, file_id: uuid.UUID, values: Mapping[str, object]) -> None:
    """Update columns of a file in one statement: there may be ten thousand files.

    Raises:
        NoResultFound: The file is no longer in the table.
    """
    statement = update(InboxFile).where(InboxFile.id == file_id).values(**values)
    session.scalars(statement.returning(InboxFile.id)).one()


def change_all(session: Session, ids: Collection[uuid.UUID], values: Mapping[str, object]) -> None:
    """Set columns of several files to the same values."""
    if ids:
        session.execute(update(InboxFile).where(in_ids(InboxFile.id, ids)).values(**values))


def write_each(
    session: Session, files: Mapping[uuid.UUID, Mapping[str, object]], same: Mapping[str, object]
) -> None:
    """Update files in one statement: each with separate values, and all with the values `same`."""
    if not files:
        return
    names = next(iter(files.values()))
    columns = {name: [values[name] for values in files.values()] for name in names}
    found = unnested(InboxFile, {"id": list(files), **columns})
    own = {name: found.c[name] for name in names}
    session.execute(update(InboxFile).where(InboxFile.id == found.c.id).values(**own, **same))


def record_submitted(session: Session, files: Sequence[InboxFile]) -> None:
    """Record that files are completely taken in, or the reason why they are not."""
    names = ("sha256", "byte_count", "reason", "message", "hint")
    rows = {file.id: {name: getattr(file, name) for name in names} for file in files}
    now = clock.database_now()
    write_each(session, rows, {"status": InboxStatus.SUBMITTED, "submitted_at": now})


def undo_attempts(session: Session, ids: Iterable[uuid.UUID]) -> None:
    """Subtract the attempts of a process that stops normally."""
    statement = update(InboxFile).where(in_ids(InboxFile.id, list(ids)), InboxFile.attempts > 0)
    session.execute(statement.values(attempts=InboxFile.attempts - 1))


def undelivered_ids(session: Session, ids: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """Return those of the ids that are in the table and not delivered."""
    condition = in_ids(InboxFile.id, ids), InboxFile.status.in_(UNDELIVERED)
    return set(session.scalars(select(InboxFile.id).where(*condition)))


def in_status(
    session: Session, store_id: uuid.UUID, status: InboxStatus, limit: int | None
) -> Sequence[InboxFile]:
    """Return the files of a store with this status, in the order in which they were taken."""
    return session.scalars(
        select(InboxFile)
        .where(InboxFile.store_id == store_id, InboxFile.status == status)
        .order_by(InboxFile.id)
        .limit(limit)
    ).all()


def link_all(
    session: Session, run_id: uuid.UUID, links: Sequence[tuple[uuid.UUID, uuid.UUID, int]]
) -> None:
    """Link files to intakes and to the run; a link is file id, intake id and position."""
    rows: list[dict[str, object]] = [
        {"inbox_file_id": file_id, "intake_id": intake_id, "position": position}
        for file_id, intake_id, position in links
    ]
    insert_all(session, InboxIntake, rows)
    change_all(session, {file_id for file_id, _, _ in links}, {"run_id": run_id})


def linked(session: Session, file_id: uuid.UUID) -> int:
    """Return how many items of a file were taken in."""
    statement = select(func.count()).where(InboxIntake.inbox_file_id == file_id)
    return session.scalar(statement) or 0


def ready(session: Session, store_id: uuid.UUID, limit: int) -> Sequence[InboxFile]:
    """Return submitted files whose jobs have all ended, in the order in which they were taken."""
    working = (
        exists()
        .where(InboxIntake.inbox_file_id == InboxFile.id)
        .where(Intake.id == InboxIntake.intake_id)
        .where(_of_intake(), Job.status.in_(UNFINISHED_JOBS))
    )
    return session.scalars(
        select(InboxFile)
        .where(InboxFile.store_id == store_id, InboxFile.status == InboxStatus.SUBMITTED)
        .where(~working)
        .order_by(InboxFile.id)
        .limit(limit)
    ).all()


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
    found = session.execute(statement).mappings().one_or_none()
    return {} if found is None else {name: found[name] for name in ("reason", "message", "hint")}


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


def is_submitted_to(store_id: uuid.UUID) -> ColumnElement[bool]:
    """Return the condition that files of a store were submitted to a run."""
    return exists().where(InboxFile.run_id == Run.id, InboxFile.store_id == store_id)


def _of_intake() -> ColumnElement[bool]:
    return and_(Job.run_id == Intake.run_id, Job.document_id == Intake.document_id)
