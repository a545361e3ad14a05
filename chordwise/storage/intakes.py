"""Intakes: each thing a run saw, and what became of it."""

from __future__ import annotations

import uuid
from collections.abc import Collection

from sqlalchemy import BigInteger, ForeignKey, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.storage.record import CreatedAt, Identity, Record, among


class Intake(Record):
    """One file, row or stream; `sha256` is the hash of its bytes, `reason` a stable code.

    A file that is not read yet has the outcome `not_taken`, and a row in `listed_files`.
    """

    __tablename__ = "intakes"

    id: Mapped[Identity]
    run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("runs.id"), index=True)
    source: Mapped[str]
    sha256: Mapped[str | None]
    byte_count: Mapped[int | None] = mapped_column(BigInteger)
    outcome: Mapped[str]
    reason: Mapped[str | None]
    message: Mapped[str | None]
    hint: Mapped[str | None]
    document_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("documents.id"), index=True)
    created_at: Mapped[CreatedAt]


def exists(session: Session, intake_id: uuid.UUID) -> bool:
    """Tell whether an intake was stored."""
    return session.scalar(select(Intake.id).where(Intake.id == intake_id)) is not None


def documents_in(
    session: Session, run_id: uuid.UUID, document_ids: Collection[uuid.UUID]
) -> set[uuid.UUID]:
    """Return those of the documents that the run took in before."""
    statement = select(Intake.document_id).where(
        Intake.run_id == run_id, among(Intake.document_id, document_ids)
    )
    return {each for each in session.scalars(statement) if each is not None}
