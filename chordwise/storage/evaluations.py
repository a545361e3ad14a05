"""Evaluations: the measures of answers against a truth, and their significant drops."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import ForeignKey, false, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.learning.measures import Measure
from chordwise.storage.clock import database_now
from chordwise.storage.record import Identity, Record
from chordwise.storage.runs import Run


class Evaluation(Record):
    """The results of one analysis type compared with the truth.

    `is_whole` is false for the part of one provider, model and prompt version, and for the part
    that `is_held_out`: documents that never become examples. `run` is null for the current results
    of all runs, `gold_file` if feedback was the truth. `missing` counts documents without a result
    and fields that no question asks for, `unjudged` results that the truth does not cover.
    """

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
    """One number of an evaluation over `count` cases, with 95 % confidence bounds if it has any.

    In a confusion matrix, `label` is the right label, and `found` is the chosen one.
    """

    __tablename__ = "evaluation_measures"

    evaluation_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("evaluations.id"), primary_key=True)
    metric: Mapped[str] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(primary_key=True)
    found: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float]
    low: Mapped[float | None]
    high: Mapped[float | None]
    count: Mapped[int]


def store(session: Session, evaluation: Evaluation, measured: Sequence[Measure]) -> None:
    """Add an evaluation and its measures; of a run pruned meanwhile only the name is kept."""
    of_run = select(Run.id).where(Run.id == evaluation.run_id)
    evaluation.run_id = session.scalar(of_run.with_for_update(read=True, key_share=True))
    session.add(evaluation)
    session.flush()
    rows = [{"evaluation_id": evaluation.id, **asdict(measure)} for measure in measured]
    if rows:
        session.execute(insert(EvaluationMeasure), rows)
