"""Chordwise: batch analysis of documents with language models.

from chordwise import Client

with Client() as client:
    run = client.submit("contracts/", profile="contracts")
    for result in run.results(as_completed=True):
        print(result.document, result.facts["governing law"].value)

`DocumentAnalyzer` analyzes a text in this process, without a database.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chordwise.client import AsyncClient, Client, FactValue, Result, Run
    from chordwise.domain.analysis_tasks import AnalysisType
    from chordwise.pipeline.analyzer import Analysis, AnalysisRequest, DocumentAnalyzer
    from chordwise.settings import Profile

__all__ = [
    "Analysis",
    "AnalysisRequest",
    "AnalysisType",
    "AsyncClient",
    "Client",
    "DocumentAnalyzer",
    "FactValue",
    "Profile",
    "Result",
    "Run",
]

_NAMES = {
    "chordwise.client": ("AsyncClient", "Client", "FactValue", "Result", "Run"),
    "chordwise.domain.analysis_tasks": ("AnalysisType",),
    "chordwise.pipeline.analyzer": ("Analysis", "AnalysisRequest", "DocumentAnalyzer"),
    "chordwise.settings": ("Profile",),
}


def __getattr__(name: str) -> object:
    """Import the public names on first use: the command line must not pay for them."""
    for module, names in _NAMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Show the public names before they are imported."""
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
