"""Finding a model's quotes in the source: a quote counts only where the text really stands.

Matching tolerates what models change without meaning to (white space, typographic quotes and
dashes, case); what is stored is always the source's own wording, with its character span.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from chordwise.domain.json_values import JsonObject, JsonValue

_TYPOGRAPHY = str.maketrans("‘’‚‛“”„‟«»‐‑‒–—―\u00a0\u202f\u2007", '\'\'\'\'""""""------   ')
_FRAME = " \t\n\"'.…,;:()[]<>"
_USER_DATA = "data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Characters `start_char` to `end_char` of a document's text, the end exclusive."""

    start_char: int
    end_char: int


@dataclass(slots=True)
class Source:
    """A text in which quotes are looked up; `offset` is where it starts in its document.

    `known` holds spans found earlier, by quote: a synthesis repeats the quotes of the chunks.
    """

    text: str
    offset: int = 0
    known: Mapping[str, Span] = field(default_factory=dict)
    _folded: str | None = None

    def locate(self, quote: str) -> Span | None:
        """Return where the quote stands in the document, or `None` when it does not."""
        if quote in self.known:
            return self.known[quote]
        start = self.text.find(quote) if quote.strip() else -1
        if start >= 0:
            return self._span(start, start + len(quote))
        return self._locate_tolerantly(quote)

    def wording(self, span: Span) -> str:
        """Return the source's own text of a span."""
        return self.text[span.start_char - self.offset : span.end_char - self.offset]

    def _locate_tolerantly(self, quote: str) -> Span | None:
        words = _fold(quote).strip(_FRAME).split()
        if not words:
            return None
        if self._folded is None:
            self._folded = _fold(self.text)
        match = re.search(r"\s+".join(re.escape(word) for word in words), self._folded)
        return self._span(match.start(), match.end()) if match else None

    def _span(self, start: int, end: int) -> Span:
        return Span(start_char=start + self.offset, end_char=end + self.offset)


def _fold(text: str) -> str:
    """Lower-case and straighten typography without moving any character."""
    straight = text.translate(_TYPOGRAPHY)
    lowered = straight.lower()
    if len(lowered) == len(straight):
        return lowered
    return "".join(char.lower() if len(char.lower()) == 1 else char for char in straight)


def ground(answer: JsonObject, source: Source) -> JsonObject:
    """Return the answer with the span of every quote, and `grounded` saying whether there is one.

    An object is a finding with evidence when it has a member `quote`. What stands under `data` is
    the user's own schema and stays untouched.
    """
    return {
        key: value if key == _USER_DATA else _ground_value(value, source)
        for key, value in answer.items()
    }


def _ground_value(value: JsonValue, source: Source) -> JsonValue:
    if isinstance(value, list):
        return [_ground_value(item, source) for item in value]
    if not isinstance(value, dict):
        return value
    grounded: JsonObject = {key: _ground_value(item, source) for key, item in value.items()}
    if "quote" in value:
        grounded.update(_evidence(value["quote"], source))
    return grounded


def _evidence(quote: JsonValue, source: Source) -> JsonObject:
    span = source.locate(quote) if isinstance(quote, str) else None
    if span is None:
        return {"start_char": None, "end_char": None, "grounded": False}
    wording = source.wording(span) or quote
    return {
        "quote": wording,
        "start_char": span.start_char,
        "end_char": span.end_char,
        "grounded": True,
    }


def quotes(value: JsonValue) -> list[JsonObject]:
    """Return every object with a quote, in order, the user's own data left out."""
    if isinstance(value, list):
        return [found for item in value for found in quotes(item)]
    if not isinstance(value, dict):
        return []
    own = [value] if value.get("quote") else []
    return own + [
        found for key, item in value.items() if key != _USER_DATA for found in quotes(item)
    ]


def grounded_share(answer: JsonObject) -> float:
    """Return the share of quotes that stand in the source, 0 to 1; without quotes it is 1."""
    found = quotes(answer)
    if not found:
        return 1.0
    return sum(item.get("grounded") is True for item in found) / len(found)


def known_spans(answers: tuple[JsonObject, ...]) -> dict[str, Span]:
    """Collect the grounded quotes of earlier answers; the first mention of a quote counts."""
    spans: dict[str, Span] = {}
    for answer in answers:
        for item in quotes(answer):
            start, end, quote = item.get("start_char"), item.get("end_char"), item.get("quote")
            if isinstance(quote, str) and isinstance(start, int) and isinstance(end, int):
                spans.setdefault(quote, Span(start_char=start, end_char=end))
    return spans


def without_spans(value: JsonValue) -> JsonValue:
    """Return a grounded answer as a model would have given it."""
    if isinstance(value, list):
        return [without_spans(item) for item in value]
    if not isinstance(value, dict):
        return value
    dropped = {"start_char", "end_char", "grounded"} if "quote" in value else set()
    return {key: without_spans(item) for key, item in value.items() if key not in dropped}
