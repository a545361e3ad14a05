"""Documents: texts taken in, known by the hash of their content."""

from __future__ import annotations

import hashlib
import uuid

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.json_values import JsonObject
from chordwise.storage.record import CreatedAt, Identity, Record, new_id


class Document(Record):
    """One text; `sha256` is the hash of the normalized stored text, `source` its first name."""

    __tablename__ = "documents"

    id: Mapped[Identity]
    sha256: Mapped[str] = mapped_column(unique=True)
    source: Mapped[str]
    media_type: Mapped[str]
    title: Mapped[str | None]
    text: Mapped[str] = mapped_column(deferred=True)
    character_count: Mapped[int]
    normalization: Mapped[JsonObject]
    created_at: Mapped[CreatedAt]


def hash_of(text: str) -> str:
    """Return the identity of a normalized text."""
    return hashlib.sha256(text.encode()).hexdigest()


def store(session: Session, document: Document) -> uuid.UUID:
    """Insert a document unless its content is known; return the id under which it is stored."""
    values = {
        "id": new_id(),
        "sha256": hash_of(document.text),
        "source": document.source,
        "media_type": document.media_type,
        "title": document.title,
        "text": document.text,
        "character_count": len(document.text),
        "normalization": document.normalization,
    }
    statement = insert(Document).values(values).on_conflict_do_nothing().returning(Document.id)
    # Locked against being pruned before the commit; one that was just pruned is stored anew.
    known = (
        select(Document.id)
        .where(Document.sha256 == values["sha256"])
        .with_for_update(read=True, key_share=True)
    )
    while True:
        stored = session.scalar(statement) or session.scalar(known)
        if stored is not None:
            return stored


def text_of(session: Session, document_id: uuid.UUID) -> str:
    """Return a document's whole text."""
    return session.scalars(select(Document.text).where(Document.id == document_id)).one()
