"""Queries for stored results: by run, type and document."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Select, Text, cast, exists, func, select
from sqlalchemy.orm import Session, aliased

from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.storage.documents import Document
from chordwise.storage.experiments import Experiment
from chordwise.storage.intakes import Intake
from chordwise.storage.jobs import Job
from chordwise.storage.record import in_ids
from chordwise.storage.results import Result
from chordwise.storage.runs import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultSelection:
    """The results to read; a value that is `None` or empty does not filter.

    `document` is a substring of a source or title, or a document's id. Without a run, only the
    newest of several answers to the same question about the same document is read, and none that
    was asked only for a comparison (`experiments.run_id`), unless `every_answer` is set.
    """

    run_id: uuid.UUID | None = None
    types: tuple[AnalysisType, ...] = ()
    document: str = ""
    job_ids: tuple[uuid.UUID, ...] | None = None
    needs_review: bool = False
    every_answer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResult:
    """A result with its origin.

    `review_reason` joins the intake's message about the document and the reason for the review of
    the answer. `flags` are the suspicious passages of the document. `transcribed_by` is the model
    that transcribed its pages, or `tesseract`; `None` if the file contained all of the text.
    `output` includes the corrections of users.
    """

    run: str
    source: str
    title: str | None
    document_id: uuid.UUID
    job_id: uuid.UUID
    analysis_type: str
    status: str
    output: JsonObject
    corrected: bool
    nothing_found: bool
    confidence: float
    quality: float
    coverage: float
    agreement: float | None
    critique: JsonObject | None
    needs_review: bool
    review_reason: str | None
    flags: JsonValue
    transcribed_by: str | None
    failed_chunks: JsonValue
    missing_rows: JsonValue
    row_counts: JsonValue
    failed_checks: JsonValue
    provider: str
    model: str
    language_model: bool
    prompt_version: str
    reused: bool
    created_at: datetime


MAX_COUNTED = 10_000
"""The number up to which results are counted exactly."""

_OF_RESULT = StoredResult.__dataclass_fields__.keys() - {"output", "review_reason"}
_COLUMNS = (
    Run.name.label("run"),
    Intake.source,
    Document.title,
    Job.status,
    func.coalesce(Result.corrected_output, Result.output).label("output"),
    Result.corrected_output.is_not(None).label("corrected"),
    func.nullif(func.concat_ws(" ", Intake.message, Result.review_reason), "").label(
        "review_reason"
    ),
    Document.flags,
    Document.transcribed_by,
    Job.reused_from.is_not(None).label("reused"),
    *(column for column in Result.__table__.c if column.name in _OF_RESULT),
)
_LINKS = (
    Job.id == Result.job_id,
    Run.id == Job.run_id,
    Intake.id == Job.intake_id,
    Document.id == Result.document_id,
)


def count(session: Session, wanted: ResultSelection) -> int:
    """Return the number of results."""
    return _count(session, ids(wanted))


def count_in_words(session: Session, wanted: ResultSelection) -> str:
    """Return the number of results as text; above `MAX_COUNTED`, “more than” that."""
    found = _count(session, ids(wanted).limit(MAX_COUNTED + 1))
    return f"more than {MAX_COUNTED:,}" if found > MAX_COUNTED else f"{found:,}"


def _count(session: Session, found: Select[uuid.UUID]) -> int:
    return session.scalar(select(func.count()).select_from(found.subquery())) or 0


def read(
    session: Session, wanted: ResultSelection, limit: int | None = None
) -> Sequence[StoredResult]:
    """Return the results of a run in the order of its intake; other results newest first."""
    order = Job.id if wanted.run_id else Result.id.desc()
    statement = select(*_COLUMNS).where(*_LINKS, *_narrowing(wanted)).order_by(order).limit(limit)
    rows = session.execute(statement).mappings()
    return [StoredResult(**row) for row in rows]


def ids(wanted: ResultSelection) -> Select[uuid.UUID]:
    """Return the query for the ids of these results; it can be a subquery of any other."""
    narrowing = _narrowing(wanted)
    return select(Result.id).where(Job.id == Result.job_id, *narrowing).correlate(None)


def _narrowing(wanted: ResultSelection) -> Iterator[ColumnElement[bool]]:
    if wanted.run_id is not None:
        yield Job.run_id == wanted.run_id
    elif not wanted.every_answer:
        yield ~_has_newer_answer(wanted)
        yield ~_is_for_comparison(Job)
    if wanted.needs_review:
        yield Result.needs_review.is_(True)
    if wanted.job_ids is not None:
        yield in_ids(Result.job_id, wanted.job_ids)
    if wanted.types:
        yield Result.analysis_type.in_(wanted.types)
    if wanted.document:
        yield Intake.id == Job.intake_id
        yield Document.id == Result.document_id
        yield is_named(Intake, wanted.document)


def _has_newer_answer(wanted: ResultSelection) -> ColumnElement[bool]:
    """Return the condition that a newer matching result answers the same question.

    It is evaluated for each result, so that the newest ones are found without reading the others.
    """
    newer, again = aliased(Result), aliased(Job)
    found = exists().where(
        newer.id > Result.id,
        again.id == newer.job_id,
        again.document_id == Job.document_id,
        again.options_hash == Job.options_hash,
        ~_is_for_comparison(again),
    )
    if wanted.document:
        intake = aliased(Intake)
        found = found.where(intake.id == again.intake_id, is_named(intake, wanted.document))
    return found


def _is_for_comparison(job: type[Job]) -> ColumnElement[bool]:
    return exists().where(Experiment.run_id == job.run_id)


def is_named(intake: type[Intake], part: str) -> ColumnElement[bool]:
    """Return the condition that a source or title contains `part`, or that the id is `part`."""
    return (
        intake.source.icontains(part, autoescape=True)
        | Document.title.icontains(part, autoescape=True)
        | (cast(Document.id, Text) == part)
    )
