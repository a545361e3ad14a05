"""Feedback: a person's verdict on a result is stored with what the result claimed."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

from sqlalchemy.orm import Session

from chordwise.domain import json_values
from chordwise.domain.analysis_tasks import AnalysisType, options_from
from chordwise.domain.identifiers import id_in
from chordwise.domain.json_values import JsonObject
from chordwise.domain.learning.feedback_input import FeedbackInput, parsed, understand
from chordwise.domain.learning.judgments import judge
from chordwise.domain.learning.truths import Remark, Verdict
from chordwise.errors import UsageError
from chordwise.pipeline.learning import scope as scopes
from chordwise.pipeline.learning.gold import RecordFile, read_records
from chordwise.relations.relation import Row
from chordwise.relations.results import ResultSelection
from chordwise.storage import documents, jobs, judgments, results, runs
from chordwise.storage import feedback as stored_feedback
from chordwise.storage.feedback import Feedback
from chordwise.storage.judgments import JudgedBy

_COLUMNS = ("document", "type", "path", "verdict", "value", "note", "author")


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackLine:
    """A line of a feedback file: a verdict on a document's result."""

    number: int
    document: str
    analysis_type: AnalysisType | None = None
    entered: FeedbackInput


def give(session: Session, target: Row, entered: Sequence[FeedbackInput]) -> int:
    """Store verdicts on one result and update its judgments; return how many were not known.

    Raises:
        UsageError: The answer has no such value, or a correction is invalid.
    """
    stored = sum(_store(session, target, verdict) for verdict in entered)
    _apply(session, [target])
    return stored


def decide(
    session: Session, job_id: uuid.UUID, result_id: uuid.UUID, entered: FeedbackInput
) -> Feedback | None:
    """Store a person's decision and return it; `None` if the same decision is already stored.

    Raises:
        UsageError: The result was replaced, it has no such value, or a correction is invalid.
    """
    target = one(session, str(job_id))
    if target["result_id"] != result_id:
        raise UsageError(
            "The document was analyzed again in the meantime.", "Review the new answer."
        )
    is_new = give(session, target, [entered])
    return last(session, target, entered.path) if is_new else None


def withdraw(session: Session, feedback_id: uuid.UUID, author: str = "") -> Feedback:
    """Withdraw feedback, undo its effects and return it; its row is kept.

    Raises:
        UsageError: The feedback does not exist, or it is already withdrawn.
    """
    feedback = stored_feedback.withdraw(session, feedback_id, author.strip() or None)
    if feedback is None:
        raise UsageError("There is no such feedback, or it is withdrawn already.")
    _apply(session, [one(session, str(feedback.job_id))])
    return feedback


def last(session: Session, target: Row, path: str = "") -> Feedback:
    """Return the last feedback on answers to this question, or on the value at a path.

    Raises:
        UsageError: The answer has no such value, or there is no feedback on it.
    """
    on_document = stored_feedback.of_documents(session, [target["document_id"]])
    feedback = stored_feedback.applicable(on_document, target["analysis_type"], target["question"])
    if path:
        remark = _remark(target, FeedbackInput(verdict=Verdict.REJECTED, path=path))
        about = remark.path, remark.name or None
        feedback = [row for row in feedback if (row.path, row.field) == about]
    if not feedback:
        raise UsageError("There is no feedback to withdraw.")
    return feedback[-1]


def read(path: Path) -> Sequence[FeedbackLine]:
    """Read a feedback file.

    Raises:
        UsageError: The file cannot be read, or a line is invalid.
    """
    file = read_records(path)
    return [_line(file, number, record) for number, record in file.records]


