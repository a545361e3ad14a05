"""Extraction by search: for each item the sentence with its words, and the value in it.

Measured as in `tests/integration/test_extractive_corpora.py`, the share of items whose quote or
value meets what lawyers marked in 58 contracts: document name 0.88, governing law 0.85, effective
date 0.78, parties 0.74, agreement date 0.65, expiration date 0.34. Of 710 questions about English
articles 0.51 find the sentence with the answer and 0.42 are denied.
"""

from __future__ import annotations

from collections.abc import Iterator

from chordwise.domain import grounding, json_values
from chordwise.domain.analyses.extraction import FOUND, NOT_MENTIONED, Extraction, items
from chordwise.domain.extractive import user_schema
from chordwise.domain.extractive.item_hints import hint
from chordwise.domain.extractive.search import SearchableText
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.tasks import AnalysisTask

_DENIAL_CONFIDENCE = 3


def analyze(task: AnalysisTask) -> JsonObject:
    """Look for each item, or fill in the user's own schema."""
    searchable = SearchableText(task.text)
    if task.options.schema is not None:
        return user_schema.fill(task.options.schema, searchable)
    return {
        "fields": [field for item in items(task.options) for field in _fields(item, searchable)]
    }


def synthesize(task: AnalysisTask) -> JsonObject:
    """Keep every distinct value; an item is denied only where no chunk has it."""
    merged = Extraction().merge(task.answers, task.options)
    return json_values.as_object(grounding.without_spans(merged))


def _fields(item: str, searchable: SearchableText) -> Iterator[JsonValue]:
    matches = searchable.find(hint(item))
    for match in matches:
        yield {
            "item": item,
            "status": FOUND,
            "value": match.value,
            "quote": match.quote,
            "confidence": match.confidence,
        }
    if not matches:
        yield {
            "item": item,
            "status": NOT_MENTIONED,
            "value": None,
            "quote": None,
            "confidence": _DENIAL_CONFIDENCE,
        }
