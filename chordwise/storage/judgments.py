"""Judgments: which values of results are right, by a gold file or by feedback."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, UniqueConstraint, delete
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.json_values import JsonValue
from chordwise.domain.learning.judging import Judgment as JudgmentValue
from chordwise.storage.clock import database_now
from chordwise.storage.record import Identity, Record, new_id


class JudgedBy(StrEnum):
    """Who knew the truth; the values stand in `judgments.judged_by`."""

    FEEDBACK = "feedback"
    GOLD = "gold"


class Judgment(Record):
    """Whether a value of a result was right, and the confidence that was claimed for it.

    There is one for each value and source of truth: the last one. When its job is pruned it stays
    for learning, without `job_id`, `expected` and `found`; hence `document_id` and `result_id`
    refer to nothing. `options_hash` is that of the job: the identity of the question.
    """

    __tablename__ = "judgments"
    __table_args__ = (UniqueConstraint("result_id", "judged_by", "part", "path"),)

    id: Mapped[Identity]
    job_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    evaluation_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("evaluations.id"))
    document_id: Mapped[uuid.UUID]
    result_id: Mapped[uuid.UUID]
    options_hash: Mapped[str]
    analysis_type: Mapped[str]
    provider: Mapped[str]
    model: Mapped[str]
    prompt_version: Mapped[str]
    judged_by: Mapped[str]
    part: Mapped[str]
    path: Mapped[str]
    confidence: Mapped[float | None]
    is_right: Mapped[bool]
    expected: Mapped[JsonValue | None]
    found: Mapped[JsonValue | None]
    judged_at: Mapped[datetime] = mapped_column(server_default=database_now())


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedResult:
    """The result that judgments are about."""

    job_id: uuid.UUID
    document_id: uuid.UUID
    result_id: uuid.UUID
    options_hash: str
    analysis_type: str
    provider: str
    model: str
    prompt_version: str


def store(
    session: Session,
    result: JudgedResult,
    judged: Sequence[JudgmentValue],
    judged_by: JudgedBy,
    evaluation_id: uuid.UUID | None = None,
) -> None:
    """Write judgments of a result, in the place of earlier ones of the same source."""
    earlier = delete(Judgment).where(
        Judgment.result_id == result.result_id, Judgment.judged_by == judged_by
    )
    session.execute(earlier)
    if not judged:
        return
    about = {name: getattr(result, name) for name in JudgedResult.__dataclass_fields__}
    rows = [
        {
            **about,
            "id": new_id(),
            "evaluation_id": evaluation_id,
            "judged_by": judged_by,
            **{name: getattr(each, name) for name in JudgmentValue.__dataclass_fields__},
        }
        for each in judged
    ]
    # Whoever judges the same result at the same time: the later one stays.
    statement = insert(Judgment).values(rows)
    renewed = ("evaluation_id", "confidence", "is_right", "expected", "found")
    changes = {name: statement.excluded[name] for name in renewed}
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["result_id", "judged_by", "part", "path"],
            set_={**changes, "judged_at": database_now()},
        )
    )