def give_all(session: Session, selection: ResultSelection, lines: Sequence[FeedbackLine]) -> Row:
    """Store the verdicts of a file on the newest results of their documents.

    Returns the numbers of `stored` and already `known` verdicts, and the `unmatched` lines: such a
    line matches no result, or the result does not allow its verdict.
    """
    results = scopes.listed(session, selection)
    names = scopes.names(session, results, selection.run_id)
    newest = {(row["document_id"], row["analysis_type"]): row for row in results}
    by_document: dict[uuid.UUID, list[Row]] = defaultdict(list)
    for result in newest.values():
        by_document[result["document_id"]].append(result)
    stored: list[bool] = []
    unmatched: list[Row] = []
    for batch in scopes.batches(lines):
        matches: list[tuple[FeedbackLine, Row]] = []
        for line in batch:
            with _noting(unmatched, line):
                result = _result_of(line, names.find(line.document), by_document)
                matches.append((line, result))
        targets = _read(session, [result for _, result in matches])
        for line, result in matches:
            with _noting(unmatched, line):
                target = _unless_replaced(targets.get(result["result_id"]))
                stored.append(_store(session, target, line.entered))
        _apply(session, list(targets.values()))
    unmatched.sort(key=itemgetter("line"))
    return {"stored": sum(stored), "known": stored.count(False), "unmatched": unmatched}


@contextmanager
def _noting(unmatched: list[Row], line: FeedbackLine) -> Iterator[None]:
    """Add a line to the unmatched ones if the block raises a `UsageError`."""
    try:
        yield
    except UsageError as error:
        reason = f"{error.what} {error.hint}".strip()
        unmatched.append({"line": line.number, "document": line.document, "reason": reason})


def _result_of(
    line: FeedbackLine,
    documents: frozenset[uuid.UUID],
    by_document: Mapping[uuid.UUID, Sequence[Row]],
) -> Row:
    if len(documents) > 1:
        raise UsageError(
            f"{len(documents)} documents have this name.", "Give the hash or a longer path."
        )
    results = [result for document in documents for result in by_document.get(document, ())]
    if line.analysis_type is not None:
        results = [result for result in results if result["analysis_type"] == line.analysis_type]
    return _only(results, "Name the analysis type of the answer as “type” in this line.")


def _read(session: Session, results: Iterable[Row]) -> Mapping[uuid.UUID, Row]:
    by_id = {result["result_id"]: result for result in results}
    return {row["result_id"]: row for row in scopes.read(session, list(by_id.values()))}


def _remark(target: Row, entered: FeedbackInput, earlier: Sequence[Remark] = ()) -> Remark:
    return understand(target["answer"], entered, options_from(target["question"]), earlier)


def _earlier(session: Session, target: Row, entered: FeedbackInput) -> Sequence[Remark]:
    """Return the remarks on answers to the same question, if the new one depends on them."""
    is_approved = entered.verdict is Verdict.APPROVED
    is_of_all, is_of_one = not entered.path, entered.path.startswith("/")
    if not ((is_of_all and is_approved) or (is_of_one and not is_approved)):
        return ()
    on_document = stored_feedback.of_documents(session, [target["document_id"]])
    about = stored_feedback.applicable(on_document, target["analysis_type"], target["question"])
    return [stored_feedback.remark(one) for one in about]


def _store(session: Session, target: Row, entered: FeedbackInput) -> bool:
    remark = _remark(target, entered, _earlier(session, target, entered))
    quote, start, end = _selected(session, target, entered)
    of_target = ("job_id", "document_id", "result_id", "analysis_type", "question")
    return stored_feedback.store(
        session,
        Feedback(
            **{name: target[name] for name in of_target},
            path=remark.path,
            field=remark.name or None,
            verdict=remark.verdict,
            judged=remark.judged,
            corrected=remark.corrected,
            confidence=remark.confidence,
            quote=quote,
            start_char=start,
            end_char=end,
            note=entered.note.strip() or None,
            author=entered.author.strip() or None,
        ),
    )


def _selected(
    session: Session, target: Row, entered: FeedbackInput
) -> tuple[str, int, int] | tuple[None, None, None]:
    """Return the text selected for a right value, stripped of white space, and its span."""
    is_one = entered.value is not None and not isinstance(entered.value, list | dict)
    if entered.span is None or entered.verdict is not Verdict.CORRECTED or not is_one:
        return None, None, None
    start, end = entered.span
    text = documents.text_of(session, target["document_id"])[max(0, start) : end]
    if start < 0 or len(text) != end - start or not text.strip():
        raise UsageError(f"The document has no text from {start:,} to {end:,}.")
    start += len(text) - len(text.lstrip())
    return text.strip(), start, start + len(text.strip())


