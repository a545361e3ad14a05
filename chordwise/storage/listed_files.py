"""Listed files: what a run has found and not taken in yet, and where it lies."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Index,
    delete,
    func,
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
from chordwise.storage.record import Record, among, insert_all, new_id
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
        insert_all(session, Intake, [_intake(run_id, id_, each) for id_, each in some])
        listed = [
            _listed(run_id, id_, position + begin + index, each)
            for index, (id_, each) in enumerate(some)
            if each.error is None
        ]
        insert_all(session, ListedFile, listed)
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


def note_taken(session: Session, counts: Mapping[uuid.UUID, int]) -> None:
    """Count documents that were taken in of files that hold more, by the ids of their intakes.

    Raises:
        LeaseLostError: Another process has taken a file in.
    """
    if not counts:
        return
    arrays = (
        literal(list(counts), ARRAY(ListedFile.intake_id.type)),
        literal(list(counts.values()), ARRAY(ListedFile.documents_taken.type)),
    )
    taken = func.unnest(*arrays).table_valued("intake_id", "documents").render_derived()
    statement = (
        update(ListedFile)
        .where(ListedFile.intake_id == taken.c.intake_id)
        .values(documents_taken=ListedFile.documents_taken + taken.c.documents)
        .returning(ListedFile.intake_id)
    )
    _require_all(session.scalars(statement).all(), counts)


def remove(session: Session, run_id: uuid.UUID, counts: Mapping[uuid.UUID, int]) -> None:
    """Take entries off the list with the last documents in them, which have intakes of their own.

    `counts` says, by the ids of the intakes of the entries, how many documents come last.

    Raises:
        LeaseLostError: Another process has taken a file in.
    """
    if not counts:
        return
    statement = (
        delete(ListedFile)
        .where(among(ListedFile.intake_id, counts))
        .returning(ListedFile.intake_id, ListedFile.documents_taken)
    )
    removed = session.execute(statement).all()
    _require_all([intake_id for intake_id, _ in removed], counts)
    session.execute(delete(Intake).where(among(Intake.id, counts)))
    others = sum(before + counts[intake_id] - 1 for intake_id, before in removed)
    if others:
        session.execute(
            update(Run).where(Run.id == run_id).values(found_count=Run.found_count + others)
        )


def _require_all(found: Sequence[uuid.UUID], wanted: Collection[uuid.UUID]) -> None:
    if len(found) < len(wanted):
        raise LeaseLostError("Another process has taken this file in.")


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
