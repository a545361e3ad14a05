"""Results: the validated answers of jobs, at most one current row for each, and their history."""

from __future__ import annotations

import itertools
import uuid
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import TypeAlias

from sqlalchemy import (
    BigInteger,
    Computed,
    ForeignKey,
    Index,
    Numeric,
    Text,
    delete,
    false,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisType, options_from, question_of
from chordwise.domain.facts import DATA, facts
from chordwise.domain.facts import Fact as FactValue
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.learning import corrections, fields, truths
from chordwise.domain.learning.judgments import AnswerWithConfidence, is_refuted
from chordwise.domain.learning.truths import Truth
from chordwise.domain.states import JobStatus
from chordwise.domain.trust import WHOLE, is_to_check, with_doubts
from chordwise.storage import documents
from chordwise.storage import feedback as stored_feedback
from chordwise.storage.jobs import Job
from chordwise.storage.record import (
    CreatedAt,
    Identity,
    Record,
    in_ids,
    new_id,
    rows_as_json,
    unnested,
    words_index,
)

FACTS_AT_ONCE = 5_000
"""The number of facts in a statement; a megabyte or two."""
ResultKey: TypeAlias = tuple[uuid.UUID, str]
"""A document, and the hash of the question about it (`jobs.options_hash`)."""


class Findings:
    """The content of a result, whether current or past."""

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
    doubts: Mapped[JsonObject | None]
    failed_chunks: Mapped[JsonValue]
    missing_rows: Mapped[JsonValue | None]
    row_counts: Mapped[JsonValue | None]
    failed_checks: Mapped[JsonValue | None]
    contradictions: Mapped[JsonValue | None]
    provider: Mapped[str]
    model: Mapped[str]
    language_model: Mapped[bool]
    prompt_version: Mapped[str]


class Result(Findings, Record):
    """The current answer of a job.

    `doubts` are the reasons to check values, by path (see `domain.trust.Doubts`); `needs_review`
    says that a value or the answer as a whole has the state `check`.
    """

    __tablename__ = "results"
    __table_args__ = (
        Index("ix_results_confidence_id", "confidence", "id"),
        Index("ix_results_needing_review", "id", postgresql_where="needs_review"),
    )

    id: Mapped[Identity]
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"), unique=True)
    document_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("documents.id"), index=True)
    verdict: Mapped[str | None]
    accepted: Mapped[bool] = mapped_column(server_default=false())
    created_at: Mapped[CreatedAt]


class PastResult(Findings, Record):
    """A result that was replaced by a re-run."""

    __tablename__ = "result_history"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"), index=True)
    document_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("documents.id"), index=True)
    created_at: Mapped[datetime]
    replaced_at: Mapped[datetime] = mapped_column(server_default=func.now())


@dataclass(frozen=True, slots=True, kw_only=True)
class NewResult:
    """A result with its facts, in the form in which statements store them.

    `row` and `first_facts` are JSON; `more_facts`, of thousands of facts, batches of compressed
    JSON.
    """

    job_id: uuid.UUID
    row: str
    first_facts: str
    more_facts: Iterable[bytes]

    @classmethod
    def of(cls, result: Result) -> NewResult:
        """Return a result with its facts; those after the first batch are computed when needed.

        The result needs review if any of them has a doubt; of thousands, if the answer has one.
        """
        doubts = result.doubts or {}
        stated = facts(result.output, analysis_for(AnalysisType(result.analysis_type)))
        rows = _rows_of(result.job_id, with_doubts(stated, doubts))
        first = list(itertools.islice(rows, FACTS_AT_ONCE))
        if len(first) < FACTS_AT_ONCE:
            result.needs_review = WHOLE in doubts or any(
                is_to_check(row.get("value"), row.get("doubts")) for row in first
            )
        batches = _batches(rows)
        return cls(
            job_id=result.job_id,
            row=_elements([{**_columns(result), "id": new_id()}]),
            first_facts=_elements(first),
            more_facts=(zlib.compress(batch.encode(), 1) for batch in batches),
        )

    def computed(self) -> NewResult:
        """Return the result with all of its facts, so that a transaction need not wait for them."""
        return replace(self, more_facts=tuple(self.more_facts))


def save_all(session: Session, results: Sequence[NewResult]) -> None:
    """Store the current results of jobs, with their facts, and apply existing feedback.

    Earlier results are moved to the history. A result needs review if its intake has a message, or
    a value a confidence below the threshold of a calibration.
    """
    if not results:
        return
    added = _add(session, results)
    if again := [result for result in results if result.job_id not in added]:
        job_ids = [result.job_id for result in again]
        session.execute(_TO_HISTORY, {"ids": job_ids})
        session.execute(delete(Fact).where(in_ids(Fact.job_id, job_ids)))
        added |= _add(session, again)
    for batch in itertools.chain.from_iterable(result.more_facts for result in results):
        session.execute(_STATE, {"facts": f"[{zlib.decompress(batch).decode()}]"})
    correct(session, [job_id for job_id, (is_judged, _) in added.items() if is_judged])
    if any(is_calibrated for _, is_calibrated in added.values()):
        update_reviews(session, list(added))


