"""The lists of a user's own schema: what the schema says of each, and how many rows it has."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from chordwise.domain import json_values
from chordwise.domain.analyses.analysis import RowCount
from chordwise.domain.json_values import JsonObject, JsonValue

ANY_POSITION = "*"
_MAX_FORMS = 64


@dataclass(frozen=True)
class SchemaNode:
    """What a schema says of one place in the data, references and alternatives resolved."""

    root: JsonObject
    schemas: tuple[JsonValue, ...]

    @classmethod
    def of(cls, schema: JsonObject) -> SchemaNode:
        """Return the node of the whole data."""
        return cls(schema, (schema,))

    def member(self, name: str) -> SchemaNode:
        """Return the node of an object's member."""
        named = [
            json_values.as_object(form.get("properties") or {}).get(name) for form in self._forms
        ]
        others = [form.get("additionalProperties") for form in self._forms]
        return SchemaNode(
            self.root, tuple(each for each in named if each is not None) or (*others,)
        )

    @property
    def items(self) -> SchemaNode:
        """Return the node of a list's items."""
        return SchemaNode(self.root, tuple(form.get("items") for form in self._forms))

    @property
    def is_unique(self) -> bool:
        """Tell whether a list holds distinct values: the same value twice is one row."""
        return any(form.get("uniqueItems") is True for form in self._forms)

    @property
    def is_tuple(self) -> bool:
        """Tell whether a list is one value of fixed length, such as a pair of coordinates."""
        return any(
            "prefixItems" in form
            or isinstance(form.get("items"), list)
            or (form.get("maxItems") is not None and form.get("maxItems") == form.get("minItems"))
            for form in self._forms
        )

    @property
    def max_items(self) -> int | None:
        """Return how many items a list may have; `None` where the schema sets no limit."""
        limits = [json_values.number(form.get("maxItems")) for form in self._forms]
        return min((int(limit) for limit in limits if limit is not None), default=None)

    @cached_property
    def _forms(self) -> tuple[JsonObject, ...]:
        """Return the schemas that hold here, each one once, a recursive one too."""
        found: list[JsonObject] = []
        waiting = list(self.schemas)
        while waiting and len(found) < _MAX_FORMS:
            schema = waiting.pop(0)
            if isinstance(schema, dict) and not any(schema is each for each in found):
                found.append(schema)
                waiting += self._behind(schema)
        return tuple(found)

    def _behind(self, schema: JsonObject) -> Iterator[JsonValue]:
        if reference := json_values.text(schema.get("$ref")):
            yield _referred(self.root, reference)
        for name in ("allOf", "anyOf", "oneOf"):
            yield from json_values.objects(schema.get(name))


def row_counts(values: Sequence[JsonValue], schema: JsonObject) -> dict[str, RowCount]:
    """Return how many rows the lists in several values have together, by JSON Pointer.

    Lists at the same place count together; `*` stands for the position of the row that they are in.
    Tuples are no lists. Where the schema wants distinct values, each one counts once.
    """
    tally = _Tally()
    for value in values:
        tally.add(value, SchemaNode.of(schema), "")
    return {path: tally.count(path) for path in tally.rows}


def identity(value: JsonValue) -> str:
    """Return what two values share when they are the same JSON; `true` is not 1."""
    return json.dumps(value, sort_keys=True)


@dataclass
class _Tally:
    """The rows found so far: a number for each list, and the distinct values of some."""

    rows: dict[str, int] = field(default_factory=dict)
    distinct: dict[str, set[str]] = field(default_factory=dict)
    limits: dict[str, int | None] = field(default_factory=dict)

    def add(self, value: JsonValue, node: SchemaNode, path: str) -> None:
        if isinstance(value, dict):
            for name, member in value.items():
                if isinstance(member, dict | list):
                    self.add(member, node.member(name), json_values.pointer(path, name))
        elif isinstance(value, list) and not node.is_tuple:
            self._add_list(value, node, path)

    def _add_list(self, value: list[JsonValue], node: SchemaNode, path: str) -> None:
        is_nested = ANY_POSITION in json_values.steps(path)
        if node.is_unique and not is_nested:
            self.distinct.setdefault(path, set()).update(identity(item) for item in value)
        self.rows[path] = self.rows.get(path, 0) + len(value)
        self.limits[path] = None if is_nested else node.max_items
        items, place = node.items, json_values.pointer(path, ANY_POSITION)
        for item in value:
            self.add(item, items, place)

    def count(self, path: str) -> RowCount:
        distinct = self.distinct.get(path)
        number = self.rows[path] if distinct is None else len(distinct)
        return RowCount(number=number, max_items=self.limits[path])


def _referred(root: JsonObject, reference: str) -> JsonValue:
    found: JsonValue = root
    for step in json_values.steps(reference.removeprefix("#")):
        found = found.get(step) if isinstance(found, dict) else None
    return found
