"""The answer about a document with its critique, its quality, and why it needs review."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from chordwise.domain import (
    checks,
    grounding,
    json_values,
    missing_rows,
    self_consistency,
    value_in_quote,
)
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import CONFIDENCE_THRESHOLD, AnalysisTask
from chordwise.domain.answers import CHECK_FACTOR, Answer, lowered_by
from chordwise.domain.checks import FailedCheck
from chordwise.domain.critique import Critique
from chordwise.domain.grounding import Source
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.states import CritiqueOutcome
from chordwise.llm.model import EXTRACTIVE
from chordwise.pipeline.asking.check import with_missing_rows

MIN_QUALITY = 0.8
"""An answer needs review if less of it could be checked against the text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssessedAnswer:
    """An answer, revised or not, and the result of its critique, which is `None` without one.

    `is_merged_by_rule` is true if the synthesis failed and the parts were joined without a model.
    `sparse` has sentences about lists that evidently lack rows, although none can be counted.
    """

    answer: Answer
    critique: Critique | None = None
    is_merged_by_rule: bool = False
    sparse: tuple[str, ...] = ()

    def with_unread_records(
        self,
        text: str,
        task: AnalysisTask,
        answered: Sequence[tuple[int, int]],
        place: Callable[[int, int], str],
    ) -> AssessedAnswer:
        """Return the same with the rows that are missing for records of the document's text.

        Only the spans `answered` are searched for records; `place` names a span.
        """
        source, output = Source(text), self.answer.output
        answer = with_missing_rows(
            self.answer, missing_rows.unread(source, output, task, answered, place)
        )
        sparse = missing_rows.sparse(text, output, task, answer.missing_rows)
        return replace(self, answer=answer, sparse=sparse)

    def failed_checks(self, task: AnalysisTask) -> tuple[FailedCheck, ...]:
        """Return the checks that the answer fails."""
        return checks.failures(self.answer.output, task.options, task.examples)

    def quality(self, task: AnalysisTask) -> float:
        """Return the quality of the answer, lowered by each failed check."""
        return lowered_by(self.answer.quality, CHECK_FACTOR ** len(self.failed_checks(task)))

    def review_reason(self, confidence: float, task: AnalysisTask) -> str:
        """Return why the answer needs review, or an empty string if it does not.

        If votes were requested, a single vote of a language model is a reason as well.
        """
        return " ".join((*self._losses(), *self._flaws(task), *self._doubts(confidence, task)))

    def assessment(
        self, parts: Sequence[JsonObject | None], task: AnalysisTask
    ) -> tuple[float, list[JsonValue], str]:
        """Return confidence, row counts, and why the answer needs review, or an empty string.

        `parts` are the answers of all chunks in order, `None` for a chunk without one.
        """
        answer, kind = self.answer, task.analysis_type
        confidence = self_consistency.adjusted_confidence(answer.confidence, answer.agreement, kind)
        counts = missing_rows.counts(parts, answer.output, task, answer.missing_rows)
        failed = parts.count(None)
        lost = f"{failed} of {len(parts)} chunks failed." if failed else ""
        reasons = (lost, self.review_reason(confidence, task), *missing_rows.gaps(counts))
        return confidence, counts, " ".join(filter(None, reasons))

    def _losses(self) -> Iterator[str]:
        if self.is_merged_by_rule:
            yield "The parts were merged by rule."
        yield from missing_rows.sentences(missing_rows.losses(self.answer.missing_rows))
        yield from self.sparse

    def _flaws(self, task: AnalysisTask) -> Iterator[str]:
        """Yield the parts of the output that contradict the text or the schema."""
        output, analysis = self.answer.output, analysis_for(task.analysis_type)
        if failed := self.failed_checks(task):
            problems = (f"{each.check} {each.path}: {each.problem}" for each in failed)
            yield f"Checks failed: {_first_few(problems, '; ')}."
        quotes = grounding.quotes(output)
        if lost := [each for each in quotes if each.get("grounded") is not True]:
            named = _first_few(_shortened(json_values.text(each.get("quote"))) for each in lost)
            yield f"{len(lost):,} of {len(quotes):,} quotes are not in the text: {named}."
        if outside := value_in_quote.values_not_in_quotes(output):
            yield f"Values that are not in their quotes: {_first_few(outside)}."
        if without := analysis.without_evidence(output, task.options):
            yield f"Values without a quote: {_first_few(without)}."
        if not analysis.has_findings(output):
            yield "The answer has nothing that was requested."

    def _doubts(self, confidence: float, task: AnalysisTask) -> Iterator[str]:
        answer, options = self.answer, task.options
        if answer.quality < MIN_QUALITY:
            yield f"The quality {answer.quality:.2f} is below {MIN_QUALITY:g}."
        threshold = options.confidence_threshold
        threshold = CONFIDENCE_THRESHOLD if threshold is None else threshold
        if confidence < threshold:
            yield f"The confidence {confidence:.2f} is below {threshold:g}."
        if self.critique is not None and self.critique.outcome in _DOUBTS:
            yield _DOUBTS[self.critique.outcome]
        if options.votes > 1 and answer.agreement is None and answer.provider != EXTRACTIVE:
            yield "Only one sample of the vote was usable."


_DOUBTS = {
    CritiqueOutcome.FAILED: "The critique failed.",
    CritiqueOutcome.KEPT: "The answer was kept in spite of the objections of a critique.",
}
_FEW = 5
_QUOTE_CHARACTERS = 80


def _shortened(quote: str) -> str:
    whole = " ".join(quote.split())
    return f"“{whole if len(whole) <= _QUOTE_CHARACTERS else f'{whole[:_QUOTE_CHARACTERS]}…'}”"


def _first_few(names: Iterable[str], mark: str = ", ") -> str:
    """Return the first few names, and the number of the others."""
    every = list(dict.fromkeys(names))
    more = f" and {len(every) - _FEW} more" if len(every) > _FEW else ""
    return f"{mark.join(every[:_FEW])}{more}"
