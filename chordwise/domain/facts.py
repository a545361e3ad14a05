"""The facts of an output: one row per finding or value, for queries in SQL."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal

from chordwise.domain import json_values, value_in_quote
from chordwise.domain.analysis import AnalysisDefinition, claimed_number
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.grounding import Grounding
from chordwise.domain.json_values import USER_DATA, JsonObject, JsonValue, text_of
from chordwise.domain.typed_values import typed

_EVIDENCE = "evidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A value of an output, with its evidence, if any.

    `path` is a JSON Pointer into the output. `item` is what was asked for, or the names on the path
    joined by dots, such as `line_items.amount`. `value` is `None` if it was searched for in vain.
    `parent` is the path of the list element (an object) with the value. `number` to `date` are the
    typed final value (see `typed_values`); `number` includes the `scale` of a caption, such as “in
    millions”. `mentions` counts how often chunks have it. `confidence` is 0 to 1.
    """

    path: str
    item: str
    parent: str | None = None
    row_index: int | None = None
    mentions: int = 1
    value: str | None = None
    corrected_value: str | None = None
    verdict: str | None = None
    number: Decimal | None = None
    currency: str | None = None
    unit: str | None = None
    scale: int | None = None
    date: dt.date | None = None
    confidence: float | None = None
    quote: str | None = None
    start_char: int | None = None
    end_char: int | None = None
    grounding: str | None = None
    value_in_quote: bool | None = None
    page: int | None = None
    place: str | None = None
    boxes: JsonValue = None
    doubts: Sequence[str] | None = None

    @property
    def grounded(self) -> bool | None:
        """Whether the quote is in the document; `None` without a quote."""
        return None if self.grounding is None else self.grounding != Grounding.NONE


def facts(output: JsonObject, analysis: AnalysisDefinition) -> Iterator[Fact]:
    """Yield the facts of a stored output in its order, each path once.

    An object with a quote is one fact; elsewhere each scalar is one. In a user's own data, each
    scalar, null, empty list and empty object is a fact, with its own evidence or that of the
    nearest enclosing value. Evidence without a value is a fact without a value.
    """
    if analysis.type == AnalysisType.EXTRACTION and USER_DATA in output:
        return _of_data(output, analysis)
    shown = {name: value for name, value in output.items() if name != analysis.derived}
    return _facts(shown, ValuePosition(), analysis)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuePosition:
    """The position of a value in an output; see `Fact` for the attributes."""

    path: str = ""
    item: str = ""
    parent: str | None = None
    row_index: int | None = None

    def member(self, name: str) -> ValuePosition:
        """Return the position of a member of the object at this position."""
        item = f"{self.item}.{name}" if self.item else name
        return replace(self, path=json_values.pointer(self.path, name), item=item)

    def element(self, index: int, value: JsonValue) -> ValuePosition:
        """Return the position of an element of the list at this position."""
        path = json_values.pointer(self.path, index)
        parent = path if isinstance(value, dict) else self.parent
        return replace(self, path=path, parent=parent, row_index=index)


DATA = ValuePosition(path=f"/{USER_DATA}")
"""The position of a user's own data; item names in the data are relative to it."""


def scalar_fact(place: ValuePosition, value: JsonValue) -> Fact:
    """Return the fact for a scalar, without evidence; null, `[]` and `{}` have no value."""
    item = place.item or USER_DATA
    fact = Fact(path=place.path, item=item, parent=place.parent, row_index=place.row_index)
    return typed_fact(fact, value)


def typed_fact(fact: Fact, value: JsonValue) -> Fact:
    """Return a fact with a value and its typed form as a number or a date."""
    return replace(fact, value=text_of(value), **asdict(typed(value)))


def leaves(value: JsonValue, place: ValuePosition) -> Iterator[tuple[ValuePosition, JsonValue]]:
    """Yield each scalar, null, empty list and object in a value; nothing for an empty object."""
    if isinstance(value, dict) and (value or place == DATA):
        for name, member in value.items():
            yield from leaves(member, place.member(name))
    elif isinstance(value, list) and value:
        for index, element in enumerate(value):
            yield from leaves(element, place.element(index, element))
    else:
        yield place, value


