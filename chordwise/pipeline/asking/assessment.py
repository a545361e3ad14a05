"""The answer about a document with its critique, its quality, and why it needs review."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from chordwise.domain import (
    checks,
    json_values,
    missing_rows,
    self_consistency,
    trust,
    value_in_quote,
)
from chordwise.domain.analysis import analysis_for, claimed_number
from chordwise.domain.analysis_tasks import AnalysisTask, AnalysisType
from chordwise.domain.answers import CHECK_FACTOR, Answer, lowered_by
from chordwise.domain.checks import FailedCheck
from chordwise.domain.critique import Critique
from chordwise.domain.extractive import extraction as extractive
from chordwise.domain.facts import DATA
from chordwise.domain.grounding import Source
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.states import CritiqueOutcome
from chordwise.domain.trust import MIN_AGREEMENT, Doubt, Reason
from chordwise.llm.model import EXTRACTIVE
from chordwise.pipeline.asking.check import with_missing_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class AssessedAnswer:
    """An answer, revised or not, and the result of its critique, which is `None` without one.

    `is_merged_by_rule` is true if the synthesis failed and the parts were joined without a model.
    `doubts_of_text` are the reasons to check values that the whole text of the document gives.
    """

    answer: Answer
    critique: Critique | None = None
    is_merged_by_rule: bool = False
    doubts_of_text: Sequence[Doubt] = ()

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
        return replace(self, answer=answer, doubts_of_text=tuple(self._of_text(text, task)))

    def failed_checks(self, task: AnalysisTask) -> tuple[FailedCheck, ...]:
        """Return the checks that the answer fails."""
        return checks.failures(self.answer.output, task.options, task.examples)

    def quality(self, task: AnalysisTask) -> float:
        """Return the quality, lowered by failed checks and values without a quote."""
        output = self.answer.output
        without = len(analysis_for(task.analysis_type).without_evidence(output, task.options))
        quoted = sum(1 for _ in trust.quotes_by_path(output))
        supported = quoted / (quoted + without) if without else 1.0
        factor = CHECK_FACTOR ** len(self.failed_checks(task))
        return lowered_by(self.answer.quality, supported * factor)

    def contradictions(
        self, parts: Sequence[JsonObject | None], task: AnalysisTask
    ) -> list[JsonObject]:
        """Return the values of the chunks that the answer did not keep (see `domain.trust`)."""
        answered = [part for part in parts if part is not None]
        is_by_rule = self.is_merged_by_rule or self.answer.provider == EXTRACTIVE
        return trust.contradictions(answered, self.answer.output, task, is_by_rule=is_by_rule)

    def assessment(
        self, parts: Sequence[JsonObject | None], task: AnalysisTask
    ) -> tuple[float, list[JsonValue], Sequence[Doubt]]:
        """Return confidence, row counts, and the reasons to check the answer or its values.

        `parts` are the answers of all chunks in order, `None` for a chunk without one.
        """
        answer, kind = self.answer, task.analysis_type
        confidence = self_consistency.adjusted_confidence(answer.confidence, answer.agreement, kind)
        counts = missing_rows.counts(parts, answer.output, task, answer.missing_rows)
        failed = parts.count(None)
        losses = [f"{failed:,} of {len(parts)} chunks failed."] if failed else []
        losses += [*self._losses(), *missing_rows.gaps(counts)]
        losses += [_OBJECTIONS.get(self.critique.outcome, "")] if self.critique else []
        answered = [part for part in parts if part is not None]
        flaws = (*self._flaws(task), *self.doubts_of_text)
        values = (*flaws, *self._votes(task), *self._disagreements(answered, task))
        low = self._low(confidence, task)
        doubts = (Doubt(sentence=loss) for loss in losses if loss)
        return confidence, counts, (*doubts, *values, *low)

    def _losses(self) -> Iterator[str]:
        if self.is_merged_by_rule:
            yield "The parts were merged by rule."
        if self.answer.missing_fields:
            yield self.answer.missing_fields
        yield from missing_rows.sentences(missing_rows.losses(self.answer.missing_rows))

    def _flaws(self, task: AnalysisTask) -> Iterator[Doubt]:
        """Yield the parts of the output that contradict the text or the schema."""
        output, analysis = self.answer.output, analysis_for(task.analysis_type)
        if failed := self.failed_checks(task):
            problems = (f"{one.check} {one.path}: {one.problem}" for one in failed)
            sentence = f"Checks failed: {first_few(problems, '; ')}."
            paths = [one.path for one in failed]
            yield Doubt(sentence=sentence, reason=Reason.CHECK_FAILED, paths=paths)
        quotes = list(trust.quotes_by_path(output))
        lost = [(path, one) for path, one in quotes if one.get("grounded") is not True]
        if lost:
            texts = first_few(_shortened(json_values.text(one.get("quote"))) for _, one in lost)
            sentence = f"{len(lost):,} of {len(quotes):,} quotes are not in the text: {texts}."
            paths = [path for path, _ in lost]
            yield Doubt(sentence=sentence, reason=Reason.QUOTE_NOT_FOUND, paths=paths)
        if outside := value_in_quote.values_not_in_quotes(output):
            sentence = f"Values that are not in their quotes: {first_few(outside)}."
            paths = [path for path, one in quotes if value_in_quote.share(one) < 1]
            yield Doubt(sentence=sentence, reason=Reason.VALUE_NOT_IN_QUOTE, paths=paths)
        if without := analysis.without_evidence(output, task.options):
            paths = [f"{DATA.path}{path}" for path in without]
            sentence = f"Values without a quote: {first_few(without)}."
            yield Doubt(sentence=sentence, reason=Reason.NO_QUOTE, paths=paths)
        if mistyped := trust.of_other_type(output, task.options):
            sentence = "Values are not of the types that their items declare."
            yield Doubt(sentence=sentence, reason=Reason.OTHER_TYPE, paths=mistyped)

    def _of_text(self, text: str, task: AnalysisTask) -> Iterator[Doubt]:
        """Yield the reasons that the whole text gives, for the built-in model also its limits."""
        output = self.answer.output
        if task.analysis_type != AnalysisType.EXTRACTION:
            return
        if elsewhere := trust.named_elsewhere(text, output, task):
            sentence = "Another passage of the document names what was asked for."
            yield Doubt(sentence=sentence, reason=Reason.NAMED_ELSEWHERE, paths=elsewhere)
        if chosen := trust.chosen_from_rows(text, output, task):
            sentence = "The rows of a table give different values for one; ask for a list, or "
            yield Doubt(sentence=f"{sentence}{_EACH_ROW}", reason=Reason.ONE_OF_ROWS, paths=chosen)
        if self.answer.provider != EXTRACTIVE:
            return
        quotes = list(trust.quotes_by_path(output))
        for sentence, paths in (
            ("", extractive.unsupported(text, output, task.options)),
            (_UNANNOUNCED, extractive.unannounced(quotes)),
            (_GUESSED, extractive.guessed(output, quotes)),
        ):
            if paths:
                yield Doubt(sentence=sentence, reason=Reason.NOT_SUPPORTED, paths=paths)
        if lists := extractive.unfilled_lists(task.options):
            sentence = f"Without a language model, no rows are found: {first_few(lists)}."
            yield Doubt(sentence=sentence)

    def _votes(self, task: AnalysisTask) -> Iterator[Doubt]:
        answer = self.answer
        if task.options.votes > 1 and answer.agreement is None and answer.provider != EXTRACTIVE:
            yield Doubt(sentence="Only one sample of the vote was usable.")
        if task.analysis_type == AnalysisType.EXTRACTION:
            agreements = (
                (path, json_values.number(one.get("agreement")))
                for path, one in trust.quotes_by_path(answer.output)
            )
            paths = [path for path, share in agreements if share and share < MIN_AGREEMENT]
        else:
            is_split = answer.agreement is not None and answer.agreement < MIN_AGREEMENT
            label = analysis_for(task.analysis_type).label_path
            paths = [label] if is_split and label else []
        if paths:
            sentence = "The samples of the vote disagree."
            yield Doubt(sentence=sentence, reason=Reason.VOTES_DISAGREE, paths=paths)

    def _disagreements(self, parts: Sequence[JsonObject], task: AnalysisTask) -> Iterator[Doubt]:
        rows = self.contradictions(parts, task)
        paths = list(trust.disagreements(rows, self.answer.output))
        if paths:
            sentence = "The chunks of the document give different values."
            yield Doubt(sentence=sentence, reason=Reason.CHUNKS_DISAGREE, paths=paths)

    def _low(self, confidence: float, task: AnalysisTask) -> Iterator[Doubt]:
        """Yield the values below the threshold that was asked for, if any."""
        threshold, reason = task.options.confidence_threshold, Reason.LOW_CONFIDENCE
        if threshold is None:
            return
        if task.analysis_type == AnalysisType.EXTRACTION:
            low = [
                path
                for path, one in trust.quotes_by_path(self.answer.output)
                if claimed_number(one) / _POINTS * (json_values.number(one.get("agreement")) or 1)
                < threshold
            ]
            if low:
                sentence = f"The confidence of {len(low):,} values is below {threshold:g}."
                yield Doubt(sentence=sentence, reason=reason, paths=low)
        elif confidence < threshold:
            sentence = f"The confidence {confidence:.2f} is below {threshold:g}."
            label = analysis_for(task.analysis_type).label_path
            yield Doubt(sentence=sentence, reason=reason, paths=[label] if label else [])


_OBJECTIONS = {
    CritiqueOutcome.FAILED: "The critique failed.",
    CritiqueOutcome.KEPT: "The answer was kept in spite of the objections of a critique.",
}
_EACH_ROW = "analyze each row of a CSV, JSONL or workbook as a document (--text-column)."
_UNANNOUNCED = "Without a language model, values that no phrase announces are uncertain."
_GUESSED = "Without a language model, yes or no is a guess where the quote does not say it."
_POINTS = 10
_FEW = 5
_QUOTE_CHARACTERS = 80


def _shortened(quote: str) -> str:
    whole = " ".join(quote.split())
    return f"“{whole if len(whole) <= _QUOTE_CHARACTERS else f'{whole[:_QUOTE_CHARACTERS]}…'}”"


def first_few(names: Iterable[str], mark: str = ", ") -> str:
    """Return the first few names, and the number of the others."""
    every = list(dict.fromkeys(names))
    more = f" and {len(every) - _FEW} more" if len(every) > _FEW else ""
    return f"{mark.join(every[:_FEW])}{more}"
