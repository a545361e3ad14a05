"""Joins the answers of a document's chunks: by rule where possible, by a model otherwise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from chordwise.domain import grounding, json_values, self_consistency, tokens, validation
from chordwise.domain.analysis import Joining, analysis_for
from chordwise.domain.analysis_tasks import AnalysisTask, AnalysisType, Stage
from chordwise.domain.answers import REPAIR_FACTOR, Answer
from chordwise.domain.extractive.extraction import surest
from chordwise.domain.grounding import Source
from chordwise.errors import ModelError, PausingError, TransientError
from chordwise.llm.model import EXTRACTIVE
from chordwise.pipeline.asking import Question, ask
from chordwise.pipeline.asking.answers import gather, merged, rows_missing_in
from chordwise.pipeline.asking.check import reassessed
from chordwise.pipeline.asking.question import about_part, room_for_answers, schema_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesis:
    """The answer about the whole document; `error` is set if it was merged without the model.

    `joined` are the answers that it joins; with several levels, those of the last level. It is
    empty if there was only one.
    """

    answer: Answer
    error: ModelError | None = None
    joined: tuple[Answer, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesizer:
    """Joins the answers of one job.

    `document` is the question about the whole text, which no model is asked in this form. Its task
    has the analysis type and the options.
    """

    document: Question

    @property
    def task(self) -> AnalysisTask:
        """The task, without a text."""
        return self.document.task

    def question_about(self, start: int, end: int) -> Question:
        """Return the question about a part of the text, from one character to another."""
        task, source = about_part(self.task, self.document.source, start, end)
        return replace(self.document, task=task, source=source)

    def question_joining(self, answers: Sequence[Answer]) -> Question:
        """Return the question that joins answers."""
        outputs = tuple(answer.output for answer in answers)
        task = replace(self.task, stage=Stage.SYNTHESIZE, answers=outputs)
        source = Source(self.document.source.text, known=grounding.spans_by_quote(outputs))
        return replace(self.document, task=task, source=source)

    def synthesize(self, answers: Sequence[Answer]) -> Synthesis:
        """Return one answer for one or more answers, which are in the order of the document.

        The model is asked only about what rules cannot reconcile. If it fails permanently, the rest
        is merged by rule and `error` has the reason.

        Raises:
            ModelError: Transient or pausing: the job has to wait.
        """
        if len(answers) == 1:
            return Synthesis(answer=answers[0])
        joining = self._joining(answers)
        level = _level(answers, joining)
        if not level:
            return Synthesis(answer=self._by_rule(answers), joined=tuple(answers))
        groups: list[list[Answer]] = [[]]
        try:
            while len(level) > 1:
                groups = self._groups(level)
                level = gather([partial(self._join, group) for group in groups])
        except ModelError as error:
            if isinstance(error, TransientError | PausingError):
                raise
            return self.merged(answers, error)
        if joining.contested:
            answer = self._decided(level[0], joining, answers)
            return Synthesis(answer=answer, joined=tuple(answers))
        missing = rows_missing_in(level[0].output, answers, self.task)
        return Synthesis(answer=reassessed(level[0], missing), joined=tuple(groups[0]))

    def first_questions(self, answers: Sequence[Answer]) -> list[Question]:
        """Return the first questions that a model is asked in order to join answers, if any."""
        if len(answers) < 2:  # noqa: PLR2004 - there is nothing to join
            return []
        groups = self._groups(_level(answers, self._joining(answers)))
        return [self.question_joining(group) for group in groups if len(group) > 1]

    def _joining(self, answers: Sequence[Answer]) -> Joining:
        """Return the answers joined by rule, or all of them if the schema needs a model.

        A schema may limit a list in a way that each part satisfies and the whole does not. Missing
        fields are no reason: a model has no more about them than the parts.
        """
        task, outputs = self.task, [answer.output for answer in answers]
        analysis = analysis_for(task.analysis_type)
        joining = analysis.join(outputs, task.options)
        if any(answer.missing_fields for answer in answers):
            return joining
        plain = json_values.as_object(grounding.without_spans(joining.output))
        if validation.problems(plain, schema_of(task.options, analysis)):
            return Joining(output=joining.output, parts=outputs)
        return joining

    def _by_rule(self, answers: Sequence[Answer]) -> Answer:
        """Join answers without a model; for the built-in model, keep the most confident values."""
        answer, task = merged(answers, self.task), self.task
        is_built_in = all(part.provider == EXTRACTIVE for part in answers)
        if not is_built_in or task.analysis_type != AnalysisType.EXTRACTION:
            return answer
        output = surest(answer.output, task.options)
        confidence = analysis_for(task.analysis_type).confidence(output)
        return replace(answer, output=output, confidence=confidence)

    def _decided(self, answer: Answer, joining: Joining, answers: Sequence[Answer]) -> Answer:
        analysis, whole = analysis_for(self.task.analysis_type), merged(answers, self.task)
        output = analysis.apply_reconciliation(joining, answer.output)
        factor = REPAIR_FACTOR if answer.repaired else 1.0
        return replace(
            answer,
            output=output,
            confidence=analysis.confidence(output),
            quality=round(whole.quality * factor, 3),
            missing_rows=whole.missing_rows,
            missing_fields=whole.missing_fields,
        )

    def merged(self, answers: Sequence[Answer], error: ModelError) -> Synthesis:
        """Return the answers joined by rule after the model failed with this error.

        The quality is lowered as for an answer that needed repair.
        """
        answer = merged(answers, self.task)
        lowered = round(answer.quality * REPAIR_FACTOR, 3)
        return Synthesis(answer=replace(answer, quality=lowered), error=error)

    def _groups(self, answers: list[Answer]) -> list[list[Answer]]:
        """Pack neighbours into as few questions as fit the context, at least two in each."""
        room = room_for_answers(self.document.model, self.task)
        groups: list[list[Answer]] = [[]]
        filled = 0.0
        for answer in answers:
            material = json.dumps(grounding.without_spans(answer.output), ensure_ascii=False)
            weight = tokens.weigh(material)
            if len(groups[-1]) > 1 and filled + weight > room:
                groups.append([])
                filled = 0.0
            groups[-1].append(answer)
            filled += weight
        return groups

    def _join(self, group: list[Answer]) -> Answer:
        if len(group) == 1:
            return group[0]
        joined = ask(self.question_joining(group))
        parts = [answer.agreement for answer in group]
        return replace(joined, agreement=self_consistency.combined(parts, joined.agreement))


def _level(answers: Sequence[Answer], joining: Joining) -> list[Answer]:
    """Return the answers that a model has to join; none if all are joined by rule."""
    parts = zip(answers, joining.parts, strict=True) if joining.parts else ()
    return [replace(answer, output=part) for answer, part in parts]
