"""Extraction by search: for each item the sentence with its words, and the value in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from chordwise.domain import grounding, json_values, typed_values, validation
from chordwise.domain.analyses.analysis import claimed
from chordwise.domain.analyses.extraction import (
    FOUND,
    NOT_MENTIONED,
    Extraction,
    items,
)
from chordwise.domain.analyses.schema_nodes import SchemaNode
from chordwise.domain.extractive import words
from chordwise.domain.extractive.items import Item, item_of
from chordwise.domain.extractive.search import MAX_ENTRIES, Match, SearchableText
from chordwise.domain.extractive.values import Kind, values
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.tasks import AnalysisTask

_DENIAL: JsonObject = {"status": NOT_MENTIONED, "value": None, "quote": None, "confidence": 3}


def analyze(task: AnalysisTask) -> JsonObject:
    """Look for each item, or fill in the user's own schema."""
    searchable = SearchableText(task.text)
    if task.options.schema is not None:
        return fill(task.options.schema, searchable)
    return {"fields": [each for item in items(task.options) for each in _fields(item, searchable)]}


def synthesize(task: AnalysisTask) -> JsonObject:
    """Keep the distinct values of a list, and the surest value of any other item."""
    merged = Extraction().merge(task.answers, task.options)
    if task.options.schema is None:
        fields = json_values.objects(merged["fields"])
        merged["fields"] = [each for item in items(task.options) for each in _kept(item, fields)]
    return json_values.as_object(grounding.without_spans(merged))


def _kept(item: str, fields: Sequence[JsonObject]) -> list[JsonObject]:
    own = [each for each in fields if each.get("item") == item]
    return own if item_of(item).is_list else [max(own, key=claimed)]


def _fields(item: str, searchable: SearchableText) -> Iterator[JsonObject]:
    found: list[JsonObject] = [
        {"status": FOUND, "value": one.value, "quote": one.quote, "confidence": one.confidence}
        for one in searchable.find(item_of(item))
    ]
    for each in found or [_DENIAL]:
        yield {"item": item, **each}


# A user's own schema

_FORMAT_KINDS = {"date": Kind.DATE, "email": Kind.EMAIL, "phone": Kind.PHONE, "uri": Kind.URL}
_NUMBER_KINDS = (Kind.MONEY, Kind.PERCENT, Kind.NUMBER)
_NEGATION = re.compile(r"\b(?:not|no|never|neither|nor|without|none)\b|n['’]t\b", re.IGNORECASE)
_TYPES = ("object", "array", "boolean", "integer", "number", "string")
_MAX_DEPTH = 6
_PROBE = "chordwise_probe"


def fill(schema: JsonObject, searchable: SearchableText) -> JsonObject:
    """Return an answer with `data` for the schema and the evidence for what was found.

    What is required, not found, and has no empty value is left out, for validation to report.
    """
    walk = _Walk(root=schema, searchable=searchable)
    return {"data": walk.members(SchemaNode.of(schema), "", 0), "evidence": list(walk.evidence)}


@dataclass(slots=True, kw_only=True)
class _Walk:
    root: JsonObject
    searchable: SearchableText
    evidence: list[JsonObject] = field(default_factory=list)

    def members(self, node: SchemaNode, path: str, depth: int) -> JsonObject:
        """Fill in the properties of an object."""
        filled: JsonObject = {}
        for name in node.properties:
            member = node.member(name)
            value = self._value(name, member, json_values.pointer(path, name), depth)
            if value is None and self._is_valid(None, member):
                filled[name] = None
            elif value is not None and (name in node.required or value not in ("", [], {})):
                filled[name] = value
        return filled

    def _value(self, name: str, node: SchemaNode, path: str, depth: int) -> JsonValue:
        """Return a valid value, an empty one where nothing was found, or `None`."""
        if len(node.choices) == 1:
            return node.choices[0]
        kind = _type_of(node)
        if kind == "object":
            return self.members(node, path, depth + 1) if depth < _MAX_DEPTH else {}
        wanted = item_of(name, node.description)
        if kind == "array":
            return self._array(node, wanted, path)
        for match in self.searchable.find(_narrowed(wanted, node), MAX_ENTRIES):
            for value in _readings(match, node):
                if self._is_valid(value, node):
                    self._note(path, match)
                    return value
        return "" if kind == "string" and self._is_valid("", node) else None

    def _array(self, node: SchemaNode, wanted: Item, path: str) -> JsonValue:
        element = node.items
        if _type_of(element) in ("object", "array"):
            return []
        found: list[JsonValue] = []
        for match in self.searchable.find(_narrowed(replace(wanted, is_list=True), element)):
            meanings = _readings(match, element)
            value = next((one for one in meanings if self._is_valid(one, element)), None)
            has_room = node.max_items is None or len(found) < node.max_items
            if value is not None and value not in found and has_room:
                self._note(json_values.pointer(path, len(found)), match)
                found.append(value)
        return found

    def _note(self, path: str, match: Match) -> None:
        self.evidence.append({"path": path, "quote": match.quote, "confidence": match.confidence})

    def _is_valid(self, value: JsonValue, node: SchemaNode) -> bool:
        """Check one value against a part of the user's schema, whose references lead anywhere."""
        properties = json_values.as_object(self.root.get("properties") or {})
        whole: JsonObject = {
            **{name: self.root[name] for name in ("$defs", "definitions") if name in self.root},
            "properties": {**properties, _PROBE: {"allOf": list(node.schemas)}},
        }
        try:
            return not validation.problems({_PROBE: value}, whole)
        except ValueError:  # it refers to a part of the schema that is not carried along
            return False


def _type_of(node: SchemaNode) -> str:
    """Return the first type that a schema allows besides null; string where it names none."""
    types = {"object"} if node.properties else node.types
    return next((name for name in _TYPES if name in types), "string")


def _narrowed(wanted: Item, node: SchemaNode) -> Item:
    """Let the schema's own type and format decide which kind of value is searched for."""
    if by_format := _FORMAT_KINDS.get(node.format):
        return replace(wanted, kinds=(by_format,))
    kind = _type_of(node)
    if kind in ("number", "integer"):
        numeric = [each for each in wanted.kinds if each in _NUMBER_KINDS]
        return replace(wanted, kinds=tuple(dict.fromkeys([*numeric, *_NUMBER_KINDS])))
    return replace(wanted, kinds=()) if kind == "boolean" or node.choices else wanted


def _readings(match: Match, node: SchemaNode) -> Iterator[JsonValue]:
    """Yield what a match may mean under a schema, the likeliest first; each is yet to be checked.

    Dates become ISO 8601, numbers lose their separators; strings stay the text's own words.
    """
    kind = _type_of(node)
    if node.choices:
        yield from (choice for choice in node.choices if _mentions(match.quote, choice))
    elif kind == "boolean":
        yield not _NEGATION.search(match.quote)
    elif kind in ("number", "integer"):
        number = typed_values.typed(match.value).number
        if number is not None:
            is_whole = number == int(number) and (kind == "integer" or "." not in match.value)
            yield int(number) if is_whole else float(number)
    else:
        if node.format == "date":
            for each in values(Kind.DATE, f"{match.value}\n{match.quote}"):
                if day := typed_values.typed(each.text).date:
                    yield day.isoformat()
        yield match.value


def _mentions(quote: str, choice: JsonValue) -> bool:
    wanted = words.terms(json_values.text(choice))
    return bool(wanted) and set(wanted).issubset(words.terms(quote))
