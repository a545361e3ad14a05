"""Results: the validated answer of a job, at most one current row each, and its history."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias

from sqlalchemy import ForeignKey, Select, delete, func, literal, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.analyses.catalog import analysis_for
from chordwise.domain.facts import Fact as FactValue
from chordwise.domain.facts import facts
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.states import JobStatus
from chordwise.domain.tasks import AnalysisType
from chordwise.storage.facts import Fact
from chordwise.storage.intakes import Intake
from chordwise.storage.jobs import Job
from chordwise.storage.record import CreatedAt, Identity, Record, among, insert_all, new_id

Question: TypeAlias = tuple[uuid.UUID, str]
"""A document, and the hash of what is asked of it (`jobs.options_hash`)."""


class Findings:
    """What a result says, whether it is the current one or a past one."""

    analysis_type: Mapped[str]
    output: Mapped[JsonObject]
    confidence: Mapped[float]
    quality: Mapped[float]
    coverage: Mapped[float]
    agreement: Mapped[float | None]
    critique: Mapped[JsonObject | None]
    needs_review: Mapped[bool]
    failed_chunks: Mapped[JsonValue]
    missing_rows: Mapped[JsonValue | None]
    provider: Mapped[str]
    model: Mapped[str]
    language_model: Mapped[bool]
    prompt_version: Mapped[str]


class Result(Findings, Record):
    """The current answer of a job.

    `confidence`, `quality`, `coverage` and `agreement` are 0 to 1, the last null without votes.
    `failed_chunks` names what no answer covers: position, start_char, end_char, error_code.
    `missing_rows` names lists with fewer rows than the parts: path, kept, found, max_items; null in
    results of versions that did not count.
    `critique` says what was objected to and what became of it, null where nobody asked for one.
    `language_model` is false where the built-in extractive model answered, be it for one chunk.
    """

    __tablename__ = "results"

    id: Mapped[Identity]
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"), unique=True)
    document_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("documents.id"), index=True)
    created_at: Mapped[CreatedAt]


class PastResult(Findings, Record):
    """A result that a re-run replaced."""

    __tablename__ = "result_history"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"), index=True)
    document_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("documents.id"), index=True)
    created_at: Mapped[datetime]
    replaced_at: Mapped[datetime] = mapped_column(server_default=func.now())


def save(session: Session, result: Result) -> None:
    """Make this the job's current result, with its facts; the one before goes to the history.

    It needs review where its intake says why.
    """
    has_result, is_odd = session.execute(_BEFORE_SAVING, {"job_id": result.job_id}).one()
    if has_result:
        current = session.scalars(select(Result).where(Result.job_id == result.job_id)).one()
        session.add(PastResult(**_columns(current)))
        session.delete(current)
        session.flush()
        session.execute(delete(Fact).where(Fact.job_id == result.job_id))
    result.needs_review = result.needs_review or is_odd
    session.add(result)
    insert_all(session, Fact, _fact_rows(result.job_id, result))


_BEFORE_SAVING = text("""
    SELECT EXISTS (SELECT FROM results r WHERE r.job_id = j.id),
        EXISTS (SELECT FROM intakes i WHERE i.id = j.intake_id AND i.message IS NOT NULL)
    FROM jobs j WHERE j.id = :job_id""")


def copy_for(session: Session, job_id: uuid.UUID, from_job_id: uuid.UUID) -> None:
    """Store another job's current result for this job as well."""
    original = session.scalars(select(Result).where(Result.job_id == from_job_id)).one()
    save(session, Result(**{**_columns(original), "id": new_id(), "job_id": job_id}))


def copy_all(session: Session, copies: Mapping[uuid.UUID, uuid.UUID]) -> None:
    """Store the current results of other jobs for jobs that have none, by the jobs' ids."""
    if not copies:
        return
    found = session.scalars(select(Result).where(among(Result.job_id, set(copies.values()))))
    originals = {each.job_id: each for each in found}
    reviewed = set(session.scalars(_with_reason_for_review(copies)))
    results, facts_of = [], []
    for job_id, from_job_id in copies.items():
        original = originals[from_job_id]
        needs_review = original.needs_review or job_id in reviewed
        own = {"id": new_id(), "job_id": job_id, "needs_review": needs_review}
        results.append({**_columns(original), **own})
        facts_of.extend(_fact_rows(job_id, original))
    insert_all(session, Result, results)
    insert_all(session, Fact, facts_of)


def reusable(session: Session, document_id: uuid.UUID, options_hash: str) -> uuid.UUID | None:
    """Return the job with the newest complete answer to the same question, if there is one.

    A copy of an answer is named only where the job that asked for it is gone.
    It is locked against being pruned before the commit.
    """
    question = document_id, options_hash
    return reusable_all(session, [question]).get(question)


def reusable_all(session: Session, questions: Sequence[Question]) -> dict[Question, uuid.UUID]:
    """Return what `reusable` finds for each question."""
    if not questions:
        return {}
    arrays = (
        literal([document_id for document_id, _ in questions], ARRAY(Job.document_id.type)),
        literal([options_hash for _, options_hash in questions], ARRAY(Job.options_hash.type)),
    )
    asked = func.unnest(*arrays).table_valued("document_id", "options_hash").render_derived()
    best = (
        select(Job.id)
        .join(Result, Result.job_id == Job.id)
        .where(
            Job.document_id == asked.c.document_id,
            Job.options_hash == asked.c.options_hash,
            Job.status == JobStatus.SUCCEEDED,
        )
        .order_by(Job.reused_from.is_not(None), Result.id.desc())
        .limit(1)
        .with_for_update(read=True, key_share=True, of=Job)
        .lateral()
    )
    found = session.execute(select(asked.c.document_id, asked.c.options_hash, best.c.id))
    return {(document_id, options_hash): job_id for document_id, options_hash, job_id in found}


def _with_reason_for_review(job_ids: Collection[uuid.UUID]) -> Select[uuid.UUID]:
    """Find those of the jobs whose intakes say why a person should look at the document."""
    return (
        select(Job.id)
        .join(Intake, Job.intake_id == Intake.id)
        .where(among(Job.id, job_ids), Intake.message.is_not(None))
    )


def _columns(result: Result) -> dict[str, object]:
    return {column.key: getattr(result, column.key) for column in Result.__table__.columns}


def _fact_rows(job_id: uuid.UUID, result: Result) -> list[dict[str, object]]:
    analysis = analysis_for(AnalysisType(result.analysis_type))
    return [
        {"id": new_id(), "job_id": job_id}
        | {name: getattr(fact, name) for name in FactValue.__dataclass_fields__}
        for fact in facts(result.output, analysis)
    ]
