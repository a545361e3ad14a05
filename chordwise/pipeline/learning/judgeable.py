"""Stored results that can be judged, and the lookup of documents by name."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from psycopg.types.json import Jsonb
from sqlalchemy import select
from sqlalchemy.orm import Session

from chordwise.domain.analysis_tasks import AnalysisType, question_of
from chordwise.domain.json_values import JsonObject
from chordwise.domain.learning import truths
from chordwise.domain.learning.judgments import AnswerWithConfidence
from chordwise.domain.learning.learned_examples import is_held_out
from chordwise.domain.learning.truths import Truth
from chordwise.relations.judged_results import ANSWERS, LISTED
from chordwise.relations.relation import Row
from chordwise.relations.results import ResultSelection
from chordwise.storage import feedback as stored_feedback
from chordwise.storage.database import driver
from chordwise.storage.documents import Document
from chordwise.storage.feedback import Feedback
from chordwise.storage.intakes import Intake

_AT_ONCE = 500

Item = TypeVar("Item")


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
        whole = name.removeprefix("./")
        return frozenset(self._whole.get(whole) or self._ends.get(whole) or ())


def listed(
    session: Session, selection: ResultSelection, questions: Sequence[JsonObject] | None = None
) -> Sequence[Row]:
    """Return the selected results; if `questions` are given, only answers to them.

    The `question` of a row is the part of the options that defines the question; `options_hash`
    also identifies the model, the prompt and the version that answered it.
    """
    stored = None if questions is None else [Jsonb(question) for question in questions]
    values = {**selection.values, "questions": stored}
    rows = LISTED.read(driver(session), values, where=selection.where)
    for row in rows:
        row["analysis_type"] = AnalysisType(row["analysis_type"])
        row["question"] = question_of(row.pop("options"))
    return rows


def names(session: Session, results: Sequence[Row], run_id: uuid.UUID | None) -> Names:
    """Return the names of these results' documents; for a run, only the names used in it."""
    known = Names()
    for some in batches(sorted({result["document_id"] for result in results})):
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


def read(session: Session, results: Sequence[Row]) -> Iterator[Row]:
    """Yield the rows of `listed` with their answers, read in batches; without deleted results.

    `answer` is the answer as it is judged. `seconds` and `cost_usd` are `None` if unknown, as those
    of a reused answer. A document that `is_held_out` never becomes a learned example.
    """
    for some in batches(results):
        by_id = {result["result_id"]: result for result in some}
        for row in ANSWERS.read(driver(session), {"result_ids": list(by_id)}):
            result = by_id[row["result_id"]]
            answer = AnswerWithConfidence(
                analysis_type=result["analysis_type"],
                output=row["output"],
                confidence=row["confidence"],
                needs_review=row["needs_review"],
            )
            held_out = is_held_out(row["sha256"])
            yield {**result, **row, "answer": answer, "is_held_out": held_out}


def truth_about(result: Row, feedback: Iterable[Feedback]) -> Truth | None:
    """Return the truth that feedback on the document of a result implies for its question.

    The latest feedback comes last; without any about the question, it is `None`.
    """
    kind = result["analysis_type"]
    about = stored_feedback.applicable(feedback, kind, result["question"])
    return truth_of(kind, about) if about else None


def truth_of(kind: AnalysisType, about: Iterable[Feedback]) -> Truth:
    """Return the truth that feedback on one question implies; `about` is sorted, latest last."""
    return truths.from_remarks(kind, [stored_feedback.remark(one) for one in about])


def batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Yield batches of a size that one statement can name."""
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]
