"""Intakes: each item that a run found, and its outcome."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Protocol, TypeVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    ForeignKey,
    Index,
    and_,
    case,
    delete,
    func,
    null,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.states import IntakeOutcome, ListedStatus, RunStatus
from chordwise.errors import ReadError
from chordwise.storage import clock, leases, runs
from chordwise.storage.leases import StepRecord
from chordwise.storage.record import (
    CreatedAt,
    Identity,
    Record,
    in_ids,
    insert_all,
    new_id,
    unnested,
    update_rows,
)
from chordwise.storage.runs import Run


class Intake(Record):
    """One file, row or stream.

    A file that is not read yet has the outcome `not_taken`, and a row in `listed_files`.
    """

    __tablename__ = "intakes"
    __table_args__ = (
        Index("ix_intakes_run_id_outcome", "run_id", "outcome"),
        # For the messages about accepted documents on the page of a run; few documents have one.
        Index("ix_intakes_told_of", "run_id", "id", postgresql_where="message IS NOT NULL"),
    )

    id: Mapped[Identity]
    run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("runs.id"))
    source: Mapped[str]
    sha256: Mapped[str | None]
    byte_count: Mapped[int | None] = mapped_column(BigInteger)
    outcome: Mapped[str]
    reason: Mapped[str | None]
    message: Mapped[str | None]
    hint: Mapped[str | None]
    document_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("documents.id"), index=True)
    raw_path: Mapped[bytes | None]
    created_at: Mapped[CreatedAt]


def exists(session: Session, intake_id: uuid.UUID) -> bool:
    """Return whether an intake is stored."""
    return session.scalar(select(Intake.id).where(Intake.id == intake_id)) is not None


def documents_in(
    session: Session, run_id: uuid.UUID, document_ids: Collection[uuid.UUID]
) -> set[uuid.UUID]:
    """Return those of the documents that the run has already taken in."""
    statement = select(Intake.document_id).where(
        Intake.run_id == run_id, in_ids(Intake.document_id, document_ids)
    )
    return {document_id for document_id in session.scalars(statement) if document_id is not None}


def copy_all(session: Session, run_id: uuid.UUID, copies: Mapping[uuid.UUID, uuid.UUID]) -> None:
    """Copy intakes into another run; `copies` maps the ids of the copies to the originals."""
    session.execute(_COPY, {"run_id": run_id, "ids": list(copies), "of": list(copies.values())})


_COPIED = "source, sha256, byte_count, outcome, reason, message, hint, document_id"
_COPY = text(f"""
    INSERT INTO intakes (id, run_id, {_COPIED})
    SELECT copy.id, :run_id, {_COPIED}
    FROM unnest(CAST(:ids AS uuid[]), CAST(:of AS uuid[])) AS copy (id, of)
    INNER JOIN intakes ON intakes.id = copy.of""")
_AT_ONCE = 1_000


class ListedFile(StepRecord):
    """One entry of the list of a run, until it is completely taken in; its id is the intake's.

    Without a `raw_path`, `job_id` names the job whose stored document is analyzed again; without
    either the entry is standard input.
    """

    __tablename__ = "listed_files"
    __table_args__ = (
        Index("ix_listed_files_run_id_position", "run_id", "position", unique=True),
        Index(
            "ix_listed_files_for_readers",
            "run_id",
            "position",
            postgresql_where=text("status <> 'listed'"),
        ),
    )
    AT_WORK = (ListedStatus.READING,)
    FREE = ListedStatus.WAITING

    id: Mapped[uuid.UUID] = mapped_column(ForeignKey("intakes.id"), primary_key=True)
    run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("runs.id"))
    position: Mapped[int]
    source: Mapped[str]
    raw_path: Mapped[bytes | None]
    follow_symlinks: Mapped[bool]
    byte_count: Mapped[int | None] = mapped_column(BigInteger)
    modified_ns: Mapped[int | None] = mapped_column(BigInteger)
    job_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("jobs.id", ondelete="SET NULL"), index=True
    )
    documents_taken: Mapped[int] = mapped_column(server_default=text("0"))
    status: Mapped[str] = mapped_column(server_default=ListedStatus.LISTED)
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    lease_token: Mapped[uuid.UUID | None]
    lease_until: Mapped[datetime | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeEntry:
    """An entry for the list of a run; an entry with an `error` is recorded but not read."""

    source: str
    raw_path: bytes | None = None
    follow_symlinks: bool = False
    byte_count: int | None = None
    modified_ns: int | None = None
    job_id: uuid.UUID | None = None
    status: ListedStatus = ListedStatus.LISTED
    error: ReadError | None = None

    def listed(self, intake_id: uuid.UUID) -> ListedFile:
        """Return the entry as it is on the list before it is read."""
        values = {name: getattr(self, name) for name in _LISTED}
        return ListedFile(id=intake_id, documents_taken=0, attempts=0, **values)


Item = TypeVar("Item", covariant=True)  # noqa: PLC0105 - the name of the thing


class SizedItems(Protocol[Item]):
    """Items in order, of a known number; they may be read from disk."""

    def __len__(self) -> int:
        """Return the number of items."""

    def __iter__(self) -> Iterator[Item]:
        """Yield the items in order."""


def enlist(
    session: Session, run_id: uuid.UUID, entries: SizedItems[IntakeEntry]
) -> Iterator[uuid.UUID]:
    """Add entries to the list of a run, and yield the ids of their intakes."""
    statement = (
        update(Run)
        .where(Run.id == run_id)
        .values(found_count=func.coalesce(Run.found_count, 0) + len(entries))
        .returning(Run.found_count)
    )
    position = (session.scalars(statement).one() or 0) - len(entries)
    taken = iter(entries)
    for begin in range(0, len(entries), _AT_ONCE):
        batch = [(new_id(), entry) for entry in islice(taken, _AT_ONCE)]
        insert_all(session, Intake, [_intake(id_, entry) for id_, entry in batch], run_id=run_id)
        listed: list[dict[str, object]] = [
            {"id": id_, "position": position + begin + index}
            | {name: getattr(entry, name) for name in _LISTED}
            for index, (id_, entry) in enumerate(batch)
            if entry.error is None
        ]
        insert_all(session, ListedFile, listed, run_id=run_id)
        yield from (id_ for id_, _ in batch)


def listed(session: Session, run_id: uuid.UUID, after: int) -> Sequence[ListedFile]:
    """Return the next entries after a position."""
    return session.scalars(
        select(ListedFile)
        .where(ListedFile.run_id == run_id, ListedFile.position > after)
        .order_by(ListedFile.position)
        .limit(_AT_ONCE)
    ).all()


def listed_at(
    session: Session, run_id: uuid.UUID, raw_path: bytes, byte_count: int, modified_ns: int
) -> ListedFile | None:
    """Return the entry of a file; `None` if the file was completely taken in."""
    is_at = and_(ListedFile.run_id == run_id, ListedFile.raw_path == raw_path)
    is_same = and_(ListedFile.byte_count == byte_count, ListedFile.modified_ns == modified_ns)
    return session.scalar(select(ListedFile).where(is_at, is_same).limit(1))


def add_documents_taken(session: Session, counts: Mapping[uuid.UUID, int]) -> None:
    """Count documents taken in from files that contain further ones, by the ids of their intakes.

    Raises:
        LeaseLostError: Another process has taken a file in.
    """
    if not counts:
        return
    numbers = list(counts.values())
    taken = unnested(ListedFile, {"id": list(counts), "documents_taken": numbers})
    statement = (
        update(ListedFile)
        .where(ListedFile.id == taken.c.id)
        .values(documents_taken=ListedFile.documents_taken + taken.c.documents_taken)
        .returning(ListedFile.id)
    )
    leases.require_all(session.scalars(statement).all(), counts)


def unlist(session: Session, run_id: uuid.UUID, counts: Mapping[uuid.UUID, int]) -> None:
    """Remove entries from the list; the last documents in them have separate intakes.

    `counts` are the numbers of these documents by the intake ids of the entries.

    Raises:
        LeaseLostError: Another process has taken a file in.
    """
    if not counts:
        return
    statement = (
        delete(ListedFile)
        .where(in_ids(ListedFile.id, counts))
        .returning(ListedFile.id, ListedFile.documents_taken)
    )
    removed = session.execute(statement).all()
    leases.require_all([intake_id for intake_id, _ in removed], counts)
    session.execute(delete(Intake).where(in_ids(Intake.id, counts)))
    others = sum(before + counts[intake_id] - 1 for intake_id, before in removed)
    if others:
        session.execute(
            update(Run).where(Run.id == run_id).values(found_count=Run.found_count + others)
        )


_LISTED = ("source", "raw_path", "follow_symlinks", "byte_count", "modified_ns", "job_id", "status")


def _intake(intake_id: uuid.UUID, entry: IntakeEntry) -> dict[str, object]:
    error = entry.error
    return {
        "id": intake_id,
        "source": entry.source,
        "outcome": IntakeOutcome.NOT_TAKEN if error is None else error.outcome,
        "reason": error and error.reason,
        "message": error and error.what,
        "hint": (error and error.hint) or None,
    }


def is_held() -> ColumnElement[bool]:
    """Return the condition that a process holds the intake of a run."""
    is_alive = Run.lease_until.is_not(None) & (Run.lease_until > clock.database_now())
    return Run.intake_finished_at.is_(None) & is_alive


def is_interrupted() -> ColumnElement[bool]:
    """Return the condition that the intake of a run was interrupted."""
    is_lost = or_(Run.lease_until.is_(None), Run.lease_until <= clock.database_now())
    is_open = and_(Run.intake_finished_at.is_(None), Run.status != RunStatus.CANCELLED)
    return and_(is_open, is_lost, ~is_for_readers())


def is_for_readers() -> ColumnElement[bool]:
    """Return the condition that files of a run wait for readers, or are being read by them."""
    is_listed = ListedFile.status == ListedStatus.LISTED
    return select(ListedFile.id).where(ListedFile.run_id == Run.id, ~is_listed).exists()


def next_for_readers(session: Session, besides: Collection[uuid.UUID]) -> uuid.UUID | None:
    """Return the run whose files are to be read next, with interactive runs first."""
    of_run = and_(ListedFile.run_id == Run.id, _is_free())
    has_free = select(ListedFile.id).where(of_run).exists()
    is_open = and_(Run.intake_finished_at.is_(None), Run.status != RunStatus.CANCELLED)
    statement = select(Run.id).where(is_open, has_free, ~in_ids(Run.id, besides))
    return session.scalar(statement.order_by(Run.priority, Run.id).limit(1))


def join(session: Session, run_id: uuid.UUID, lease: timedelta) -> Run | None:
    """Return a run whose intake readers hold together, by one token; `None` if it has ended."""
    is_over = or_(Run.lease_until.is_(None), Run.lease_until <= clock.database_now())
    token = case((is_over, uuid.uuid4()), else_=Run.lease_token)
    values = {"lease_token": token, "lease_until": clock.now_plus(lease)}
    is_open = Run.intake_finished_at.is_(None)
    statement = update(Run).where(Run.id == run_id, is_open).values(**values).returning(Run)
    return session.scalars(statement).one_or_none()


def claim_files(
    session: Session, run_id: uuid.UUID, token: uuid.UUID, lease: timedelta, limit: int
) -> list[ListedFile]:
    """Claim files of a run to read, in order; one alone if its reader was lost before."""
    free = (
        select(ListedFile.id)
        .where(ListedFile.run_id == run_id, _is_free())
        .order_by(ListedFile.position)
        .with_for_update(skip_locked=True)
    )
    for picked in (free.where(ListedFile.attempts == 0).limit(limit), free.limit(1)):
        claimed = session.scalars(
            update(ListedFile)
            .where(ListedFile.id.in_(picked))
            .values(
                status=ListedStatus.READING,
                attempts=ListedFile.attempts + 1,
                lease_token=token,
                lease_until=clock.now_plus(lease),
            )
            .returning(ListedFile)
        ).all()
        if claimed:
            return sorted(claimed, key=lambda file: file.position)
    return []


def _is_free() -> ColumnElement[bool]:
    is_free = or_(ListedFile.status == ListedStatus.WAITING, ListedFile.has_expired())
    return and_(ListedFile.status != ListedStatus.LISTED, is_free)  # as in the index


def require_reader(
    session: Session, run_id: uuid.UUID, ids: Collection[uuid.UUID], token: uuid.UUID
) -> None:
    """Check that a reader holds files, and let other readers of the run wait until the commit.

    Two readers could otherwise both store the same content as new to the run.

    Raises:
        LeaseLostError: Another reader has claimed one of the files.
    """
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(str(run_id), 0))))
    is_held = and_(in_ids(ListedFile.id, ids), ListedFile.lease_token == token)
    held = session.scalars(select(ListedFile.id).where(is_held).with_for_update())
    leases.require_all(held.all(), ids)


def keep_for_one(session: Session, run_id: uuid.UUID) -> None:
    """Take the files of a run from its readers, if none of them lives."""
    session.execute(
        update(ListedFile)
        .where(ListedFile.run_id == run_id, ListedFile.status != ListedStatus.LISTED)
        .where(ListedFile.run_id.in_(select(Run.id).where(Run.lease_until <= clock.database_now())))
        .values(status=ListedStatus.LISTED, lease_token=None, lease_until=None)
    )


def release_files(session: Session, token: uuid.UUID, *, is_counted: bool = False) -> None:
    """Release the files that a reader holds; its attempts count if it failed with a defect."""
    attempts = ListedFile.attempts - (0 if is_counted else 1)
    held = session.scalars(select(ListedFile.id).where(ListedFile.lease_token == token)).all()
    for file_id in held:
        leases.release(session, ListedFile, file_id, token, attempts)


def left_to_readers(session: Session, run_id: uuid.UUID) -> bool:
    """Return whether files of a run wait for readers, or are being read by them."""
    return session.scalar(select(Run.id).where(Run.id == run_id, is_for_readers())) is not None


def claim(
    session: Session, run_id: uuid.UUID, token: uuid.UUID, lease: timedelta, *, by_force: bool
) -> bool:
    """Claim an interrupted intake, or with `by_force` also one that another process holds."""
    is_free = is_interrupted() | (Run.lease_token == token)
    if by_force:
        is_free = Run.intake_finished_at.is_(None) & (Run.status != RunStatus.CANCELLED)
    until = clock.now_plus(lease)
    return update_rows(
        session, Run, Run.id == run_id, is_free, lease_token=token, lease_until=until
    )


def locked(session: Session, run_id: uuid.UUID) -> tuple[RunStatus, uuid.UUID | None]:
    """Return the status of a run and the token of its intake, locked until the commit."""
    statement = (
        select(Run.status, Run.lease_token).where(Run.id == run_id).with_for_update(read=True)
    )
    status, token = session.execute(statement).one()
    return RunStatus(status), token


def held_until(session: Session, run_id: uuid.UUID) -> datetime | None:
    """Return when the lease on the intake of a run ends; `None` if no process holds it."""
    return session.scalar(select(Run.lease_until).where(Run.id == run_id, is_held()))


def release(session: Session, run_id: uuid.UUID, token: uuid.UUID, unlisted: int) -> None:
    """End the lease, if it is not lost; the intake is finished unless entries remain on the list.

    `unlisted` is the number of items taken in that were not on the list.
    """
    left = select(ListedFile.id).where(ListedFile.run_id == run_id).exists()
    values = {
        "lease_token": None,
        "lease_until": clock.database_now(),
        "intake_finished_at": case((left, null()), else_=func.now()),
        "found_count": func.coalesce(Run.found_count, 0) + unlisted,
    }
    if update_rows(session, Run, Run.id == run_id, Run.lease_token == token, **values):
        runs.settle(session, run_id)


# During an outage of the database, a process cannot extend its lease.
_LOST_FOR = timedelta(minutes=10)


def finish_all(session: Session) -> int:
    """Finish intakes whose process is lost and whose list is empty; return their number.

    Without a list, that holds only if the process ended before it found anything.
    """
    left = select(ListedFile.id).where(ListedFile.run_id == Run.id).exists()
    is_empty = (Run.lease_until < clock.now_plus(-_LOST_FOR)) & ~(
        select(Intake.id).where(Intake.run_id == Run.id).exists()
    )
    has_list = Run.found_count.is_not(None)
    is_whole = Run.intake_finished_at.is_(None) & ~left & or_(has_list, is_empty)
    statement = (
        update(Run)
        .where(is_interrupted(), is_whole, Run.status == RunStatus.OPEN)
        .values(lease_token=None, intake_finished_at=func.now())
        .returning(Run.id)
    )
    ids = session.scalars(statement).all()
    for run_id in ids:
        runs.settle(session, run_id)
    return len(ids)
