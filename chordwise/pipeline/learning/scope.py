"""The scope of learning: which results are judged, with their answers and the truth about them."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from psycopg.types.json import Jsonb
from sqlalchemy import select
from sqlalchemy.orm import Session

from chordwise.domain.analysis_tasks import AnalysisType, options_to_json, question_of
from chordwise.domain.json_values import JsonObject
from chordwise.domain.learning import truths
from chordwise.domain.learning.judgments import AnswerWithConfidence
from chordwise.domain.learning.learned_examples import is_held_out
from chordwise.domain.learning.truths import Truth
from chordwise.errors import UsageError
from chordwise.pipeline.intake.answer_tables import table_of
from chordwise.pipeline.intake.run_options import (
    RunOptions,
    effective_options,
    identities,
    required_profile,
    run_options,
)
from chordwise.pipeline.learning.gold import Gold
from chordwise.relations.judgments import ANSWERS, LISTED, UNANSWERED
from chordwise.relations.relation import Row, Values
from chordwise.relations.results import ResultSelection
from chordwise.settings import Settings
from chordwise.storage import feedback as stored_feedback
from chordwise.storage import runs
from chordwise.storage.database import driver
from chordwise.storage.documents import Document
from chordwise.storage.feedback import Feedback
from chordwise.storage.intakes import Intake
from chordwise.storage.runs import Run

_AT_ONCE = 500

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Scope:
    """The results of a run, the answers to the questions of a profile, or both; else of all runs.

    With a `table`, the run is the newest one that is saved in it. Without `types`, those of all
    analysis types are meant. The truth is `gold`, else the feedback.
    What depends on the options of the profile raises a `ConfigurationError` if the profile does not
    exist or names an unknown model, and a `UsageError` if it is contradictory.
    """

    settings: Settings
    run: Run | None = None
    profile: str = ""
    table: str = ""
    types: tuple[AnalysisType, ...] = ()
    gold: Gold | None = None

    @property
    def run_name(self) -> str:
        """The name of the run; empty without one."""
        return self.run.name if self.run else ""

    @property
    def names(self) -> Values:
        """The names of the run and the profile, by which the certificates of the scope are read."""
        return {"run": self.run_name, "profile": self.profile}

    @property
    def cells(self) -> Values:
        """The values that select the cells of the scope in the queue of cells to check."""
        table = self.table or (table_of(self._options) if self._options else None)
        (kind,) = self.types if len(self.types) == 1 else (None,)
        run_name = "" if self.table else self.run_name
        return {"run": run_name, "saved_as": table, "analysis_type": kind}

    @property
    def arguments(self) -> list[str]:
        """The arguments that select the run and the profile on the command line."""
        of_profile = ["--profile", self.profile] if self.profile else []
        return [self.run_name, *of_profile] if self.run else of_profile

    def require_name(self, session: Session) -> None:
        """Check that the scope has a profile, or a run that was not deleted meanwhile.

        Raises:
            UsageError: It has neither.
        """
        if self.run is not None:
            runs.find(session, self.run.name)
        elif not self.profile:
            raise UsageError("Name a run or a profile.", "latest is the last run.")

    @property
    def selection(self) -> ResultSelection:
        """The results of the run and the types, without regard to their questions."""
        types = self.types or (self._options.types if self._options else ())
        return ResultSelection(run_id=self.run.id if self.run else None, types=types)

    @property
    def questions(self) -> Sequence[JsonObject] | None:
        """The questions of the profile, as in `jobs.options`; `None` without a profile."""
        if self._options is None:
            return None
        return [options_to_json(self._options.analysis_of(kind)) for kind in self._options.types]

    @property
    def identities(self) -> Mapping[AnalysisType, str]:
        """The identities of today's questions of the profile, as in `jobs.options_hash`."""
        return identities(self.settings, self._options) if self._options else {}

    @cached_property
    def _options(self) -> RunOptions | None:
        if not self.profile:
            return None
        profile = required_profile(self.settings, self.profile)
        return effective_options(self.settings, run_options(self.settings, profile))


def find(
    session: Session,
    settings: Settings,
    name: str | None = None,
    profile: str = "",
    types: Sequence[AnalysisType] = (),
) -> Scope:
    """Return the scope of the argument RUN|PROFILE and the options --profile and --type.

    Raises:
        UsageError: There is no such run, profile or table, or a run and a profile have this name.
    """
    scope = Scope(settings=settings, profile=profile, types=tuple(types))
    if not name:
        return scope
    try:
        run = runs.find(session, name)
    except UsageError as error:
        if profile:
            raise
        if name in settings.profiles:
            return Scope(settings=settings, profile=name, types=scope.types)
        table = name.removeprefix("answers.")
        saved = runs.newest_saved_as(session, table)
        if saved is None:
            raise UsageError(f"There is no run, profile or table “{name}”.", error.hint) from error
        return Scope(settings=settings, run=saved, table=table, types=scope.types)
    if name in settings.profiles and not profile:
        raise UsageError(
            f"There is a run “{name}” and a profile “{name}”.",
            "Use --profile NAME for the profile, or the id of the run for the run.",
        )
    return Scope(settings=settings, run=run, profile=profile, types=scope.types)


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


def reasons(
    session: Session, absent: Sequence[str], run_id: uuid.UUID | None, kind: AnalysisType
) -> Mapping[str, str]:
    """Return why there is no result of a type for the documents with these names."""
    items, why = Names(), {}
    values = {"names": list(absent), "run_id": run_id, "analysis_type": kind}
    for row in UNANSWERED.read(driver(session), values):
        items.add(row["id"], row["source"])
        items.add(row["id"], row["sha256"] or row["source"])
        why[row["id"]] = row["reason"]
    return {
        name: why[max(ids)] if (ids := items.find(name)) else "no such document" for name in absent
    }


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
