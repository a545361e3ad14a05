"""Lets a model examine the answer about a document and revise it once, if the job requests it."""

from __future__ import annotations

from dataclasses import replace

import structlog

from chordwise.domain import critique, missing_rows
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisTask, Stage
from chordwise.domain.answers import Answer
from chordwise.domain.critique import Critique
from chordwise.domain.states import CritiqueOutcome
from chordwise.errors import ModelError, PausingError, TransientError
from chordwise.llm.model import EXTRACTIVE
from chordwise.pipeline.asking import Question, ask
from chordwise.pipeline.asking.assessment import AssessedAnswer
from chordwise.pipeline.asking.check import reassessed
from chordwise.pipeline.asking.merge import Synthesis, Synthesizer

log = structlog.get_logger(__name__)


def examine(
    synthesizer: Synthesizer, synthesis: Synthesis, span: tuple[int, int]
) -> AssessedAnswer:
    """Let a model examine the answer about a document, unless it was merged by rule.

    `span` is the part of the text that the answer covers if it joins no others.

    Raises:
        ModelError: Transient or pausing: the job has to wait.
        AwaitingBatchError: The critique or the revision is still expected from a batch.
    """
    if synthesis.error is not None:
        if not synthesizer.task.options.critique:
            return AssessedAnswer(answer=synthesis.answer, is_merged_by_rule=True)
        what = "The parts were merged by rule, since the synthesis failed."
        assessed = _examined(synthesis.answer, synthesizer.task, CritiqueOutcome.FAILED, what)
        return replace(assessed, is_merged_by_rule=True)
    joined = synthesis.joined
    question = synthesizer.question_joining(joined) if joined else synthesizer.question_about(*span)
    return examine_answer(synthesis.answer, question)


def examine_answer(answer: Answer, question: Question) -> AssessedAnswer:
    """Return the answer to a question, revised once if a critique by its model objects to it.

    The answer stays unchanged if the critique or the revision fails, or if the revision is less
    well grounded. The built-in model gives no critique and receives none.

    Raises:
        ModelError: Transient or pausing: the job has to wait.
        AwaitingBatchError: The critique or the revision is still expected from a batch.
    """
    task = question.task
    is_built_in = EXTRACTIVE in {answer.provider, question.model.profile.provider}
    if not task.options.critique or is_built_in:
        return AssessedAnswer(answer=answer)
    try:
        examination = replace(task, stage=Stage.CRITIQUE, draft=answer.output)
        output = ask(replace(question, task=examination)).output
    except ModelError as error:
        if isinstance(error, TransientError | PausingError):
            raise
        return unexamined(answer, task, error)
    principles = critique.principles_for(task.analysis_type, task.options)
    violations = critique.with_principle_texts(critique.violations_in(output), principles)
    if not violations:
        return _examined(answer, task, CritiqueOutcome.PASSED)
    task = replace(task, stage=Stage.REVISE, draft=answer.output, violations=violations)
    return _revise(answer, replace(question, task=task))


def _revise(answer: Answer, question: Question) -> AssessedAnswer:
    task = question.task
    try:
        revised = ask(question)
    except ModelError as error:
        if isinstance(error, TransientError | PausingError):
            raise
        return _examined(answer, task, CritiqueOutcome.KEPT, error.what)
    objection = critique.objection_to(revised, answer, task)
    if revised.provider == EXTRACTIVE:
        objection = "Only the built-in model was available to revise it."
    if objection:
        return _examined(answer, task, CritiqueOutcome.KEPT, objection)
    # The agreement is that of the samples before the revision, which were not requested again.
    kept = analysis_for(task.analysis_type).row_counts([revised.output], task.options)
    missing = missing_rows.recounted(answer.missing_rows, kept)
    revised = replace(revised, agreement=answer.agreement, missing_fields=answer.missing_fields)
    return _examined(reassessed(revised, missing), task, CritiqueOutcome.REVISED)


def unexamined(answer: Answer, task: AnalysisTask, error: ModelError) -> AssessedAnswer:
    """Return an answer whose critique failed, with the reason."""
    return _examined(answer, task, CritiqueOutcome.FAILED, error.what)


def _examined(
    answer: Answer, task: AnalysisTask, outcome: CritiqueOutcome, reason: str = ""
) -> AssessedAnswer:
    log.info("answer.critiqued", outcome=outcome, violations=len(task.violations), reason=reason)
    assessment = Critique(
        outcome=outcome,
        principles=critique.principles_for(task.analysis_type, task.options),
        violations=task.violations,
        reason=reason,
    )
    return AssessedAnswer(answer=answer, critique=assessment)
