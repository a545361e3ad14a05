"""Facts: one row per field or finding of a result, with its quote and place."""

from __future__ import annotations

import uuid

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from chordwise.storage.record import Identity, Record


class Fact(Record):
    """A value at a JSON Pointer of the job's current output.

    Where `grounded`, `substr(text, start_char + 1, end_char - start_char) = quote` holds for the
    job's document.
    """

    __tablename__ = "facts"

    id: Mapped[Identity]
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"), index=True)
    path: Mapped[str]
    text: Mapped[str | None]
    number: Mapped[float | None]
    confidence: Mapped[float | None]
    quote: Mapped[str | None]
    start_char: Mapped[int | None]
    end_char: Mapped[int | None]
    grounded: Mapped[bool | None]
