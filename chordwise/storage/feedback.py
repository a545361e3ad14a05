"""Feedback: the verdicts of people on results, which later answers to the same question use."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter

from sqlalchemy import ColumnElement, ForeignKey, Index, exists, select
from sqlalchemy.orm import Mapped, Session, aliased, mapped_column

from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.learning import truths
from chordwise.domain.learning.truths import Remark, Verdict
from chordwise.storage.clock import database_now
from chordwise.storage.record import Identity, Record, in_ids


class Feedback(Record):
    """The verdict of a person on the value of a result at `path`; an empty path means all of it.

    Rows are never changed: a row with the verdict `withdrawn` withdraws the row `withdraws`, and
    neither of them counts.
    """

    __tablename__ = "feedback"
    __table_args__ = (
        Index("ix_feedback_question", "document_id", "analysis_type"),
        Index("ix_feedback_created_at", "created_at"),
        Index(
            "ux_feedback_withdraws",
            "withdraws",
            unique=True,
            postgresql_where="withdraws IS NOT NULL",
        ),
    )

    id: Mapped[Identity]
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"), index=True)
    document_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("documents.id"))
    result_id: Mapped[uuid.UUID]
    withdraws: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("feedback.id"))
    analysis_type: Mapped[str]
    path: Mapped[str]
    verdict: Mapped[str]
    field: Mapped[str | None]
    note: Mapped[str | None]
    author: Mapped[str | None]
    quote: Mapped[str | None]
    start_char: Mapped[int | None]
    end_char: Mapped[int | None]
    question: Mapped[JsonObject]
    judged: Mapped[JsonValue | None]
    corrected: Mapped[JsonValue | None]
    confidence: Mapped[float | None]
    created_at: Mapped[datetime] = mapped_column(server_default=database_now())


WITHDRAWN = "withdrawn"
"""The verdict of a row that withdraws another one."""


def _counts() -> ColumnElement[bool]:
    later = aliased(Feedback)
    return Feedback.withdraws.is_(None) & ~exists().where(later.withdraws == Feedback.id)


def store(session: Session, feedback: Feedback) -> bool:
    """Add feedback unless it repeats the last one on the value; return whether it was added."""
    last = session.scalars(
        select(Feedback)
        .where(
            Feedback.document_id == feedback.document_id,  # has an index
            Feedback.result_id == feedback.result_id,
            Feedback.path == feedback.path,
            _counts(),
        )
        .order_by(Feedback.created_at.desc(), Feedback.id.desc())
        .limit(1)
    ).one_or_none()
    compared = attrgetter("verdict", "corrected", "note", "author", "start_char", "end_char")
    if last is not None and compared(last) == compared(feedback):
        return False
    session.add(feedback)
    session.flush()
    return True


def withdraw(session: Session, feedback_id: uuid.UUID, author: str | None) -> Feedback | None:
    """Withdraw feedback and return it; `None` if no feedback in force has this id."""
    known = select(Feedback).where(Feedback.id == feedback_id)
    session.execute(known.with_for_update())
    feedback = session.scalars(known.where(_counts())).one_or_none()
    if feedback is None:
        return None
    same = ("job_id", "document_id", "result_id", "analysis_type", "path", "field", "question")
    session.add(
        Feedback(
            **{name: getattr(feedback, name) for name in same},
            withdraws=feedback.id,
            verdict=WITHDRAWN,
            author=author,
        )
    )
    session.flush()
    return feedback


def of_documents(session: Session, document_ids: Sequence[uuid.UUID]) -> Sequence[Feedback]:
    """Return the feedback in force on results of these documents, the latest last."""
    return session.scalars(
        select(Feedback)
        .where(in_ids(Feedback.document_id, document_ids), _counts())
        .order_by(Feedback.created_at, Feedback.id)
    ).all()


def by_document(
    session: Session, document_ids: Iterable[uuid.UUID]
) -> Mapping[uuid.UUID, Sequence[Feedback]]:
    """Return the feedback in force by document; of a document without feedback it is empty."""
    groups: dict[uuid.UUID, list[Feedback]] = defaultdict(list)
    for row in of_documents(session, sorted(set(document_ids))):
        groups[row.document_id].append(row)
    return groups


def applicable(
    rows: Iterable[Feedback], kind: AnalysisType, question: JsonObject
) -> Sequence[Feedback]:
    """Return the feedback that applies to answers to a question (`truths.holds_for`)."""
    return [
        row
        for row in rows
        if row.analysis_type == kind and truths.holds_for(kind, remark(row), row.question, question)
    ]


def remark(feedback: Feedback) -> Remark:
    """Return feedback as a domain object."""
    return Remark(
        path=feedback.path,
        name=feedback.field or "",
        verdict=Verdict(feedback.verdict),
        judged=feedback.judged,
        corrected=feedback.corrected,
        quote=feedback.quote or "",
        span=(feedback.start_char or 0, feedback.end_char or 0),
    )
