"""What came of a question: the answer that holds, and who gave it."""

from __future__ import annotations

from dataclasses import dataclass

from chordwise.domain.json_values import JsonObject
from chordwise.domain.missing_rows import MissingRows


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A valid answer with its grounding, and who gave it.

    `confidence` and `quality` are 0 to 1; `repaired` says that it took a second question or a
    lenient parser. `agreement` is how far the samples of a vote agreed, 0 to 1; `None` without one.
    `missing_rows` are the lists that have fewer rows than the answers that this one joins or mends;
    `quality` is lowered by them.
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
