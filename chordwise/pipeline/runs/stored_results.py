"""Reading the stored results back, as people ask for them: by run, type and document."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, Text, cast, func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.tasks import AnalysisType
from chordwise.storage.documents import Document
from chordwise.storage.engine import reaching_database
from chordwise.storage.intakes import Intake
from chordwise.storage.jobs import Job
from chordwise.storage.results import Result
from chordwise.storage.runs import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which results to read; what is `None` or empty does not narrow them down.

    `document` is a part of a source or title, or a document's id. Without a run, only the newest
    of several answers to the same question about the same document counts.
    """

    run_id: uuid.UUID | None = None
    types: tuple[AnalysisType, ...] = ()
    document: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResult:
    """A result with where it came from; `review_reason` is what its intake says of the document."""

    run: str
    source: str
    title: str | None
    document_id: uuid.UUID
    job_id: uuid.UUID
    analysis_type: str
    status: str
    output: JsonObject
    confidence: float
    quality: float
    coverage: float
    agreement: float | None
    critique: JsonObject | None
    needs_review: bool
    review_reason: str | None
    failed_chunks: JsonValue
    missing_rows: JsonValue
    provider: str
    model: str
    language_model: bool
    prompt_version: str
    reused: bool
    created_at: datetime


_COLUMNS = (
    Run.name.label("run"),
    Intake.source,
    Document.title,
    Result.document_id,
    Result.job_id,
    Result.analysis_type,
    Job.status,
    Result.output,
    Result.confidence,
    Result.quality,
    Result.coverage,
    Result.agreement,
    Result.critique,
    Result.needs_review,
    Intake.message.label("review_reason"),
    Result.failed_chunks,
    Result.missing_rows,
    Result.provider,
    Result.model,
    Result.language_model,
    Result.prompt_version,
    Job.reused_from.is_not(None).label("reused"),
    Result.created_at,
)
_LINKS = (
    Job.id == Result.job_id,
    Run.id == Job.run_id,
    Intake.id == Job.intake_id,
    Document.id == Result.document_id,
)


def count(session: Session, wanted: Wanted) -> int:
    """Return how many results there are.

    Raises:
        ServiceUnavailableError: The database cannot be reached.
    """
    with reaching_database():
        return session.scalar(select(func.count()).select_from(ids(wanted).subquery())) or 0


def read(session: Session, wanted: Wanted, limit: int | None = None) -> Sequence[StoredResult]:
    """Return the results: those of a run in the order of its intake, others newest first.

    Raises:
        ServiceUnavailableError: The database cannot be reached.
    """
    order = Job.id if wanted.run_id else Result.id.desc()
    chosen = ids(wanted).subquery()
    statement = (
        select(*_COLUMNS)
        .where(*_LINKS, Result.id.in_(select(chosen.c.id)))
        .order_by(order)
        .limit(limit)
    )
    with reaching_database():
        rows = session.execute(statement).mappings()
        return [StoredResult(**row) for row in rows]


def ids(wanted: Wanted) -> Select[uuid.UUID]:
    """Return the query for the ids of these results; it selects from jobs as well."""
    statement = select(Result.id).where(*_LINKS)
    if wanted.run_id is not None:
        statement = statement.where(Job.run_id == wanted.run_id)
    else:
        question = (Job.document_id, Job.options_hash)
        statement = statement.ext(distinct_on(*question)).order_by(*question, Result.id.desc())
    if wanted.types:
        statement = statement.where(Result.analysis_type.in_([each.value for each in wanted.types]))
    if wanted.document:
        statement = statement.where(
            Intake.source.icontains(wanted.document, autoescape=True)
            | Document.title.icontains(wanted.document, autoescape=True)
            | (cast(Document.id, Text) == wanted.document)
        )
    return statement
