"""Evaluations: how good results were found to be, and when."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ForeignKey, insert, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.learning.measures import Measure
from chordwise.storage.clock import database_now
from chordwise.storage.record import Identity, Record
from chordwise.storage.runs import Run


class Evaluation(Record):
    """The results of one analysis type beside the truth.

    `is_whole` is false for the part of one provider, model and prompt version, where there are
    several; those of the whole are null then. `run` is the run's name, null for the current results
    of all runs; `gold_file` and its hash are null where feedback was the truth. `missing` are
    documents of the truth without a result, and fields of it that no question asks for; `unjudged`
    are results that it says nothing of.
    """

    __tablename__ = "evaluations"

    id: Mapped[Identity]
    run_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("runs.id"), index=True)
    run: Mapped[str | None]
    profile: Mapped[str | None]
    analysis_type: Mapped[str]
    is_whole: Mapped[bool]
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
    """One number of an evaluation, with its bounds of 95 % where it has any.

    `label` is a label or a field, empty for all together; of a confusion it is the right label, and
    `found` the chosen one. `count` is how many cases it is measured on.
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
    """Add an evaluation with what was measured; a run that was pruned meanwhile stays a name."""
    of_run = select(Run.id).where(Run.id == evaluation.run_id)
    evaluation.run_id = session.scalar(of_run.with_for_update(read=True, key_share=True))
    session.add(evaluation)
    session.flush()
    names = Measure.__dataclass_fields__
    rows = [
        {"evaluation_id": evaluation.id, **{name: getattr(each, name) for name in names}}
        for each in measured
    ]
    if rows:
        session.execute(insert(EvaluationMeasure), rows)
