"""The answer of the built-in model to any task."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from chordwise.domain.extractive import (
    classification,
    extraction,
    reasoning,
    sentiment,
    summary,
)
from chordwise.domain.json_values import JsonObject
from chordwise.domain.tasks import AnalysisTask, AnalysisType, Stage


class _Method(NamedTuple):
    analyze: Callable[[AnalysisTask], JsonObject]
    synthesize: Callable[[AnalysisTask], JsonObject]


_METHODS = {
    AnalysisType.SUMMARY: _Method(summary.analyze, summary.synthesize),
    AnalysisType.EXTRACTION: _Method(extraction.analyze, extraction.synthesize),
    AnalysisType.REASONING: _Method(reasoning.analyze, reasoning.synthesize),
    AnalysisType.CLASSIFICATION: _Method(classification.analyze, classification.synthesize),
    AnalysisType.SENTIMENT: _Method(sentiment.analyze, sentiment.synthesize),
}


def answer(task: AnalysisTask) -> JsonObject:
    """Answer a task; the same task always gets the same answer.

    A repair is an analysis anew: the text is the same, and so are the rules.
    """
    method = _METHODS[task.analysis_type]
    if task.stage is Stage.SYNTHESIZE and task.answers:
        return method.synthesize(task)
    return method.analyze(task)
