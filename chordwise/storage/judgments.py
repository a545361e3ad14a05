"""Judgments: the correctness of values of results, according to a gold file or feedback."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from operator import attrgetter

from sqlalchemy import (
    ColumnElement,
    ForeignKey,
    Index,
    UniqueConstraint,
    column,
    delete,
    exists,
    false,
    select,
    table,
)
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.orm import Mapped, Session, aliased, mapped_column

from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.learning import truths
from chordwise.domain.learning.judging import Judgment as JudgmentValue
from chordwise.domain.learning.measures import Measure
from chordwise.domain.learning.truths import Remark, Verdict
from chordwise.storage import jobs
from chordwise.storage.clock import database_now
from chordwise.storage.record import Identity, Record, in_ids, new_id
from chordwise.storage.runs import Run


class Feedback(Record):
    """The verdict of a person on the value of a result at `path`; an empty path means all of it.

    `result_id` is the judged result, which may have been replaced since. `judged` is its value, and
    `confidence` the confidence claimed for the value. `field` names the field of an extraction,
    whose values `judged` and `corrected` hold as lists. `quote` is the passage of the text selected
    for the right value, null if none was selected; `start_char` and `end_char` locate it.
    `question` is the question that was answered, without the model and the threshold. Rows are
    never changed: a row with the verdict `withdrawn` withdraws the row with the id `withdraws`, and
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
    """Return the condition that feedback neither withdraws another row nor is withdrawn."""
    later = aliased(Feedback)
    return Feedback.withdraws.is_(None) & ~exists().where(later.withdraws == Feedback.id)


def store_feedback(session: Session, feedback: Feedback) -> bool:
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
    found = session.scalars(known.where(_counts())).one_or_none()
    if found is None:
        return None
    same = ("job_id", "document_id", "result_id", "analysis_type", "path", "field", "question")
    session.add(
        Feedback(
            **{name: getattr(found, name) for name in same},
            withdraws=found.id,
            verdict=WITHDRAWN,
            author=author,
        )
    )
    session.flush()
    return found


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
    found: dict[uuid.UUID, list[Feedback]] = defaultdict(list)
    for each in of_documents(session, sorted(set(document_ids))):
        found[each.document_id].append(each)
    return found


def applicable(
    rows: Iterable[Feedback], kind: AnalysisType, question: JsonObject
) -> Sequence[Feedback]:
    """Return the feedback that applies to answers to a question (`truths.holds_for`)."""
    return [
        each
        for each in rows
        if each.analysis_type == kind
        and truths.holds_for(kind, remark(each), each.question, question)
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


class Evaluation(Record):
    """The results of one analysis type compared with the truth.

    `is_whole` is false for the part of one provider, model and prompt version, if there are
    several; these columns are null for the whole. It is also false for the part that `is_held_out`:
    the documents that are excluded from becoming examples. `run` is the name of the run, null for
    the current results of all runs. `gold_file` and its hash are null if feedback was the truth.
    `missing` counts the documents of the truth without a result, and its fields that no question
    asks for; `unjudged` counts results that the truth does not cover.
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
    """One number of an evaluation, with its 95 % confidence bounds if it has any.

    `label` is a label or a field, empty for all together; in a confusion matrix it is the right
    label, and `found` is the chosen one. `count` is the number of measured cases.
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


def store_evaluation(session: Session, evaluation: Evaluation, measured: Sequence[Measure]) -> None:
    """Add an evaluation and its measures; of a run pruned meanwhile only the name is kept."""
    of_run = select(Run.id).where(Run.id == evaluation.run_id)
    evaluation.run_id = session.scalar(of_run.with_for_update(read=True, key_share=True))
    session.add(evaluation)
    session.flush()
    rows = [{"evaluation_id": evaluation.id, **asdict(each)} for each in measured]
    if rows:
        session.execute(insert(EvaluationMeasure), rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """A number that fell since the previous evaluation by more than chance explains.

    `change_low` and `change_high` are the 95 % confidence bounds of the change.
    """

    analysis_type: str
    metric: str
    value: float
    earlier_value: float
    earlier_at: datetime
    change_low: float
    change_high: float


_CHANGES = table(
    "evaluation_changes",
    *map(column, Drop.__dataclass_fields__),
    *map(column, ("evaluation_id", "label", "has_dropped")),
)


def drops(session: Session, evaluation_ids: Sequence[uuid.UUID]) -> Sequence[Drop]:
    """Return the drops of the measures over all labels or fields of some evaluations."""
    found = session.execute(
        select(*(_CHANGES.c[name] for name in Drop.__dataclass_fields__))
        .where(
            _CHANGES.c.evaluation_id.in_(evaluation_ids),
            _CHANGES.c.has_dropped,
            _CHANGES.c.label == "",
        )
        .order_by(_CHANGES.c.analysis_type, _CHANGES.c.metric)
    )
    return [Drop(**row) for row in found.mappings()]


_AT_ONCE = 500


class JudgedBy(StrEnum):
    """The source of the truth; the values of `judgments.judged_by`."""

    FEEDBACK = "feedback"
    GOLD = "gold"


class Judgment(Record):
    """Whether a value of a result was right, and the confidence claimed for it.

    There is one row for each value and source of truth: the latest. When its job is pruned, the row
    is kept for learning without `job_id`, `expected` and `found`; therefore `document_id` and
    `result_id` are not foreign keys. `options_hash` is that of the job: it identifies the question.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedResult:
    """The result that is judged."""

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
    judged: Sequence[tuple[JudgedResult, Sequence[JudgmentValue]]],
    judged_by: JudgedBy,
    evaluation_id: uuid.UUID | None = None,
) -> None:
    """Store judgments of results, and replace earlier ones from the same source.

    Results whose jobs were pruned meanwhile are left out.
    """
    for start in range(0, len(judged), _AT_ONCE):
        some = judged[start : start + _AT_ONCE]
        earlier = delete(Judgment).where(
            Judgment.result_id.in_([result.result_id for result, _ in some]),
            Judgment.judged_by == judged_by,
        )
        session.execute(earlier)
        there = jobs.lock_existing(session, [result.job_id for result, _ in some])
        rows = [
            {"evaluation_id": evaluation_id, "judged_by": judged_by, **_row(result, each)}
            for result, own in some
            for each in own
            if result.job_id in there
        ]
        if rows:
            session.execute(_REPLACING, rows)


def _row(result: JudgedResult, judgment: JudgmentValue) -> dict[str, object]:
    return {
        "id": new_id(),
        **{name: getattr(result, name) for name in JudgedResult.__dataclass_fields__},
        **{name: getattr(judgment, name) for name in JudgmentValue.__dataclass_fields__},
    }


def _replacing() -> Insert:
    """Return an insert that replaces the judgment of a concurrent transaction."""
    statement = insert(Judgment)
    renewed = ("evaluation_id", "confidence", "is_right", "expected", "found")
    changes = {name: statement.excluded[name] for name in renewed}
    return statement.on_conflict_do_update(
        index_elements=["result_id", "judged_by", "part", "path"],
        set_={**changes, "judged_at": database_now()},
    )


_REPLACING = _replacing()
