"""Feedback: a person's verdict on a result is stored with what the result claimed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy.orm import Session

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject
from chordwise.domain.learning import truths
from chordwise.domain.learning.judging import judge
from chordwise.domain.learning.remarks import FeedbackInput, Understood, parsed, understand
from chordwise.domain.learning.truths import Verdict
from chordwise.domain.tasks import AnalysisType
from chordwise.errors import UsageError
from chordwise.pipeline.learning import judgeable
from chordwise.pipeline.learning.gold import RecordFile, read_records
from chordwise.pipeline.learning.judgeable import Judgeable, Listed
from chordwise.pipeline.runs.stored_results import Wanted
from chordwise.storage import documents, jobs, judgments, results, runs
from chordwise.storage.judgments import Feedback, JudgedBy
from chordwise.storage.record import id_in

_COLUMNS = ("document", "type", "path", "verdict", "value", "note", "author")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A verdict with its note and its author."""

    saying: FeedbackInput
    note: str = ""
    author: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a feedback file: a verdict on a document's result."""

    number: int
    document: str
    analysis_type: AnalysisType | None
    signed: Signed


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmatched:
    """A line that matches no result, or whose verdict the result does not allow."""

    line: int
    document: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The numbers of stored, already known and withdrawn verdicts, and the skipped lines."""

    stored: int = 0
    known: int = 0
    withdrawn: int = 0
    unmatched: Sequence[Unmatched] = ()


def give(session: Session, target: Judgeable, said: Sequence[Signed]) -> Given:
    """Store verdicts on one result and update its judgments and corrections.

    Raises:
        UsageError: The answer has no such value, or a correction is invalid.
    """
    stored = sum(_store(session, target, each) for each in said)
    _apply(session, target)
    return Given(stored=stored, known=len(said) - stored)


def withdraw(session: Session, feedback_id: uuid.UUID, author: str = "") -> Feedback:
    """Withdraw feedback, undo its effects and return it; its row is kept.

    Raises:
        UsageError: The feedback does not exist, or it is already withdrawn.
    """
    found = judgments.withdraw(session, feedback_id, author.strip() or None)
    if found is None:
        raise UsageError("There is no such feedback, or it is withdrawn already.")
    _apply(session, one(session, str(found.job_id)))
    return found


def last(session: Session, target: Judgeable, path: str = "") -> Feedback:
    """Return the last feedback on answers to this question, or on the value at a path.

    Raises:
        UsageError: The answer has no such value, or there is no feedback on it.
    """
    said = _said(session, target)
    if path:
        saying = FeedbackInput(verdict=Verdict.APPROVED, path=path)
        remark = _understood(target, saying).remark
        about = remark.path, remark.name or None
        said = [each for each in said if (each.path, each.field) == about]
    if not said:
        raise UsageError("There is no feedback to withdraw.")
    return said[-1]


def read(path: Path) -> Sequence[Line]:
    """Read a feedback file.

    Raises:
        UsageError: The file cannot be read, or a line is invalid.
    """
    file = read_records(path)
    return [_line(file, number, record) for number, record in file.records]


def give_all(session: Session, wanted: Wanted, lines: Sequence[Line]) -> Given:
    """Store the verdicts of a file on the newest results of their documents."""
    results = judgeable.listed(session, wanted)
    names = judgeable.names(session, results, wanted.run_id)
    newest = {(result.document_id, result.analysis_type): result for result in results}
    by_document: dict[uuid.UUID, list[Listed]] = {}
    for result in newest.values():
        by_document.setdefault(result.document_id, []).append(result)
    stored = known = 0
    unmatched: list[Unmatched] = []
    for line in lines:
        try:
            target = _target(session, line, names.find(line.document), by_document)
            given = give(session, target, [line.signed])
        except UsageError as error:
            reason = f"{error.what} {error.hint}".strip()
            unmatched.append(Unmatched(line=line.number, document=line.document, reason=reason))
        else:
            stored, known = stored + given.stored, known + given.known
    return Given(stored=stored, known=known, unmatched=unmatched)


def _target(
    session: Session,
    line: Line,
    documents: frozenset[uuid.UUID],
    by_document: dict[uuid.UUID, list[Listed]],
) -> Judgeable:
    if len(documents) > 1:
        raise UsageError(
            f"{len(documents)} documents have this name.", "Give the hash or a longer path."
        )
    found = [result for document in documents for result in by_document.get(document, ())]
    if line.analysis_type is not None:
        found = [result for result in found if result.analysis_type is line.analysis_type]
    return only(session, found, "Name the analysis type of the answer as “type” in this line.")


def _understood(target: Judgeable, saying: FeedbackInput) -> Understood:
    question = target.listed.question
    labels, schema = json_values.strings(question.get("labels")), question.get("schema")
    asked = schema if isinstance(schema, dict) else None
    return understand(target.answer, saying, labels, asked)


def _store(session: Session, target: Judgeable, signed: Signed) -> bool:
    understood = _understood(target, signed.saying)
    remark = understood.remark
    quote, start, end = _selected(session, target, signed.saying)
    return judgments.store_feedback(
        session,
        Feedback(
            job_id=target.result.job_id,
            document_id=target.result.document_id,
            result_id=target.result.result_id,
            analysis_type=target.result.analysis_type,
            question=target.listed.question,
            path=remark.path,
            field=remark.name or None,
            verdict=remark.verdict,
            judged=remark.judged,
            corrected=remark.corrected,
            confidence=understood.confidence,
            quote=quote,
            start_char=start,
            end_char=end,
            note=signed.note.strip() or None,
            author=signed.author.strip() or None,
        ),
    )


def _selected(
    session: Session, target: Judgeable, saying: FeedbackInput
) -> tuple[str, int, int] | tuple[None, None, None]:
    """Return the text selected for a right value, stripped of white space, and its span.

    Raises:
        UsageError: The document has no text at the span.
    """
    is_one = saying.value is not None and not isinstance(saying.value, list | dict)
    if saying.span is None or saying.verdict is not Verdict.CORRECTED or not is_one:
        return None, None, None
    start, end = saying.span
    text = documents.text_of(session, target.result.document_id)[max(0, start) : end]
    if start < 0 or len(text) != end - start or not text.strip():
        raise UsageError(f"The document has no text from {start:,} to {end:,}.")
    start += len(text) - len(text.lstrip())
    return text.strip(), start, start + len(text.strip())


def _said(session: Session, target: Judgeable) -> Sequence[Feedback]:
    """Return all feedback on answers to this question, the latest last."""
    found = judgments.of_documents(session, [target.result.document_id])
    return judgments.about(found, target.answer.analysis_type, target.listed.question)


def _apply(session: Session, target: Judgeable) -> None:
    """Update judgments and corrections of results from all feedback on answers to this question."""
    kind = target.answer.analysis_type
    remarks = [judgments.remark(each) for each in _said(session, target)]
    judged = judge(target.answer, truths.from_remarks(kind, remarks))
    judgments.store(session, [(target.result, judged.judgments)], JudgedBy.FEEDBACK)
    about = target.listed.document_id, target.listed.analysis_type
    results.correct(session, results.jobs_with_result(session, *about))


def _line(file: RecordFile, number: int, record: JsonObject) -> Line:
    if unknown := sorted(record.keys() - set(_COLUMNS)):
        raise file.wrong(number, f"“{unknown[0]}” is none of {', '.join(_COLUMNS)}.")
    said = {name: json_values.text(record.get(name)).strip() for name in _COLUMNS}
    if not said["document"]:
        raise file.wrong(number, "there is no “document”.")
    return Line(
        number=number,
        document=said["document"],
        analysis_type=_type(file, number, said["type"]),
        signed=Signed(
            saying=_saying(file, number, record, said), note=said["note"], author=said["author"]
        ),
    )


def _type(file: RecordFile, number: int, name: str) -> AnalysisType | None:
    try:
        return AnalysisType(name) if name else None
    except ValueError as error:
        raise file.wrong(number, f"there is no analysis type “{name}”.") from error


def _saying(
    file: RecordFile, number: int, record: JsonObject, said: dict[str, str]
) -> FeedbackInput:
    """Return the verdict of a line; a value without a verdict is a correction."""
    value = record.get("value")
    value = parsed(value) if file.is_csv and isinstance(value, str) else value
    usual = Verdict.CORRECTED if value is not None else Verdict.APPROVED
    try:
        verdict = Verdict(said["verdict"] or usual)
    except ValueError as error:
        known = ", ".join(Verdict)
        raise file.wrong(number, f"“{said['verdict']}” is none of {known}.") from error
    return FeedbackInput(verdict=verdict, path=said["path"], value=value)


_MAX_SHOWN = 5


_EVERY = Wanted()


def wanted(session: Session, name: str | None, results: Wanted) -> Wanted:
    """Return the selection restricted to the named run.

    Raises:
        UsageError: The run does not exist.
    """
    run_id = runs.find(session, name).id if name else None
    return replace(results, run_id=run_id)


def one(session: Session, name: str | None, results: Wanted = _EVERY) -> Judgeable:
    """Return the single result that is selected; `name` is a run's name or id, or a job's id.

    Raises:
        UsageError: The run does not exist, or no result or more than one is selected.
    """
    job_id = id_in(name or "")
    job = None if job_id is None else jobs.get(session, job_id)
    if job is None:
        return only(session, judgeable.listed(session, wanted(session, name, results)))
    of_job = replace(results, run_id=job.run_id, job_ids=(job.id,))
    return only(session, judgeable.listed(session, of_job))


_CHOICE = "Choose one with --document and --type, or give the job's id."


def only(session: Session, results: Sequence[Listed], hint: str = _CHOICE) -> Judgeable:
    """Return the only result of a selection; `hint` says how to select one of several.

    Raises:
        UsageError: The selection has no result or more than one.
    """
    if not results:
        raise UsageError("There is no such result.", "`chordwise results` lists the results.")
    if len(results) > 1:
        shown = ", ".join(f"{r.source} ({r.analysis_type})" for r in results[:_MAX_SHOWN])
        raise UsageError(
            f"{len(results):,} results fit: {shown}{', …' if len(results) > _MAX_SHOWN else ''}.",
            hint,
        )
    for found in judgeable.read(session, results):
        return found
    raise UsageError("The result was replaced in the meantime.", "Review the new result.")
