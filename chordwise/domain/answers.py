"""Answers: a valid answer with its quality, and numbers derived from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chordwise.domain import grounding, value_in_quote
from chordwise.domain.json_values import JsonObject
from chordwise.domain.missing_rows import MissingRows


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A valid, grounded answer, and the provider, model and prompt that produced it.

    `confidence`, `quality` and `agreement` are 0 to 1, the last `None` without a vote; `repaired`
    is set if it took a second request or a lenient parser. `missing_rows` are the lists with fewer
    rows than the answers which this one joins or repairs; `missing_fields` is the reason if fields
    of the schema have no valid answer.
    """

    output: JsonObject
    confidence: float
    quality: float
    repaired: bool
    provider: str
    model: str
    prompt_version: str
    agreement: float | None = None
    missing_rows: tuple[MissingRows, ...] = ()
    missing_fields: str = ""


REPAIR_FACTOR = 0.8
CHECK_FACTOR = 0.8
"""The factor by which each failed check between values lowers the quality."""
_HIGHEST_WITH_LOSS = 0.999


def quality_of(answer: JsonObject, *, repaired: bool) -> float:
    """Return the share of values in quotes from the source, lowered if the answer needed repair."""
    quotes = grounding.quotes(answer)
    held = [value_in_quote.share(quote) for quote in quotes if quote.get("grounded") is True]
    factor = REPAIR_FACTOR if repaired else 1.0
    return round((sum(held) / len(quotes) if quotes else 1.0) * factor, 3)


def lowered_by(value: float, share: float) -> float:
    """Return a quality times the share of kept rows; always below 1 if rows are missing."""
    return value if share >= 1 else min(round(value * share, 3), _HIGHEST_WITH_LOSS)


def coverage(total: int, spans: Sequence[tuple[int, int]]) -> float:
    """Return the share of `total` characters inside the spans, which do not overlap."""
    return sum(end - start for start, end in spans) / total if total else 0.0
