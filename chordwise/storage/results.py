"""Results: the validated answer of a job, at most one current row each, and its history."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypeAlias

from sqlalchemy import ForeignKey, delete, func, literal, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.analyses.catalog import analysis_for
from chordwise.domain.facts import Fact as FactValue
from chordwise.domain.facts import facts
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.states import JobStatus
from chordwise.domain.tasks import AnalysisType
from chordwise.storage.jobs import Job
from chordwise.storage.record import CreatedAt, Identity, Record, among, new_id

ResultKey: TypeAlias = tuple[uuid.UUID, str]
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
    `critique` says what was objected to and what became of it, null where none was asked for.
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


def save_all(session: Session, results: Sequence[Result]) -> None:
    """Make these the current results of their jobs, with their facts, in a few statements.

    Those before go to the history. A result needs review where its intake says why.
    """
    if not results:
        return
    added = _add(session, results)
    if again := [each for each in results if each.job_id not in added]:
        job_ids = [each.job_id for each in again]
        session.execute(_TO_HISTORY, {"ids": job_ids})
        session.execute(delete(Fact).where(among(Fact.job_id, job_ids)))
        _add(session, again)


def _add(session: Session, results: Sequence[Result]) -> set[uuid.UUID]:
    """Insert the results of jobs that have none, and return these jobs."""
    rows = [{**_columns(each), "id": new_id()} for each in results]
    facts_of = [row for each in results for row in _facts_of(each)]
    return set(session.scalars(_ADD, {"rows": _as_json(rows), "facts": _as_json(facts_of)}))


def copy_all(session: Session, copies: Mapping[uuid.UUID, uuid.UUID]) -> None:
    """Store the current results of other jobs for jobs as well, by the ids of these jobs."""
    if not copies:
        return
    found = session.scalars(select(Result).where(among(Result.job_id, set(copies.values()))))
    originals = {each.job_id: each for each in found}
    save_all(
        session,
        [
            Result(**{**_columns(originals[from_job_id]), "job_id": job_id})
            for job_id, from_job_id in copies.items()
        ],
    )


def reusable(session: Session, document_id: uuid.UUID, options_hash: str) -> uuid.UUID | None:
    """Return the job with the newest complete answer to the same question, if there is one.

    A copy of an answer is named only where the job that asked for it is gone.
    It is locked against being pruned before the commit.
    """
    question = document_id, options_hash
    return reusable_all(session, [question]).get(question)


def reusable_all(session: Session, questions: Sequence[ResultKey]) -> dict[ResultKey, uuid.UUID]:
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


_NAMES = ", ".join(column.key for column in Result.__table__.columns)
_TO_HISTORY = text(f"""
    WITH former AS (DELETE FROM results WHERE job_id = ANY(:ids) RETURNING {_NAMES})
    INSERT INTO result_history ({_NAMES}) SELECT {_NAMES} FROM former""")  # noqa: S608 - names of our own
_VALUES = _NAMES.replace("created_at", "coalesce(new.created_at, now())").replace(
    "needs_review",
    """needs_review OR EXISTS (
        SELECT FROM jobs JOIN intakes ON intakes.id = jobs.intake_id
        WHERE jobs.id = new.job_id AND intakes.message IS NOT NULL
    )""",
)
_OF_FACTS = ", ".join(("id", "job_id", *FactValue.__dataclass_fields__))
_ADD = text(f"""
    WITH added AS (
        INSERT INTO results ({_NAMES}) SELECT {_VALUES}
        FROM json_populate_recordset(NULL::results, CAST(:rows AS json)) AS new
        ON CONFLICT (job_id) DO NOTHING RETURNING job_id
    ), stated AS (
        INSERT INTO facts ({_OF_FACTS}) SELECT {_OF_FACTS}
        FROM json_populate_recordset(NULL::facts, CAST(:facts AS json))
        WHERE job_id IN (SELECT job_id FROM added)
    )
    SELECT job_id FROM added""")  # noqa: S608 - names of our own


def _as_json(rows: Sequence[Mapping[str, object]]) -> str:
    return json.dumps(rows, allow_nan=False, default=str)


def _columns(result: Result) -> dict[str, object]:
    return {column.key: getattr(result, column.key) for column in Result.__table__.columns}


def _facts_of(result: Result) -> list[dict[str, object]]:
    analysis = analysis_for(AnalysisType(result.analysis_type))
    return [
        {"id": new_id(), "job_id": result.job_id}
        | {name: getattr(fact, name) for name in FactValue.__dataclass_fields__}
        for fact in facts(result.output, analysis)
    ]


class Fact(Record):
    """A value at a JSON Pointer of the job's current output.

    Where `grounded`, `substr(text, start_char + 1, end_char - start_char) = quote` holds for the
    job's document.
    """

    __tablename__ = "facts"

    id: Mapped[Identity]
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"), index=True)
    path: Mapped[str]
    text: Mapped[str | None]
    number: Mapped[float | None]
    confidence: Mapped[float | None]
    quote: Mapped[str | None]
    start_char: Mapped[int | None]
    end_char: Mapped[int | None]
    grounded: Mapped[bool | None]
