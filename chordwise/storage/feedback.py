"""Feedback: what people said of results, with what was claimed when they said it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ForeignKey, Index, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.learning.truths import Remark, Verdict
from chordwise.storage.clock import database_now
from chordwise.storage.record import Identity, Record, among


class Feedback(Record):
    """A person's verdict on what a result said at `path`; the empty path is all of it.

    `result_id` is the result that was judged, be it the current one or a past one by now; `judged`
    is what it said, and `confidence` what it claimed of that. `field` names the field of an
    extraction, whose values `judged` and `corrected` hold as lists. `question` is what was asked,
    of whatever model and with whatever threshold.
    """

    __tablename__ = "feedback"
    __table_args__ = (Index("ix_feedback_question", "document_id", "analysis_type"),)

    id: Mapped[Identity]
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"), index=True)
    document_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("documents.id"))
    result_id: Mapped[uuid.UUID]
    analysis_type: Mapped[str]
    question: Mapped[JsonObject]
    path: Mapped[str]
    field: Mapped[str | None]
    verdict: Mapped[str]
    judged: Mapped[JsonValue | None]
    corrected: Mapped[JsonValue | None]
    confidence: Mapped[float | None]
    note: Mapped[str | None]
    author: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=database_now())


def store(session: Session, feedback: Feedback) -> bool:
    """Add feedback unless it repeats the last one on the same value; tell whether it was added."""
    last = session.scalars(
        select(Feedback)
        .where(
            Feedback.document_id == feedback.document_id,  # which has an index
            Feedback.result_id == feedback.result_id,
            Feedback.path == feedback.path,
        )
        .order_by(Feedback.created_at.desc(), Feedback.id.desc())
        .limit(1)
    ).one_or_none()
    said = ("verdict", "corrected", "note", "author")
    if last is not None and all(getattr(last, name) == getattr(feedback, name) for name in said):
        return False
    session.add(feedback)
    session.flush()
    return True


def of_documents(session: Session, document_ids: Sequence[uuid.UUID]) -> Sequence[Feedback]:
    """Return what was said of results of these documents, the latest last."""
    return session.scalars(
        select(Feedback)
        .where(among(Feedback.document_id, document_ids))
        .order_by(Feedback.created_at, Feedback.id)
    ).all()


def remark(feedback: Feedback) -> Remark:
    """Return feedback as the domain knows it."""
    return Remark(
        path=feedback.path,
        name=feedback.field or "",
        verdict=Verdict(feedback.verdict),
        judged=feedback.judged,
        corrected=feedback.corrected,
    )
