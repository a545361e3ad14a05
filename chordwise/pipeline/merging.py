"""Joining answers about parts of a text by rule, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from chordwise.domain import missing_rows, self_consistency
from chordwise.domain.analyses.analysis import mean
from chordwise.domain.analyses.catalog import analysis_for
from chordwise.domain.answers import Answer
from chordwise.domain.json_values import JsonObject
from chordwise.domain.missing_rows import MissingRows
from chordwise.domain.tasks import AnalysisTask
from chordwise.llm.model import EXTRACTIVE


def merged(answers: Sequence[Answer], task: AnalysisTask) -> Answer:
    """Return one answer for one or more about consecutive parts, as the analysis type joins them.

    Who gave the first counts as who answered, unless one was given without a language model.
    """
    analysis = analysis_for(task.analysis_type)
    output = analysis.merge([answer.output for answer in answers], task.options)
    named = next((each for each in answers if each.provider == EXTRACTIVE), answers[0])
    return replace(
        named,
        output=output,
        confidence=analysis.confidence(output),
        quality=mean(answer.quality for answer in answers),
        repaired=any(answer.repaired for answer in answers),
        agreement=self_consistency.combined(answer.agreement for answer in answers),
        missing_rows=rows_missing_in(output, answers, task),
    )


def rows_missing_in(
    output: JsonObject, answers: Sequence[Answer], task: AnalysisTask
) -> tuple[MissingRows, ...]:
    """Return the lists that have fewer rows in an output than in the answers that it joins."""
    analysis = analysis_for(task.analysis_type)
    return missing_rows.compare(
        analysis.row_counts([answer.output for answer in answers], task.options),
        analysis.row_counts([output], task.options),
        before=[each for answer in answers for each in answer.missing_rows],
    )