def _facts(value: JsonValue, place: ValuePosition, analysis: AnalysisDefinition) -> Iterator[Fact]:
    if isinstance(value, dict) and "quote" in value:
        yield _finding(value, place, analysis)
    elif isinstance(value, dict):
        for name, member in value.items():
            yield from _facts(member, place.member(name), analysis)
    elif isinstance(value, list):
        for index, element in enumerate(value):
            yield from _facts(element, place.element(index, None), analysis)
    elif value is not None or place.path == analysis.nullable_path:
        yield scalar_fact(place, value)


def _finding(value: JsonObject, place: ValuePosition, analysis: AnalysisDefinition) -> Fact:
    texts = (json_values.text(value.get(name)) for name in analysis.principal_fields)
    fact = scalar_fact(place, next(filter(None, texts), None))
    if item := json_values.text(value.get("item")):
        fact = replace(fact, item=item, row_index=None)
    score = json_values.number(value.get("score"))
    if score is not None:
        fact = replace(fact, number=Decimal(repr(score)))
    return _with_evidence(fact, value, analysis)


def _of_data(output: JsonObject, analysis: AnalysisDefinition) -> Iterator[Fact]:
    evidence: dict[str, list[JsonObject]] = defaultdict(list)
    listed = json_values.objects(output.get(_EVIDENCE))
    for entry in listed:
        evidence[json_values.text(entry.get("path"))].append(entry)
    used: set[str] = set()
    for place, value in leaves(output[USER_DATA], DATA):
        fact = scalar_fact(place, value)
        below = place.path.removeprefix(DATA.path)
        nearest = next((path for path in json_values.upward(below) if path in evidence), None)
        if nearest is not None:
            used.add(nearest)
            inside = below.removeprefix(nearest)
            fact = _with_evidence(fact, _surest(evidence[nearest], inside), analysis, inside)
        yield fact
    for index, entry in enumerate(listed):
        path = json_values.text(entry.get("path"))
        if path not in used:
            place = ValuePosition(path=f"/{_EVIDENCE}/{index}", item=path or _EVIDENCE)
            yield _with_evidence(scalar_fact(place, None), entry, analysis)


def _surest(entries: Sequence[JsonObject], path: str) -> JsonObject:
    """Return the best entry: grounded, with the value in its quote, and the most confident."""
    return max(
        entries,
        key=lambda entry: (
            entry.get("grounded") is True,
            value_in_quote.mark_at(entry, path) is not False,
            claimed_number(entry),
        ),
    )


def _with_evidence(
    fact: Fact, entry: JsonObject, analysis: AnalysisDefinition, path: str = ""
) -> Fact:
    """`path` is relative to the value that the evidence supports."""
    quote = json_values.text(entry.get("quote"))
    stands = value_in_quote.mark_at(entry, path)
    if fact.number and (fact.value or "").startswith("("):
        is_positive = value_in_quote.is_positive_in(fact.number, quote)
        fact = replace(fact, number=-fact.number if is_positive else fact.number)
    number = fact.number if stands and not (fact.currency or fact.unit) else None
    if number is not None and (quantity := value_in_quote.measured(number, quote)):
        fact = replace(fact, currency=quantity.code, unit=quantity.unit)
    scale = None if fact.scale else json_values.integer(entry.get("scale"))
    if fact.number is not None and scale:
        code = fact.currency or json_values.text(entry.get("currency")) or None
        fact = replace(fact, number=fact.number * scale, scale=scale, currency=code)
    points = json_values.number(entry.get("confidence"))
    return replace(
        fact,
        mentions=json_values.integer(entry.get("mentions")) or 1,
        confidence=None if points is None else points / analysis.max_confidence,
        quote=quote or None,
        start_char=json_values.integer(entry.get("start_char")),
        end_char=json_values.integer(entry.get("end_char")),
        grounding=json_values.text(entry.get("grounding")) or None,
        value_in_quote=stands,
        page=json_values.integer(entry.get("page")),
        place=json_values.text(entry.get("place")) or None,
        boxes=entry.get("boxes"),
    )