def _apply(session: Session, targets: Sequence[Row]) -> None:
    """Update judgments and corrections of results from all feedback on the same questions."""
    feedback = stored_feedback.by_document(session, (row["document_id"] for row in targets))
    judged = []
    for target in targets:
        truth = scopes.truth_about(target, feedback[target["document_id"]])
        judged.append((target, judge(target["answer"], truth).judgments if truth else ()))
    judgments.store(session, judged, JudgedBy.FEEDBACK)
    about_them = {(row["document_id"], row["analysis_type"]) for row in targets}
    results.correct(session, results.jobs_with_results(session, about_them))


def _line(file: RecordFile, number: int, record: JsonObject) -> FeedbackLine:
    if unknown := sorted(record.keys() - set(_COLUMNS)):
        raise file.wrong(number, f"“{unknown[0]}” is not one of {', '.join(_COLUMNS)}.")
    columns = {name: json_values.text(record.get(name)).strip() for name in _COLUMNS}
    if not columns["document"]:
        raise file.wrong(number, "there is no “document”.")
    value = record.get("value")
    value = parsed(value) if file.is_csv and isinstance(value, str) else value
    # A value without a verdict is a correction.
    usual = Verdict.CORRECTED if value is not None else Verdict.APPROVED
    kind, verdict = columns["type"], columns["verdict"] or usual
    if kind and kind not in set(AnalysisType):
        raise file.wrong(number, f"there is no analysis type “{kind}”.")
    if verdict not in set(Verdict):
        raise file.wrong(number, f"“{verdict}” is not one of {', '.join(Verdict)}.")
    entered = FeedbackInput(
        verdict=Verdict(verdict),
        path=columns["path"],
        value=value,
        note=columns["note"],
        author=columns["author"],
    )
    return FeedbackLine(
        number=number,
        document=columns["document"],
        analysis_type=AnalysisType(kind) if kind else None,
        entered=entered,
    )


_MAX_SHOWN = 5


_EVERY = ResultSelection()


def in_run(session: Session, name: str | None, results: ResultSelection) -> ResultSelection:
    """Return the selection restricted to the named run.

    Raises:
        UsageError: The run does not exist.
    """
    run_id = runs.find(session, name).id if name else None
    return replace(results, run_id=run_id)


def one(session: Session, name: str | None, results: ResultSelection = _EVERY) -> Row:
    """Return the single result that is selected; `name` is a run's name or id, or a job's id.

    Raises:
        UsageError: The run does not exist, or no result or more than one is selected.
    """
    job_id = id_in(name or "")
    job = None if job_id is None else jobs.get(session, job_id)
    if job is None:
        results = in_run(session, name, results)
    else:
        results = replace(results, run_id=job.run_id, job_ids=(job.id,))
    result = _only(scopes.listed(session, results))
    return _unless_replaced(_read(session, [result]).get(result["result_id"]))


_CHOICE = "Choose one with --document and --type, or give the job's id."


def _only(results: Sequence[Row], hint: str = _CHOICE) -> Row:
    """Return the only result; `hint` says how to select one of several."""
    if not results:
        raise UsageError("There is no such result.", "`chordwise results` lists the results.")
    if len(results) > 1:
        shown = ", ".join(
            f"{row['source']} ({row['analysis_type']})" for row in results[:_MAX_SHOWN]
        )
        raise UsageError(
            f"{len(results):,} results match: {shown}{', …' if len(results) > _MAX_SHOWN else ''}.",
            hint,
        )
    return results[0]


def _unless_replaced(target: Row | None) -> Row:
    if target is None:
        raise UsageError("The result was replaced in the meantime.", "Review the new result.")
    return target
