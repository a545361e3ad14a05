"""Joining the answers of a document's chunks into one, in levels where they are too long."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from chordwise.domain import grounding, missing_rows, self_consistency, tokens
from chordwise.domain.answers import REPAIR_FACTOR, Answer, lowered_by, quality_of
from chordwise.domain.grounding import Source
from chordwise.domain.json_values import JsonObject
from chordwise.domain.tasks import AnalysisTask, Stage
from chordwise.errors import ModelError, PausingError, TransientError
from chordwise.pipeline.asking import Question, ask
from chordwise.pipeline.asking.answers import gather, merged, rows_missing_in
from chordwise.pipeline.asking.question import room_for_answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesis:
    """The answer for the whole document; `error` when it was merged without the model.

    `joined` are the answers that the last question joined; none where there was one from the start.
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
        whole = self.document.source.text
        text = whole[start:end]
        task = replace(self.task, text=text, is_whole=text == whole)
        source = Source(text, offset=start)
        return replace(self.document, task=task, source=source)

    def joining(self, answers: Sequence[Answer]) -> Question:
        """Return the question that joins answers."""
        outputs = tuple(answer.output for answer in answers)
        task = replace(self.task, stage=Stage.SYNTHESIZE, answers=outputs)
        source = Source(self.document.source.text, known=grounding.known_spans(outputs))
        return replace(self.document, task=task, source=source)

    def synthesize(self, answers: Sequence[Answer]) -> Synthesis:
        """Return one answer for one or more, which are in the order of the document.

        What the model cannot join for good is merged by rule, and `error` says why.

        Raises:
            ModelError: Transient or pausing: the job has to wait.
        """
        level = list(answers)
        groups: list[list[Answer]] = [[]]
        try:
            while len(level) > 1:
                groups = self._groups(level)
                level = gather([partial(self._join, group) for group in groups])
        except ModelError as error:
            if isinstance(error, TransientError | PausingError):
                raise
            return self.merged(answers, error)
        return Synthesis(answer=self._counted(level[0], answers), joined=tuple(groups[0]))

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
            weight = tokens.weigh(_as_material(answer.output))
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


def _as_material(output: JsonObject) -> str:
    return json.dumps(grounding.without_spans(output), ensure_ascii=False)
