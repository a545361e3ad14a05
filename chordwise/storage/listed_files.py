"""Listed files: what a run has found and not taken in yet, and where it lies."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Index,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.states import IntakeOutcome
from chordwise.errors import LeaseLostError, ReadError
from chordwise.storage.intakes import Intake
from chordwise.storage.record import Record, new_id
from chordwise.storage.runs import Run

_AT_ONCE = 1_000


class ListedFile(Record):
    """One entry of the list of a run, until everything in it is taken in.

    Its row in `intakes` has the outcome `not_taken`. `raw_path` holds the bytes of the absolute
    path, `byte_count` and `modified_ns` tell whether the file is still the one that was found.
    Without a path, `job_id` names the job whose stored document is asked anew; without either the
    entry is standard input. `documents_taken` counts the documents of a file that holds several.
    """

    __tablename__ = "listed_files"
    __table_args__ = (Index("ix_listed_files_run_id_position", "run_id", "position", unique=True),)

    intake_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("intakes.id"), primary_key=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Something to put on the list of a run; with an `error` it is known that it is not read."""

    source: str
    raw_path: bytes | None = None
    follow_symlinks: bool = False
    byte_count: int | None = None
    modified_ns: int | None = None
    job_id: uuid.UUID | None = None
    error: ReadError | None = None


def add(session: Session, run_id: uuid.UUID, entries: Sequence[Entry]) -> Sequence[uuid.UUID]:
    """Put entries on the list of a run; return the ids of their intakes."""
    statement = (
        update(Run)
        .where(Run.id == run_id)
        .values(found_count=func.coalesce(Run.found_count, 0) + len(entries))
        .returning(Run.found_count)
    )
    position = (session.scalars(statement).one() or 0) - len(entries)
    ids = [new_id() for _ in entries]
    for begin in range(0, len(entries), _AT_ONCE):
        step = slice(begin, begin + _AT_ONCE)
        some = list(zip(ids[step], entries[step], strict=True))
        _insert(session, Intake, [_intake(run_id, id_, each) for id_, each in some])
        listed = [
            _listed(run_id, id_, position + begin + index, each)
            for index, (id_, each) in enumerate(some)
            if each.error is None
        ]
        _insert(session, ListedFile, listed)
    return ids


def of_run(session: Session, run_id: uuid.UUID, after: int) -> Sequence[ListedFile]:
    """Return the next entries behind a position."""
    return session.scalars(
        select(ListedFile)
        .where(ListedFile.run_id == run_id, ListedFile.position > after)
        .order_by(ListedFile.position)
        .limit(_AT_ONCE)
    ).all()


def at(session: Session, run_id: uuid.UUID, raw_path: bytes) -> ListedFile | None:
    """Return the entry of a file, unless it was taken in entirely."""
    statement = select(ListedFile).where(
        ListedFile.run_id == run_id, ListedFile.raw_path == raw_path
    )
    return session.scalars(statement).one_or_none()


def note_taken(session: Session, intake_id: uuid.UUID) -> None:
    """Count one of several documents in a file.

    Raises:
        LeaseLostError: Another process has taken the file in.
    """
    statement = (
        update(ListedFile)
        .where(ListedFile.intake_id == intake_id)
        .values(documents_taken=ListedFile.documents_taken + 1)
        .returning(ListedFile.run_id)
    )
    if session.scalar(statement) is None:
        raise LeaseLostError("Another process has taken this file in.")


def remove(session: Session, intake_id: uuid.UUID) -> None:
    """Take an entry off the list with the last document in it, which has an intake of its own.

    Raises:
        LeaseLostError: Another process has taken the file in.
    """
    statement = (
        delete(ListedFile)
        .where(ListedFile.intake_id == intake_id)
        .returning(ListedFile.run_id, ListedFile.documents_taken)
    )
    removed = session.execute(statement).one_or_none()
    if removed is None:
        raise LeaseLostError("Another process has taken this file in.")
    session.execute(delete(Intake).where(Intake.id == intake_id))
    run_id, others = removed
    if others:
        session.execute(
            update(Run).where(Run.id == run_id).values(found_count=Run.found_count + others)
        )


def _insert(session: Session, table: type[Record], rows: Sequence[dict[str, object]]) -> None:
    """Insert many rows in one statement, with an array for each column."""
    if not rows:
        return
    names = list(rows[0])
    arrays = [
        literal([row[name] for row in rows], ARRAY(table.__table__.c[name].type)) for name in names
    ]
    found = func.unnest(*arrays).table_valued(*names).render_derived()
    session.execute(insert(table).from_select(names, select(found)))


def _intake(run_id: uuid.UUID, intake_id: uuid.UUID, entry: Entry) -> dict[str, object]:
    error = entry.error
    return {
        "id": intake_id,
        "run_id": run_id,
        "source": entry.source,
        "outcome": IntakeOutcome.NOT_TAKEN if error is None else error.outcome,
        "reason": error and error.reason,
        "message": error and error.what,
        "hint": (error and error.hint) or None,
    }


def _listed(
    run_id: uuid.UUID, intake_id: uuid.UUID, position: int, entry: Entry
) -> dict[str, object]:
    return {
        "intake_id": intake_id,
        "run_id": run_id,
        "position": position,
        "source": entry.source,
        "raw_path": entry.raw_path,
        "follow_symlinks": entry.follow_symlinks,
        "byte_count": entry.byte_count,
        "modified_ns": entry.modified_ns,
        "job_id": entry.job_id,
    }