def update_reviews(session: Session, job_ids: Sequence[uuid.UUID]) -> None:
    """Set `needs_review` of the current results of jobs after something it depends on changed."""
    if job_ids:
        of_jobs = text(_UPDATE_REVIEWS.format("results.job_id = ANY(:ids)"))
        session.execute(of_jobs, {"ids": job_ids})


def update_reviews_of(session: Session, analysis_type: str, provider: str, model: str) -> None:
    """Set `needs_review` of the results of a model after a calibration of its confidence."""
    keys = {"analysis_type": analysis_type, "provider": provider, "model": model}
    is_of = " AND ".join(f"results.{name} = :{name}" for name in keys)
    session.execute(text(_UPDATE_REVIEWS.format(is_of)), keys)


def _add(session: Session, results: Sequence[NewResult]) -> dict[uuid.UUID, tuple[bool, bool]]:
    rows = ",".join(result.row for result in results)
    stated = ",".join(result.first_facts for result in results if result.first_facts)
    added = session.execute(_ADD, {"rows": f"[{rows}]", "facts": f"[{stated}]"})
    return {row.job_id: (row.is_judged, row.is_calibrated) for row in added}


def jobs_with_results(
    session: Session, about: Collection[tuple[uuid.UUID, AnalysisType]]
) -> Sequence[uuid.UUID]:
    """Return the jobs that have a result of these analysis types for documents."""
    if not about:
        return ()
    document_ids, types = zip(*about, strict=True)
    pairs = unnested(Result, {"document_id": list(document_ids), "analysis_type": list(types)})
    is_about = (Result.document_id == pairs.c.document_id) & (
        Result.analysis_type == pairs.c.analysis_type
    )
    return session.scalars(select(Result.job_id).where(is_about)).all()


def correct(session: Session, job_ids: Sequence[uuid.UUID]) -> None:
    """Apply feedback on answers to the same questions to the current results of jobs."""
    if not job_ids:
        return
    session.execute(_MAY_COMPUTE)
    rows = session.execute(
        select(Result, Job.options)
        .join(Job, Job.id == Result.job_id)
        .where(in_ids(Result.job_id, job_ids))
        .order_by(Result.id)
        .with_for_update(of=Result)
    ).all()
    feedback = stored_feedback.by_document(session, (result.document_id for result, _ in rows))
    of_jobs = in_ids(Fact.job_id, job_ids)
    marked: dict[uuid.UUID, list[str]] = defaultdict(list)
    paths = select(Fact.job_id, Fact.path).where(of_jobs, Fact.accepted)
    for job_id, path in session.execute(paths):
        marked[job_id].append(path)
    stated: list[Iterable[dict[str, object]]] = []
    for result, options in rows:
        kind, question = AnalysisType(result.analysis_type), question_of(options)
        about = stored_feedback.applicable(feedback[result.document_id], kind, question)
        remarks = [stored_feedback.remark(row) for row in about]
        result.verdict = truths.verdict_on_all(result.output, remarks)
        truth = truths.from_remarks(kind, remarks)
        schema = options_from(options).schema
        stated.append(_correct(session, result, truth, marked[result.job_id], schema))
    session.execute(delete(Fact).where(of_jobs))
    for batch in _batches(itertools.chain.from_iterable(stated)):
        session.execute(_STATE, {"facts": f"[{batch}]"})
    session.flush()
    update_reviews(session, job_ids)


def _correct(
    session: Session,
    result: Result,
    truth: Truth,
    marked: Collection[str],
    schema: JsonObject | None,
) -> Iterable[dict[str, object]]:
    kind = AnalysisType(result.analysis_type)
    places = documents.places_in(session, result.document_id) if truth.quoted else None
    corrected = corrections.correct(result.output, analysis_for(kind), truth, places, schema)
    result.corrected_output = corrected.output
    answer = AnswerWithConfidence(
        analysis_type=kind, output=result.output, confidence=result.confidence
    )
    result.accepted = result.accepted and not is_refuted(answer, truth)
    fields_by_path = {fact.path: _field_of(fact) for fact in corrected.facts}
    refuted = {name for name in set(fields_by_path.values()) if is_refuted(answer, truth, name)}
    accepted = {path for path in marked if fields_by_path.get(path) not in refuted}
    stated = with_doubts(corrected.facts, result.doubts or {})
    return _rows_of(result.job_id, stated, accepted)


def _field_of(fact: FactValue) -> str:
    is_data = fact.path.startswith(f"{DATA.path}/")
    return fields.top(fact.path.removeprefix(DATA.path)) if is_data else fact.item


