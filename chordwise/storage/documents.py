"""Documents: stored texts, identified by the hash of their content."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Sequence
from datetime import timedelta
from threading import Lock

from sqlalchemy import LargeBinary, Text, any_, literal, select
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain import places
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.places import Place, Places
from chordwise.storage.database import Database
from chordwise.storage.record import CreatedAt, Identity, Record, new_id, words_index


class Document(Record):
    """One text; `sha256` is its identity (`ReadDocument.identity`), `source` its first name."""

    __tablename__ = "documents"
    __table_args__ = (words_index("ix_documents_words", "text"),)

    id: Mapped[Identity]
    sha256: Mapped[str] = mapped_column(unique=True)
    source: Mapped[str]
    media_type: Mapped[str]
    title: Mapped[str | None]
    transcribed_by: Mapped[str | None]
    text: Mapped[str] = mapped_column(deferred=True)
    character_count: Mapped[int]
    normalization: Mapped[JsonObject]
    flags: Mapped[JsonValue | None]
    places: Mapped[JsonValue | None] = mapped_column(deferred=True)
    layouts: Mapped[list[bytes] | None] = mapped_column(ARRAY(LargeBinary()), deferred=True)
    created_at: Mapped[CreatedAt]


def store_all(session: Session, documents: Sequence[Document]) -> list[uuid.UUID]:
    """Insert the documents whose identity is new; return the ids of all documents.

    They are inserted in the order of their hashes, so that two transactions with the same documents
    do not deadlock.
    """
    hashes = [document.sha256 for document in documents]
    rows: dict[str, dict[str, object]] = {}
    for sha256, document in zip(hashes, documents, strict=True):
        rows.setdefault(sha256, _row(sha256, document))
    ids: dict[str, uuid.UUID] = {}
    while missing := sorted(rows.keys() - ids.keys()):
        # One parameter for each value: an array would hold another, escaped copy of all texts.
        statement = insert(
            Document.metadata.tables[Document.__tablename__]
        ).on_conflict_do_nothing()
        returned = statement.returning(Document.sha256, Document.id)
        stored = session.execute(returned, [rows[sha256] for sha256 in missing])
        ids |= {sha256: id_ for sha256, id_ in stored}  # noqa: C416 - rows are no pairs to mypy
        if others := sorted(rows.keys() - ids.keys()):
            # The lock protects them from pruning until the commit.
            known = session.execute(
                select(Document.sha256, Document.id)
                .where(Document.sha256 == any_(literal(others, ARRAY(Text()))))
                .order_by(Document.sha256)
                .with_for_update(read=True, key_share=True)
            )
            ids |= {sha256: id_ for sha256, id_ in known}  # noqa: C416 - rows are no pairs to mypy
    return [ids[sha256] for sha256 in hashes]


_GIVEN = (
    *("source", "media_type", "title", "transcribed_by", "text", "normalization", "flags"),
    *("places", "layouts"),
)


def _row(sha256: str, document: Document) -> dict[str, object]:
    values = {name: getattr(document, name) for name in _GIVEN}
    return {"id": new_id(), "sha256": sha256, "character_count": len(document.text), **values}


def text_of(session: Session, document_id: uuid.UUID) -> str:
    """Return the whole text of a document."""
    return str(session.execute(_TEXT, {"id": document_id}).scalar_one())


_TEXT = sql("SELECT text FROM documents WHERE id = :id")


def listed_places(session: Session, document_id: uuid.UUID) -> Sequence[Place]:
    """Return the places of a document in the order of its text, without their layouts."""
    stored = session.scalar(select(Document.places).where(Document.id == document_id))
    return sorted(places.from_json(stored), key=lambda place: place.start_char)


def places_of(database: Database, document_id: uuid.UUID, within: timedelta) -> Places:
    """Return the places of a document.

    Raises:
        ServiceUnavailableError: The database was unavailable for longer than `within`.
    """
    return database.commit(lambda session: places_in(session, document_id), within)


def places_in(session: Session, document_id: uuid.UUID) -> Places:
    """Return the places of a document, read in the given session."""
    of_document = select(Document.places, Document.layouts).where(Document.id == document_id)
    stored, layouts = session.execute(of_document).one()
    return Places(places.from_json(stored, layouts or ()))


MAX_CHARACTERS = 2_000_000
"""The limit of all cached texts together; the newest text is kept whatever its size."""


class DocumentTexts:
    """A cache of the most recently read texts, which never change; thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._texts: OrderedDict[uuid.UUID, str] = OrderedDict()
        self._reading: dict[uuid.UUID, Lock] = {}
        self._lock = Lock()

    def text(self, document_id: uuid.UUID, within: timedelta) -> str:
        """Return the text of a document.

        Raises:
            ServiceUnavailableError: The database was unavailable for longer than `within`.
        """
        with self._lock:
            if document_id in self._texts:
                self._texts.move_to_end(document_id)
                return self._texts[document_id]
            reading = self._reading.setdefault(document_id, Lock())
        with reading:
            with self._lock:
                if document_id in self._texts:
                    return self._texts[document_id]
            text = self._database.commit(lambda session: text_of(session, document_id), within)
            self.add(document_id, text)
        return text

    def add(self, document_id: uuid.UUID, text: str) -> None:
        """Add a text to the cache."""
        with self._lock:
            self._texts[document_id] = text
            self._reading.pop(document_id, None)
            kept = sum(map(len, self._texts.values()))
            while kept > MAX_CHARACTERS and len(self._texts) > 1:
                _, dropped = self._texts.popitem(last=False)
                kept -= len(dropped)
