"""Chordwise: batch analysis of documents with language models.

from chordwise import AnalysisRequest, AnalysisType, DocumentAnalyzer

analyzer = DocumentAnalyzer("openai/gpt-6.1-terra")
analysis = analyzer.analyze_document(
    AnalysisRequest(text=..., analysis_type=AnalysisType.SUMMARY, confidence_threshold=0.8)
)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chordwise.domain.tasks import AnalysisType
    from chordwise.pipeline.analyzer import Analysis, AnalysisRequest, DocumentAnalyzer

__all__ = ["Analysis", "AnalysisRequest", "AnalysisType", "DocumentAnalyzer"]

_HOMES = {
    "Analysis": "chordwise.pipeline.analyzer",
    "AnalysisRequest": "chordwise.pipeline.analyzer",
    "AnalysisType": "chordwise.domain.tasks",
    "DocumentAnalyzer": "chordwise.pipeline.analyzer",
}


def __getattr__(name: str) -> object:
    """Import the public names on first use: the command line must not pay for them."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
