"""Joining the answers of a document's chunks: by rule as far as that goes, the rest by a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from chordwise.domain import (
    grounding,
    json_values,
    missing_rows,
    self_consistency,
    tokens,
    validation,
)
from chordwise.domain.analyses.analysis import Joining
from chordwise.domain.analyses.catalog import analysis_for
from chordwise.domain.answers import REPAIR_FACTOR, Answer, lowered_by, quality_of
from chordwise.domain.extractive.extraction import surest
from chordwise.domain.grounding import Source
from chordwise.domain.tasks import AnalysisTask, AnalysisType, Stage
from chordwise.errors import ModelError, PausingError, TransientError
from chordwise.llm.model import EXTRACTIVE
from chordwise.pipeline.asking import Question, ask
from chordwise.pipeline.asking.answers import gather, merged, rows_missing_in
from chordwise.pipeline.asking.question import about_part, room_for_answers, schema_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesis:
    """The answer for the whole document; `error` when it was merged without the model.

    `joined` are the answers that it joins, of several levels those of the last; none where there
    was one from the start.
    """

    answer: Answer
    error: ModelError | None = None
    joined: tuple[Answer, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesizer:
    """Integrates the answers of one job.

    `document` is the question about the whole text, which is its source; no model is asked it as it
    is. Its task carries the analysis type and its options.
    """

    document: Question

    @property
    def task(self) -> AnalysisTask:
        """Return the task, without a text."""
        return self.document.task

    def about(self, start: int, end: int) -> Question:
        """Return the question about a part of the text, from one character to another."""
        task, source = about_part(self.task, self.document.source.text, start, end)
        return replace(self.document, task=task, source=source)

    def joining(self, answers: Sequence[Answer]) -> Question:
        """Return the question that joins answers."""
        outputs = tuple(answer.output for answer in answers)
        task = replace(self.task, stage=Stage.SYNTHESIZE, answers=outputs)
        source = Source(self.document.source.text, known=grounding.known_spans(outputs))
        return replace(self.document, task=task, source=source)

    def synthesize(self, answers: Sequence[Answer]) -> Synthesis:
        """Return one answer for one or more, which are in the order of the document.

        A model is asked for what only it can reconcile, and not at all where there is nothing of
        that. What it cannot join for good is merged by rule, and `error` says why.

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
        return Synthesis(answer=self._counted(level[0], answers), joined=tuple(groups[0]))

    def first_questions(self, answers: Sequence[Answer]) -> list[Question]:
        """Return the questions that a model is asked first to join answers, if any."""
        if len(answers) < 2:  # noqa: PLR2004 - there is nothing to join
            return []
        groups = self._groups(_level(answers, self._joining(answers)))
        return [self.joining(group) for group in groups if len(group) > 1]

    def _joining(self, answers: Sequence[Answer]) -> Joining:
        """Return the answers joined by rule, or all of them for the model where it forbids that.

        A schema may say of a list what its parts keep to and the whole does not.
        """
        task, outputs = self.task, [answer.output for answer in answers]
        analysis = analysis_for(task.analysis_type)
        joining = analysis.join(outputs, task.options)
        plain = json_values.as_object(grounding.without_spans(joining.output))
        if validation.problems(plain, schema_of(task.options, analysis)):
            return Joining(output=joining.output, parts=outputs)
        return joining

    def _by_rule(self, answers: Sequence[Answer]) -> Answer:
        """Join answers without a model; of those of the built-in one the surest values count."""
        answer, task = merged(answers, self.task), self.task
        is_built_in = all(each.provider == EXTRACTIVE for each in answers)
        if not is_built_in or task.analysis_type is not AnalysisType.EXTRACTION:
            return answer
        output = surest(answer.output, task.options)
        confidence = analysis_for(task.analysis_type).confidence(output)
        return replace(answer, output=output, confidence=confidence)

    def _decided(self, answer: Answer, joining: Joining, answers: Sequence[Answer]) -> Answer:
        analysis, whole = analysis_for(self.task.analysis_type), merged(answers, self.task)
        output = analysis.decided(joining, answer.output)
        factor = REPAIR_FACTOR if answer.repaired else 1.0
        return replace(
            answer,
            output=output,
            confidence=analysis.confidence(output),
            quality=round(whole.quality * factor, 3),
            missing_rows=whole.missing_rows,
        )

    def merged(self, answers: Sequence[Answer], error: ModelError) -> Synthesis:
        """Return the answers joined by rule, since the model could not for the reason given.

        Their quality is lowered as that of an answer that needed repair.
        """
        answer = merged(answers, self.task)
        lowered = round(answer.quality * REPAIR_FACTOR, 3)
        return Synthesis(answer=replace(answer, quality=lowered), error=error)

    def _counted(self, answer: Answer, answers: Sequence[Answer]) -> Answer:
        """Return an answer with the rows that it lacks of those it joins, over all levels."""
        if len(answers) == 1:
            return answer
        missing = rows_missing_in(answer.output, answers, self.task)
        whole = quality_of(answer.output, repaired=answer.repaired)
        lowered = lowered_by(whole, missing_rows.share(missing))
        return replace(answer, missing_rows=missing, quality=lowered)

    def _groups(self, answers: list[Answer]) -> list[list[Answer]]:
        """Pack neighbours into as few questions as fit the context, two at least in each."""
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
        joined = ask(self.joining(group))
        parts = [answer.agreement for answer in group]
        return replace(joined, agreement=self_consistency.combined(parts, joined.agreement))


def _level(answers: Sequence[Answer], joining: Joining) -> list[Answer]:
    """Return the answers as a model is to join them; none where all is joined by rule."""
    parts = zip(answers, joining.parts, strict=True) if joining.parts else ()
    return [replace(answer, output=part) for answer, part in parts]
