"""The facts in an output: one row per finding or field, for those who ask in SQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from chordwise.domain import json_values
from chordwise.domain.analyses.analysis import Analysis
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.tasks import AnalysisType

_TEN_POINTS = {AnalysisType.SUMMARY, AnalysisType.EXTRACTION, AnalysisType.REASONING}
_DERIVED = "evidence"
_USER_DATA = "/data"
_LARGEST_WHOLE = 1e15


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A value of an output at a JSON Pointer, with its evidence where it has any.

    `confidence` is on the scale 0 to 1; `start_char` and `end_char` are set where `grounded`.
    """

    path: str
    text: str | None = None
    number: float | None = None
    confidence: float | None = None
    quote: str | None = None
    start_char: int | None = None
    end_char: int | None = None
    grounded: bool | None = None


def facts(output: JsonObject, analysis: Analysis) -> list[Fact]:
    """List the facts of a stored output in its order.

    An object with a quote is one fact; of everything else each scalar is one, and so it is with all
    of a user's own data, whatever its members are called. The evidence that a summary repeats from
    its findings is not listed twice.
    """
    shown = dict(output)
    if analysis.type is AnalysisType.SUMMARY:
        shown.pop(_DERIVED, None)
    return list(_facts(shown, "", analysis))


def _facts(value: JsonValue, path: str, analysis: Analysis) -> Iterator[Fact]:
    if isinstance(value, dict) and "quote" in value and not path.startswith(_USER_DATA):
        yield _finding(value, path, analysis)
    elif isinstance(value, dict):
        for name, member in value.items():
            yield from _facts(member, json_values.pointer(path, name), analysis)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _facts(item, json_values.pointer(path, place), analysis)
    elif value is not None:
        yield _scalar(value, path)


def _scalar(value: str | float, path: str) -> Fact:
    if isinstance(value, bool):
        return Fact(path=path, text=str(value).lower(), number=float(value))
    if isinstance(value, str):
        return Fact(path=path, text=value)
    return Fact(path=path, text=_digits(value), number=float(value))


def _digits(value: float) -> str:
    """Write a number with all of its digits: 1234567, not 1.23457e+06."""
    whole = abs(value) < _LARGEST_WHOLE and value == int(value)
    return str(int(value) if whole else value)


def _finding(value: JsonObject, path: str, analysis: Analysis) -> Fact:
    texts = (json_values.text(value.get(name)) for name in analysis.principal_fields)
    start, end = value.get("start_char"), value.get("end_char")
    return Fact(
        path=path,
        text=next((text for text in texts if text), None),
        number=json_values.number(value.get("score")),
        confidence=_confidence(value, analysis),
        quote=json_values.text(value.get("quote")) or None,
        start_char=start if isinstance(start, int) else None,
        end_char=end if isinstance(end, int) else None,
        grounded=value.get("grounded") is True,
    )


def _confidence(value: JsonObject, analysis: Analysis) -> float | None:
    claimed = json_values.number(value.get("confidence"))
    if claimed is None:
        return None
    return claimed / 10 if analysis.type in _TEN_POINTS else claimed
