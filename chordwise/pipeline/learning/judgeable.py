"""Stored results that can be judged, and the lookup of documents by name."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TypeVar

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from chordwise.domain.analysis_tasks import AnalysisType, question_of
from chordwise.domain.json_values import JsonObject
from chordwise.domain.learning import truths
from chordwise.domain.learning.judgments import AnswerWithConfidence
from chordwise.domain.learning.learned_examples import is_held_out
from chordwise.domain.learning.truths import Truth
from chordwise.relations import results as stored_results
from chordwise.relations.results import ResultSelection
from chordwise.storage import feedback as stored_feedback
from chordwise.storage.database import driver
from chordwise.storage.documents import Document
from chordwise.storage.feedback import Feedback
from chordwise.storage.intakes import Intake
from chordwise.storage.jobs import Job
from chordwise.storage.judgments import JudgedResult
from chordwise.storage.model_calls import ModelCall
from chordwise.storage.record import copied, in_ids
from chordwise.storage.results import Result

_AT_ONCE = 500

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """The ids of a result; `question` is the part of the options that defines the question.

    `options_hash` also identifies the model, the prompt and the version that answered it.
    """

    result_id: uuid.UUID
    job_id: uuid.UUID
    document_id: uuid.UUID
    analysis_type: AnalysisType
    source: str
    question: JsonObject
    options_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgeable:
    """A result with its answer and, if known, its time in seconds and its cost in US dollars.

    Both are unknown for a reused result. `agreement` is that of votes. `saw_examples` is set if
    learned examples were shown for it; a document that `is_held_out` never becomes an example.
    """

    listed: Listed
    result: JudgedResult
    answer: AnswerWithConfidence
    agreement: float | None
    created_at: datetime
    seconds: float | None
    cost_usd: float | None
    saw_examples: bool
    is_held_out: bool


@dataclass(slots=True)
class Names:
    """Documents by their hashes and by the names under which they were taken in."""

    _whole: dict[str, set[uuid.UUID]] = field(default_factory=lambda: defaultdict(set))
    _ends: dict[str, set[uuid.UUID]] = field(default_factory=lambda: defaultdict(set))

    def add(self, document_id: uuid.UUID, name: str) -> None:
        """Register a document under a name and under each suffix of it after a `/` or `#`."""
        self._whole[name].add(document_id)
        for index, character in enumerate(name[:-1]):
            if character in "/#":
                self._ends[name[index + 1 :]].add(document_id)

    def find(self, name: str) -> frozenset[uuid.UUID]:
        """Return the documents with this name, or otherwise those whose name ends with it."""
        wanted = name.removeprefix("./")
        return frozenset(self._whole.get(wanted) or self._ends.get(wanted) or ())


def listed(
    session: Session, wanted: ResultSelection, questions: Sequence[JsonObject] | None = None
) -> Sequence[Listed]:
    """Return the selected results; if `questions` are given, only answers to them."""
    statement = (
        select(
            Result.id.label("result_id"),
            Result.job_id,
            Result.document_id,
            Result.analysis_type,
            Intake.source,
            Job.options,
            Job.options_hash,
        )
        .join(Job, Job.id == Result.job_id)
        .join(Intake, Intake.id == Job.intake_id)
        .where(in_ids(Result.id, stored_results.ids(driver(session), wanted)))
        .order_by(Result.id)
    )
    if questions is not None:
        statement = statement.where(Job.options.in_(questions))
    return [
        copied(
            Listed,
            row,
            analysis_type=AnalysisType(row.analysis_type),
            question=question_of(row.options),
        )
        for row in session.execute(statement)
    ]


def names(session: Session, results: Sequence[Listed], run_id: uuid.UUID | None) -> Names:
    """Return the names of these results' documents; for a run, only the names used in it."""
    known = Names()
    for some in batches(sorted({result.document_id for result in results})):
        hashes = select(Document.id, Document.sha256).where(Document.id.in_(some))
        for document_id, sha256 in session.execute(hashes):
            known.add(document_id, sha256)
        seen = select(Intake.document_id, Intake.source, Intake.sha256).where(
            Intake.document_id.in_(some)
        )
        if run_id is not None:
            seen = seen.where(Intake.run_id == run_id)
        for seen_id, source, seen_sha256 in session.execute(seen.distinct()):
            if seen_id is not None:
                known.add(seen_id, source)
                known.add(seen_id, seen_sha256 or source)
    return known


def read(session: Session, results: Sequence[Listed]) -> Iterator[Judgeable]:
    """Yield the results with their answers, read in batches; deleted results are skipped."""
    for some in batches(results):
        by_id: Mapping[uuid.UUID, Listed] = {each.result_id: each for each in some}
        statement = (
            select(Result, Job, _COST.label("cost_usd"), Document.sha256)
            .join(Job, Job.id == Result.job_id)
            .join(Document, Document.id == Result.document_id)
            .where(Result.id.in_(by_id))
            .order_by(Result.id)
        )
        for result, job, cost_usd, sha256 in session.execute(statement):
            yield _judgeable(by_id[result.id], result, job, cost_usd, sha256)


# The cost is unknown if one call has no price.
_COST = (
    select(case((func.count() == func.count(ModelCall.cost_usd), func.sum(ModelCall.cost_usd))))
    .where(ModelCall.job_id == Result.job_id)
    .correlate(Result)
    .scalar_subquery()
)


def truth_of(kind: AnalysisType, about: Iterable[Feedback]) -> Truth:
    """Return the truth that feedback on one question implies; `about` is sorted, latest last."""
    return truths.from_remarks(kind, [stored_feedback.remark(each) for each in about])


def answer_of(result: Result) -> AnswerWithConfidence:
    """Return the answer of a result as it is judged."""
    return AnswerWithConfidence(
        analysis_type=AnalysisType(result.analysis_type),
        output=result.output,
        confidence=result.confidence,
        needs_review=result.needs_review,
    )


def batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Yield batches of a size that one statement can name."""
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]


def _judgeable(
    of: Listed, result: Result, job: Job, cost_usd: Decimal | None, sha256: str
) -> Judgeable:
    return Judgeable(
        listed=of,
        result=copied(JudgedResult, result, result_id=result.id, options_hash=of.options_hash),
        answer=answer_of(result),
        agreement=result.agreement,
        created_at=result.created_at,
        seconds=_seconds(job),
        cost_usd=None if cost_usd is None else float(cost_usd),
        saw_examples=job.examples is not None,
        is_held_out=is_held_out(sha256),
    )


def _seconds(job: Job) -> float | None:
    if job.reused_from is not None or job.started_at is None or job.finished_at is None:
        return None
    return (job.finished_at - job.started_at).total_seconds()
