"""Judgments of values by a gold file or feedback, and the evaluations that measure them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from typing import cast

from sqlalchemy import ForeignKey, UniqueConstraint, delete, false, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.json_values import JsonValue
from chordwise.domain.learning.judgments import Judgment as JudgmentValue
from chordwise.domain.learning.measures import Measure
from chordwise.storage import jobs
from chordwise.storage.clock import database_now
from chordwise.storage.record import Identity, Record, new_id
from chordwise.storage.runs import Run

_AT_ONCE = 500


class Evaluation(Record):
    """The results of one analysis type compared with the truth."""

    __tablename__ = "evaluations"

    id: Mapped[Identity]
    run_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("runs.id"), index=True)
    run: Mapped[str | None]
    profile: Mapped[str | None]
    analysis_type: Mapped[str]
    is_whole: Mapped[bool]
    is_held_out: Mapped[bool] = mapped_column(server_default=false())
    provider: Mapped[str | None]
    model: Mapped[str | None]
    prompt_version: Mapped[str | None]
    gold_file: Mapped[str | None]
    gold_sha256: Mapped[str | None]
    judged: Mapped[int]
    unjudged: Mapped[int]
    missing: Mapped[int]
    evaluated_at: Mapped[datetime] = mapped_column(server_default=database_now(), index=True)


class EvaluationMeasure(Record):
    """One number of an evaluation over `count` cases, with 95 % confidence bounds if it has any."""

    __tablename__ = "evaluation_measures"

    evaluation_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("evaluations.id"), primary_key=True)
    metric: Mapped[str] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(primary_key=True)
    found: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float]
    low: Mapped[float | None]
    high: Mapped[float | None]
    count: Mapped[int]


class JudgedBy(StrEnum):
    """The source of the truth; the values of `judgments.judged_by`."""

    FEEDBACK = "feedback"
    GOLD = "gold"


class Judgment(Record):
    """Whether a value of a result was right: the latest row for each value and source of truth.

    When its job is pruned, the row is kept for learning without `job_id`, `expected` and `found`;
    therefore `document_id` and `result_id` are not foreign keys.
    """

    __tablename__ = "judgments"
    __table_args__ = (UniqueConstraint("result_id", "judged_by", "part", "path"),)

    id: Mapped[Identity]
    job_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    evaluation_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey(Evaluation.id))
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


_OF_RESULT = (
    *("job_id", "document_id", "result_id", "options_hash", "analysis_type"),
    *("provider", "model", "prompt_version"),
)
"""The columns that identify the judged result."""


def store(
    session: Session,
    judged: Sequence[tuple[Mapping[str, object], Sequence[JudgmentValue]]],
    judged_by: JudgedBy,
    evaluation_id: uuid.UUID | None = None,
) -> None:
    """Store judgments of results that still exist; replace earlier ones from the same source."""
    statement = insert(Judgment)
    renewed = ("evaluation_id", "confidence", "is_right", "expected", "found")
    changes = {name: statement.excluded[name] for name in renewed}
    replacing = statement.on_conflict_do_update(
        index_elements=["result_id", "judged_by", "part", "path"],
        set_={**changes, "judged_at": database_now()},
    )
    for start in range(0, len(judged), _AT_ONCE):
        some = judged[start : start + _AT_ONCE]
        earlier = delete(Judgment).where(
            Judgment.result_id.in_([result["result_id"] for result, _ in some]),
            Judgment.judged_by == judged_by,
        )
        session.execute(earlier)
        there = jobs.lock_existing(
            session, [cast("uuid.UUID", result["job_id"]) for result, _ in some]
        )
        rows = [
            {
                "id": new_id(),
                "evaluation_id": evaluation_id,
                "judged_by": judged_by,
                **{name: result[name] for name in _OF_RESULT},
                **asdict(judgment),
            }
            for result, judgments in some
            for judgment in judgments
            if result["job_id"] in there
        ]
        if rows:
            session.execute(replacing, rows)


def store_evaluation(session: Session, evaluation: Evaluation, measured: Sequence[Measure]) -> None:
    """Add an evaluation and its measures; of a run pruned meanwhile only the name is kept."""
    of_run = select(Run.id).where(Run.id == evaluation.run_id)
    evaluation.run_id = session.scalar(of_run.with_for_update(read=True, key_share=True))
    session.add(evaluation)
    session.flush()
    rows = [{"evaluation_id": evaluation.id, **asdict(measure)} for measure in measured]
    if rows:
        session.execute(insert(EvaluationMeasure), rows)