def copy_all(session: Session, copies: Mapping[uuid.UUID, uuid.UUID]) -> None:
    """Copy the current results of other jobs to jobs; `copies` maps each job to its source job.

    Most facts of a long result are computed between the statements, since they exceed the memory.
    """
    if not copies:
        return
    results = session.scalars(select(Result).where(in_ids(Result.job_id, set(copies.values()))))
    originals = {result.job_id: result for result in results}
    save_all(
        session,
        [
            NewResult.of(Result(**{**_columns(originals[from_job_id]), "job_id": job_id}))
            for job_id, from_job_id in copies.items()
        ],
    )


def reusable_all(session: Session, questions: Sequence[ResultKey]) -> dict[ResultKey, uuid.UUID]:
    """Return for each question, if any, the job with the newest complete answer to it.

    A job with a reused answer is returned only if the job with the original answer is gone. The
    jobs are protected from pruning until the commit.
    """
    if not questions:
        return {}
    document_ids, hashes = zip(*questions, strict=True)
    keys = unnested(Job, {"document_id": list(document_ids), "options_hash": list(hashes)})
    best = (
        select(Job.id)
        .join(Result, Result.job_id == Job.id)
        .where(
            Job.document_id == keys.c.document_id,
            Job.options_hash == keys.c.options_hash,
            Job.status == JobStatus.SUCCEEDED,
        )
        .order_by(Job.reused_from.is_not(None), Result.id.desc())
        .limit(1)
        .with_for_update(read=True, key_share=True, of=Job)
        .lateral()
    )
    rows = session.execute(select(keys.c.document_id, keys.c.options_hash, best.c.id))
    return {(document_id, options_hash): job_id for document_id, options_hash, job_id in rows}


_SET_LATER = {"accepted", "verdict"}
_COLUMNS = [c.key for c in Result.__table__.columns if c.key not in _SET_LATER]
_NAMES = ", ".join(_COLUMNS)
_TO_HISTORY = text(f"""
    WITH former AS (DELETE FROM results WHERE job_id = ANY(:ids) RETURNING {_NAMES})
    INSERT INTO result_history ({_NAMES}) SELECT {_NAMES} FROM former""")
_VALUES = _NAMES.replace("created_at", "coalesce(new.created_at, now())").replace(
    "needs_review",
    """needs_review OR EXISTS (
        SELECT FROM jobs JOIN intakes ON intakes.id = jobs.intake_id
        WHERE jobs.id = new.job_id AND intakes.message IS NOT NULL
    )""",
)
_OF_FACTS = ", ".join(("id", "job_id", "accepted", *FactValue.__dataclass_fields__))
_STATED = f"""
        INSERT INTO facts ({_OF_FACTS}) SELECT {_OF_FACTS}
        FROM json_populate_recordset(NULL::facts, CAST(:facts AS json))"""
_STATE = text(_STATED)
# The rows are locked while the facts of long results are computed.
_MAY_COMPUTE = text("SET LOCAL idle_in_transaction_session_timeout = 0")
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
    ) AS is_judged, EXISTS (SELECT FROM calibrations) AS is_calibrated
    FROM added""")
_UPDATE_REVIEWS = """
    UPDATE results SET needs_review = NOT results.needs_review
    FROM answer_trust AS whole
    WHERE {} AND whole.job_id = results.job_id
        AND results.needs_review <> (whole.trust = 'check' OR EXISTS (
            SELECT FROM fact_trust AS value
            WHERE value.job_id = results.job_id AND value.trust = 'check'
        ))"""


def _columns(result: Result) -> dict[str, object]:
    return {name: getattr(result, name) for name in _COLUMNS}


def _rows_of(
    job_id: uuid.UUID, fact_values: Iterable[FactValue], accepted: Collection[str] = ()
) -> Iterator[dict[str, object]]:
    for fact in fact_values:
        values = ((name, getattr(fact, name)) for name in FactValue.__dataclass_fields__)
        row = {"id": new_id(), "job_id": job_id, "accepted": fact.path in accepted}
        yield row | {name: value for name, value in values if value is not None}


def _batches(rows: Iterator[dict[str, object]]) -> Iterator[str]:
    while batch := list(itertools.islice(rows, FACTS_AT_ONCE)):
        yield _elements(batch)


def _elements(rows: Sequence[Mapping[str, object]]) -> str:
    return rows_as_json(rows)[1:-1]


class Fact(Record):
    """A value of the current output of a job; the columns are those of `domain.facts.Fact`.

    If `grounded`, `substr(text, start_char + 1, end_char - start_char) = quote` holds for the
    document of the job.
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
    mentions: Mapped[int] = mapped_column(server_default="1")
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
    scale: Mapped[int | None] = mapped_column(BigInteger)
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
    doubts: Mapped[list[str] | None] = mapped_column(ARRAY(Text()))
    accepted: Mapped[bool] = mapped_column(server_default=false())
