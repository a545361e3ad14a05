"""Results: the validated answer of a job, at most one current row each, and its history."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TypeAlias

from sqlalchemy import (
    Computed,
    ForeignKey,
    Index,
    Numeric,
    delete,
    false,
    func,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.analyses.catalog import analysis_for
from chordwise.domain.facts import Fact as FactValue
from chordwise.domain.facts import facts
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.learning import corrections, truths
from chordwise.domain.states import JobStatus
from chordwise.domain.tasks import AnalysisType, question_of
from chordwise.storage import judgments
from chordwise.storage.jobs import Job
from chordwise.storage.record import (
    CreatedAt,
    Identity,
    Record,
    among,
    new_id,
    words_index,
)

ResultKey: TypeAlias = tuple[uuid.UUID, str]
"""A document, and the hash of what is asked of it (`jobs.options_hash`)."""


class Findings:
    """What a result says, whether it is the current one or a past one."""

    analysis_type: Mapped[str]
    output: Mapped[JsonObject]
    corrected_output: Mapped[JsonObject | None]
    nothing_found: Mapped[bool] = mapped_column(server_default=false())
    confidence: Mapped[float]
    quality: Mapped[float]
    coverage: Mapped[float]
    agreement: Mapped[float | None]
    critique: Mapped[JsonObject | None]
    needs_review: Mapped[bool]
    review_reason: Mapped[str | None]
    failed_chunks: Mapped[JsonValue]
    missing_rows: Mapped[JsonValue | None]
    row_counts: Mapped[JsonValue | None]
    failed_checks: Mapped[JsonValue | None]
    provider: Mapped[str]
    model: Mapped[str]
    language_model: Mapped[bool]
    prompt_version: Mapped[str]


class Result(Findings, Record):
    """The current answer of a job.

    `corrected_output` is what people corrected it to, null where they did not; `nothing_found` says
    that an extraction has no value for anything that was asked for.
    `confidence`, `quality`, `coverage` and `agreement` are 0 to 1, the last null without votes.
    `failed_chunks` names what no answer covers: position, start_char, end_char, error_code.
    `missing_rows` names lists with fewer rows than the parts: path, kept, found, max_items; null in
    results of versions that did not count. `row_counts` has every list: path, by_chunk, repeated,
    kept, located, start_char, end_char. `failed_checks` names the checks of the schema that the
    output does not pass: check, path, problem, found, expected.
    `review_reason` says why a person should look at the answer, null where only its document is a
    reason, or nothing is.
    `critique` says what was objected to and what became of it, null where none was asked for.
    `accepted` says that all that it states may be accepted without looking (`certifications`).
    `language_model` is false where the built-in extractive model answered, be it for one chunk.
    """

    __tablename__ = "results"
    __table_args__ = (
        # The order in which people review.
        Index("ix_results_review", text("(NOT needs_review)"), "confidence", "id"),
        Index("ix_results_confidence_id", "confidence", "id"),
        Index("ix_results_needing_review", "id", postgresql_where="needs_review"),
    )

    id: Mapped[Identity]
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"), unique=True)
    document_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("documents.id"), index=True)
    accepted: Mapped[bool] = mapped_column(server_default=false())
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
    """Insert the results of jobs that have none, and return these jobs.

    Where people have judged answers to the same question, what they said holds for this one, too.
    """
    rows = [{**_columns(each), "id": new_id()} for each in results]
    stated = [
        row
        for each in results
        for row in _rows_of(
            each.job_id, facts(each.output, analysis_for(AnalysisType(each.analysis_type)))
        )
    ]
    added = session.execute(_ADD, {"rows": _as_json(rows), "facts": _as_json(stated)}).all()
    correct(session, [job_id for job_id, is_judged in added if is_judged])
    return {job_id for job_id, _ in added}


def jobs_asked(session: Session, document_id: uuid.UUID, kind: AnalysisType) -> list[uuid.UUID]:
    """Return the jobs that have a result of this analysis type for a document."""
    about = Result.document_id == document_id, Result.analysis_type == kind
    return list(session.scalars(select(Result.job_id).where(*about)))


def correct(session: Session, job_ids: Sequence[uuid.UUID]) -> None:
    """Apply what people said of answers to the same questions to the current results of jobs."""
    if not job_ids:
        return
    asked = session.execute(
        select(Result, Job.options)
        .join(Job, Job.id == Result.job_id)
        .where(among(Result.job_id, job_ids))
        .order_by(Result.id)
        .with_for_update(of=Result)
    ).all()
    said = judgments.of_documents(session, [result.document_id for result, _ in asked])
    for result, options in asked:
        kind, question = AnalysisType(result.analysis_type), question_of(options)
        of_document = [each for each in said if each.document_id == result.document_id]
        about = judgments.about(of_document, kind, question)
        truth = truths.from_remarks(kind, [judgments.remark(each) for each in about])
        corrected = corrections.correct(result.output, analysis_for(kind), truth)
        result.corrected_output = corrected.output
        of_result = Fact.job_id == result.job_id
        accepted = session.scalars(select(Fact.path).where(of_result, Fact.accepted)).all()
        session.execute(delete(Fact).where(of_result))
        rows = _rows_of(result.job_id, corrected.facts)
        session.execute(_STATE, {"facts": _as_json(rows)})
        if accepted:
            again = update(Fact).where(of_result, Fact.path.in_(accepted)).values(accepted=True)
            session.execute(again)
    session.flush()


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


_COLUMNS = [column.key for column in Result.__table__.columns if column.key != "accepted"]
_NAMES = ", ".join(_COLUMNS)
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
_STATED = f"""
        INSERT INTO facts ({_OF_FACTS}) SELECT {_OF_FACTS}
        FROM json_populate_recordset(NULL::facts, CAST(:facts AS json))"""  # noqa: S608 - names of our own
_STATE = text(_STATED)
_ADD = text(f"""
    WITH added AS (
        INSERT INTO results ({_NAMES}) SELECT {_VALUES}
        FROM json_populate_recordset(NULL::results, CAST(:rows AS json)) AS new
        ON CONFLICT (job_id) DO NOTHING RETURNING job_id, document_id, analysis_type
    ), stated AS ({_STATED}
        WHERE job_id IN (SELECT job_id FROM added)
    )
    SELECT added.job_id, EXISTS (
        SELECT FROM feedback
        WHERE feedback.document_id = added.document_id
            AND feedback.analysis_type = added.analysis_type
    ) AS is_judged
    FROM added""")  # noqa: S608 - names of our own


def _as_json(rows: Sequence[Mapping[str, object]]) -> str:
    return json.dumps(rows, allow_nan=False, default=str)


def _columns(result: Result) -> dict[str, object]:
    return {name: getattr(result, name) for name in _COLUMNS}


def _rows_of(job_id: uuid.UUID, found: Sequence[FactValue]) -> list[dict[str, object]]:
    return [
        {"id": new_id(), "job_id": job_id}
        | {name: getattr(fact, name) for name in FactValue.__dataclass_fields__}
        for fact in found
    ]


class Fact(Record):
    """A value of the job's current output; the columns are those of `domain.facts.Fact`.

    Where `grounded`, `substr(text, start_char + 1, end_char - start_char) = quote` holds for the
    job's document; `boxes` are page, left, top, right and bottom of each line. `final_value` is the
    corrected value where a person spoke, and null where the value was rejected. `accepted` says
    that the value may be accepted without looking (`certifications`).
    """

    __tablename__ = "facts"
    __table_args__ = (
        Index("ix_facts_job_id_item", "job_id", "item"),
        Index("ix_facts_ungrounded", "job_id", postgresql_where="grounding = 'none'"),
        words_index("ix_facts_words", "final_value"),
    )

    id: Mapped[Identity]
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"))
    path: Mapped[str]
    item: Mapped[str]
    parent: Mapped[str | None]
    row_index: Mapped[int | None]
    value: Mapped[str | None]
    corrected_value: Mapped[str | None]
    verdict: Mapped[str | None]
    final_value: Mapped[str | None] = mapped_column(
        Computed(
            "CASE WHEN verdict IN ('corrected', 'rejected') THEN corrected_value ELSE value END"
        )
    )
    number: Mapped[Decimal | None] = mapped_column(Numeric())
    currency: Mapped[str | None]
    unit: Mapped[str | None]
    date: Mapped[date | None]
    confidence: Mapped[float | None]
    quote: Mapped[str | None]
    start_char: Mapped[int | None]
    end_char: Mapped[int | None]
    grounding: Mapped[str | None]
    grounded: Mapped[bool | None] = mapped_column(Computed("grounding <> 'none'"))
    value_in_quote: Mapped[bool | None]
    page: Mapped[int | None]
    place: Mapped[str | None]
    boxes: Mapped[JsonValue | None]
    accepted: Mapped[bool] = mapped_column(server_default=false())
