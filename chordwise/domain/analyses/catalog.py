"""The analysis types by name."""

from __future__ import annotations

from chordwise.domain.analyses.analysis import AnalysisDefinition
from chordwise.domain.analyses.classification import Classification
from chordwise.domain.analyses.extraction import Extraction
from chordwise.domain.analyses.reasoning import Reasoning
from chordwise.domain.analyses.sentiment import Sentiment
from chordwise.domain.analyses.summary import Summary
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.json_values import JsonObject

_ANALYSES: dict[str, AnalysisDefinition] = {
    each.type: each
    for each in (Summary(), Extraction(), Reasoning(), Classification(), Sentiment())
}


def analysis_for(analysis_type: AnalysisType) -> AnalysisDefinition:
    """Return the analysis of this type."""
    return _ANALYSES[analysis_type]


def headline(analysis_type: str, output: JsonObject) -> str:
    """Return a one-line summary of a stored output, which may be of a type that is unknown here."""
    known = _ANALYSES.get(analysis_type, _ANALYSES[AnalysisType.EXTRACTION])
    return known.headline(output)
