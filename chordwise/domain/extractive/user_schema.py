"""Filling in a user's own JSON Schema from what the search finds for each property."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from chordwise.domain import json_values, validation
from chordwise.domain.extractive import schema_values
from chordwise.domain.extractive.item_hints import Hint, hint
from chordwise.domain.extractive.search import MAX_ENTRIES, Match, SearchableText
from chordwise.domain.json_values import JsonObject, JsonValue

_MAX_DEPTH = 6
_PROBE = "chordwise_probe"


def fill(schema: JsonObject, searchable: SearchableText) -> JsonObject:
    """Return an answer with `data` for the schema and the evidence for what was found.

    A property that is required, not found, and has no empty value is left out: inventing one is
    worse than an answer that validation reports.
    """
    walk = _Walk(root=schema, searchable=searchable)
    walk.carry_references()
    data = walk.members(schema, "", 0)
    return {"data": data, "evidence": list(walk.evidence)}


@dataclass(slots=True, kw_only=True)
class _Walk:
    root: JsonObject
    searchable: SearchableText
    evidence: list[JsonObject] = field(default_factory=list)
    definitions: JsonObject = field(default_factory=dict)
    properties: JsonObject = field(default_factory=dict)

    def carry_references(self) -> None:
        """Keep what references inside the schema may point to, for checks of its parts."""
        shared = ("$defs", "definitions")
        self.definitions = {name: self.root[name] for name in shared if name in self.root}
        if '"#/properties' in json.dumps(self.root):
            self.properties = json_values.as_object(self.root.get("properties") or {})

    def members(self, schema: JsonObject, path: str, depth: int) -> JsonObject:
        """Fill in the properties of an object."""
        properties = json_values.as_object(schema.get("properties") or {})
        required = json_values.strings(schema.get("required"))
        filled: JsonObject = {}
        for name, member in properties.items():
            place = json_values.pointer(path, name)
            resolved = self._resolved(member)
            value = self._value(name, resolved, place, depth)
            if value is None and self.is_valid(None, resolved):
                filled[name] = None
            elif value is not None and (name in required or value not in ("", [], {})):
                filled[name] = value
        return filled

    def _value(self, name: str, schema: JsonObject, path: str, depth: int) -> JsonValue:
        """Return a valid value, an empty one where nothing was found, or `None`."""
        kind = schema_values.kind_of(schema)
        if "const" in schema:
            return schema["const"]
        if kind == "object":
            return self.members(schema, path, depth + 1) if depth < _MAX_DEPTH else {}
        described = json_values.text(schema.get("description"))
        wanted = schema_values.narrowed(hint(name, described), schema)
        matches = self.searchable.find(wanted, MAX_ENTRIES)
        if kind == "array":
            return self._array(schema, wanted, path)
        for match in matches:
            for value in schema_values.readings(match, schema):
                if self.is_valid(value, schema):
                    self._note(path, match)
                    return value
        return next((e for e in schema_values.empties(schema) if self.is_valid(e, schema)), None)

    def _array(self, schema: JsonObject, wanted: Hint, path: str) -> JsonValue:
        element = self._resolved(schema.get("items"))
        if schema_values.kind_of(element) in ("object", "array"):
            return []
        wanted = schema_values.narrowed(schema_values.as_list(wanted), element)
        found: list[JsonValue] = []
        for match in self.searchable.find(wanted):
            readings = schema_values.readings(match, element)
            value = next((one for one in readings if self.is_valid(one, element)), None)
            if value is not None and value not in found and self._has_room(schema, found):
                self._note(json_values.pointer(path, len(found)), match)
                found.append(value)
        return found

    def _has_room(self, schema: JsonObject, found: list[JsonValue]) -> bool:
        most = json_values.number(schema.get("maxItems"))
        return most is None or len(found) < most

    def _note(self, path: str, match: Match) -> None:
        self.evidence.append({"path": path, "quote": match.quote, "confidence": match.confidence})

    def _resolved(self, schema: JsonValue) -> JsonObject:
        """Follow references inside the document and take the first real alternative."""
        found = json_values.as_object(schema) if isinstance(schema, dict) else {}
        for _ in range(_MAX_DEPTH):
            reference = json_values.text(found.get("$ref"))
            alternatives = json_values.objects(found.get("anyOf") or found.get("oneOf"))
            real = [one for one in alternatives if one.get("type") != "null"]
            if reference:
                found = {**schema_values.referred(self.root, reference), **_without(found, "$ref")}
            elif real and "type" not in found:
                kept: JsonObject = {**found, "chordwise_alternatives": list(alternatives)}
                found = {**real[0], **_without(_without(kept, "anyOf"), "oneOf")}
            else:
                break
        return found

    def is_valid(self, value: JsonValue, schema: JsonObject) -> bool:
        """Check one value against a part of the user's schema."""
        alternatives = schema.get("chordwise_alternatives")
        if value is None and isinstance(alternatives, list):
            return any(one.get("type") == "null" for one in json_values.objects(alternatives))
        bare = _without(schema, "chordwise_alternatives")
        whole = {**self.definitions, "properties": {**self.properties, _PROBE: bare}}
        try:
            return not validation.problems({_PROBE: value}, whole)
        except ValueError:  # it refers to a part of the schema that is not carried along
            return False


def _without(schema: JsonObject, name: str) -> JsonObject:
    return {key: value for key, value in schema.items() if key != name}
