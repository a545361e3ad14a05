"""Examining the answer about a document, where its job wants that, and having it revised once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import structlog

from chordwise.domain import checks, critique, missing_rows, value_in_quote
from chordwise.domain.analyses.catalog import analysis_for
from chordwise.domain.answers import CHECK_FACTOR, Answer, lowered_by, quality_of
from chordwise.domain.checks import FailedCheck
from chordwise.domain.critique import Critique, CritiqueOutcome
from chordwise.domain.json_values import JsonObject
from chordwise.domain.tasks import AnalysisTask, Stage
from chordwise.errors import ModelError, PausingError, TransientError
from chordwise.llm.model import EXTRACTIVE
from chordwise.pipeline.asking import Question, ask
from chordwise.pipeline.asking.merge import Synthesis, Synthesizer

MIN_QUALITY = 0.8
"""A person should look at an answer of which less could be checked against the text."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """An answer, revised or not, and what its critique came to; `None` where there was none.

    `is_merged_by_rule` says that no model has joined its parts, since the synthesis failed.
    """

    answer: Answer
    critique: Critique | None = None
    is_merged_by_rule: bool = False

    def failed_checks(self, task: AnalysisTask) -> tuple[FailedCheck, ...]:
        """Return the checks that the answer does not pass."""
        return checks.failures(self.answer.output, task.options)

    def quality(self, task: AnalysisTask) -> float:
        """Return the quality of the answer, lowered by each check that it does not pass."""
        return lowered_by(self.answer.quality, CHECK_FACTOR ** len(self.failed_checks(task)))

    def needs_review(self, confidence: float, task: AnalysisTask) -> bool:
        """Tell whether a person should look: it is unsure, ungrounded, incomplete, or in doubt.

        Of the votes that were asked for, one alone of a language model is no vote.
        """
        if self.is_merged_by_rule or missing_rows.losses(self.answer.missing_rows):
            return True
        output, options = self.answer.output, task.options
        if self.failed_checks(task) or value_in_quote.outside(output):
            return True
        analysis = analysis_for(task.analysis_type)
        if not analysis.has_findings(output) or analysis.without_evidence(output, options):
            return True
        is_unsure = confidence < options.confidence_threshold or self.answer.quality < MIN_QUALITY
        leaves_doubt = self.critique is not None and self.critique.leaves_doubt
        is_alone = options.votes > 1 and self.answer.agreement is None
        return is_unsure or leaves_doubt or (is_alone and self.answer.provider != EXTRACTIVE)


def examine(synthesizer: Synthesizer, synthesis: Synthesis, span: tuple[int, int]) -> Examined:
    """Have the answer about a document examined; one that was merged by rule cannot be.

    `span` is the part of the text that an answer is about which joins no others.

    Raises:
        ModelError: Transient or pausing: the job has to wait.
        AwaitingBatchError: The critique or the revision is still to come.
    """
    if synthesis.error is not None:
        return _merged_by_rule(synthesis.answer, synthesizer.task)
    joined = synthesis.joined
    question = synthesizer.joining(joined) if joined else synthesizer.about(*span)
    return examine_answer(synthesis.answer, question)


def examine_answer(answer: Answer, question: Question) -> Examined:
    """Return the answer to a question, revised once where a critique by its model objects to it.

    A critique or a revision that fails leaves the answer as it is, and so does a revision that
    is grounded less well. The built-in model neither examines nor is examined.

    Raises:
        ModelError: Transient or pausing: the job has to wait.
        AwaitingBatchError: The critique or the revision is still to come.
    """
    task = question.task
    is_built_in = EXTRACTIVE in {answer.provider, question.model.profile.provider}
    if not task.options.critique or is_built_in:
        return Examined(answer=answer)
    try:
        found = _violations(answer, question)
    except ModelError as error:
        _require_the_end(error)
        return unexamined(answer, task, error)
    if not found:
        return _examined(answer, task, CritiqueOutcome.PASSED)
    task = replace(task, stage=Stage.REVISE, draft=answer.output, violations=found)
    return _revise(answer, replace(question, task=task))


def _violations(answer: Answer, question: Question) -> tuple[JsonObject, ...]:
    task = replace(question.task, stage=Stage.CRITIQUE, draft=answer.output)
    output = ask(replace(question, task=task)).output
    principles = critique.principles_for(task.analysis_type, task.options)
    return critique.named(critique.violations_in(output), principles)


def _revise(answer: Answer, question: Question) -> Examined:
    task = question.task
    try:
        revised = ask(question)
    except ModelError as error:
        _require_the_end(error)
        return _examined(answer, task, CritiqueOutcome.KEPT, error.what)
    objection = critique.objection_to(revised, answer, task)
    if revised.provider == EXTRACTIVE:
        objection = "Only the built-in model was there to revise it."
    if objection:
        return _examined(answer, task, CritiqueOutcome.KEPT, objection)
    return _examined(_mended(revised, answer, task), task, CritiqueOutcome.REVISED)


def unexamined(answer: Answer, task: AnalysisTask, error: ModelError) -> Examined:
    """Return an answer that could not be examined, with the reason."""
    return _examined(answer, task, CritiqueOutcome.FAILED, error.what)


def _merged_by_rule(answer: Answer, task: AnalysisTask) -> Examined:
    if not task.options.critique:
        return Examined(answer=answer, is_merged_by_rule=True)
    what = "The parts were merged by rule, since the synthesis failed."
    found = _examined(answer, task, CritiqueOutcome.FAILED, what)
    return replace(found, is_merged_by_rule=True)


def _mended(revised: Answer, before: Answer, task: AnalysisTask) -> Answer:
    """Return a revision with the agreement of the answer before, and the rows that both lack."""
    kept = analysis_for(task.analysis_type).row_counts([revised.output], task.options)
    missing = missing_rows.recounted(before.missing_rows, kept)
    whole = quality_of(revised.output, repaired=revised.repaired)
    return replace(
        revised,
        agreement=before.agreement,
        missing_rows=missing,
        quality=lowered_by(whole, missing_rows.share(missing)),
    )


def _examined(
    answer: Answer, task: AnalysisTask, outcome: CritiqueOutcome, reason: str = ""
) -> Examined:
    log.info("answer.examined", outcome=outcome, violations=len(task.violations), reason=reason)
    found = Critique(
        outcome=outcome,
        principles=critique.principles_for(task.analysis_type, task.options),
        violations=task.violations,
        reason=reason,
    )
    return Examined(answer=answer, critique=found)


def _require_the_end(error: ModelError) -> None:
    """Go on only after what neither time nor a person mends."""
    if isinstance(error, TransientError | PausingError):
        raise error
