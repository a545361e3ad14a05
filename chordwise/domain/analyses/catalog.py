"""The analysis types by name."""

from __future__ import annotations

from functools import cache
from typing import assert_never

from chordwise.domain.analyses.analysis import Analysis
from chordwise.domain.analyses.classification import Classification
from chordwise.domain.analyses.extraction import Extraction
from chordwise.domain.analyses.reasoning import Reasoning
from chordwise.domain.analyses.sentiment import Sentiment
from chordwise.domain.analyses.summary import Summary
from chordwise.domain.tasks import AnalysisType


@cache
def analysis_for(analysis_type: AnalysisType) -> Analysis:
    """Return the analysis of a type."""
    match analysis_type:
        case AnalysisType.SUMMARY:
            return Summary()
        case AnalysisType.EXTRACTION:
            return Extraction()
        case AnalysisType.REASONING:
            return Reasoning()
        case AnalysisType.CLASSIFICATION:
            return Classification()
        case AnalysisType.SENTIMENT:
            return Sentiment()
        case _:
            assert_never(analysis_type)
