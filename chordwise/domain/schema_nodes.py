"""The rules of the JSON Schema of a user for each place in the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from chordwise.domain import json_values, schemas, value_in_quote
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.memo import memoized_by_identity

MAX_DEPTH = 6
"""The depth of objects to which the rules of a schema are read; references can make it infinite."""
_COUNTED_DEPTH = 5
_MAX_FORMS = 64


@dataclass(frozen=True)
class SchemaNode:
    """The rules of a schema for one place in the data; references and alternatives are resolved."""

    root: JsonObject
    schemas: tuple[JsonValue, ...]

    @classmethod
    def root_of(cls, schema: JsonObject) -> SchemaNode:
        """Return the root node of the data, with the nodes below it that were asked for before."""
        return _root_of(schema)

    def member(self, name: str) -> SchemaNode:
        """Return the node of a member of an object."""
        return self._members.get(name, self._other_members)

    def at(self, path: str) -> SchemaNode:
        """Return the node at a JSON Pointer into the data."""
        node = self
        for step in json_values.steps(path):
            is_position = step.isdecimal() and "array" in node.types
            node = node.items if is_position else node.member(step)
        return node

    @cached_property
    def items(self) -> SchemaNode:
        """Return the node of the items of a list."""
        return SchemaNode(self.root, tuple(form.get("items") for form in self._forms))

    @property
    def is_known(self) -> bool:
        """Return whether the schema has rules for this place."""
        return bool(self._forms)

    @property
    def is_scalar(self) -> bool:
        """Return whether a value is a text, a number or a boolean by its type or its choices."""
        has_choices = any("enum" in form or "const" in form for form in self._forms)
        types = self.types - {"null"}
        return not types & {"object", "array"} and (bool(types) or has_choices)

    @property
    def properties(self) -> list[str]:
        """Return the names of the members that the schema declares, each once."""
        return list(self._members)

    @property
    def required(self) -> set[str]:
        """Return the names of the required members."""
        return {name for form in self._forms for name in json_values.strings(form.get("required"))}

    @property
    def choices(self) -> list[JsonValue]:
        """Return the allowed values, if the schema lists them."""
        listed = (form.get("enum") for form in self._forms)
        values = [value for allowed in listed if isinstance(allowed, list) for value in allowed]
        return values + [form["const"] for form in self._forms if "const" in form]

    @property
    def types(self) -> set[str]:
        """Return the allowed types, as far as the schema names them."""
        kinds = (json_values.listed(form.get("type")) for form in self._forms)
        return {name for listed in kinds for name in json_values.strings(listed)}

    @property
    def format(self) -> str:
        """Return the required format of a text; empty if the schema names none."""
        return self._first_text("format")

    @property
    def description(self) -> str:
        """Return the description of the value, else its title; empty if it has neither."""
        return self._first_text("description") or self._first_text("title")

    @property
    def is_unique(self) -> bool:
        """Return whether the values of a list are distinct: a repeated value is the same row."""
        return any(form.get("uniqueItems") is True for form in self._forms)

    @property
    def is_selection(self) -> bool:
        """Return whether a list is declared to hold only some of the records of a text."""
        return any(form.get(schemas.SELECTION) is True for form in self._forms)

    @property
    def is_counted(self) -> bool:
        """Return whether the model states how many rows of a list its text has."""
        return any(form.get(schemas.COUNT) is True for form in self._forms)

    def counted_lists(self, path: str = "") -> Iterator[str]:
        """Yield the JSON Pointers of the lists that `is_counted`, outside of other lists."""
        for name in self.properties:
            member, place = self.member(name), json_values.pointer(path, name)
            if member.is_counted:
                yield place
            elif place.count("/") <= MAX_DEPTH:
                yield from member.counted_lists(place)

    def occurs_in(self, value: JsonValue, quote: str, names: Sequence[str]) -> bool | None:
        """Return whether a value here occurs in a quote; `None` for choices and for free text."""
        if self.choices:
            return None
        name = next((name for name in reversed(names) if not name.isdecimal()), "")
        return value_in_quote.occurs_in(value, quote, f"{name} {self.description}")

    @property
    def is_tuple(self) -> bool:
        """Return whether a list is one value of fixed length, such as a pair of coordinates."""
        return any(
            "prefixItems" in form
            or isinstance(form.get("items"), list)
            or (form.get("maxItems") is not None and form.get("maxItems") == form.get("minItems"))
            for form in self._forms
        )

    @property
    def is_list(self) -> bool:
        """Return whether a value is always a list of rows, and not a tuple."""
        return self.types - {"null"} == {"array"} and not self.is_tuple

    @property
    def min_items(self) -> int:
        """Return the minimum number of items in a list."""
        return max(self._limits("minItems"), default=0)

    @property
    def max_items(self) -> int | None:
        """Return the maximum number of items in a list; `None` if the schema sets no limit."""
        return min(self._limits("maxItems"), default=None)

    def nodes(self, depth: int = 0) -> Iterator[SchemaNode]:
        """Yield this node and those of the values in it and in its items, down to `MAX_DEPTH`."""
        yield self
        for node in (self, self.items) if depth <= MAX_DEPTH else ():
            for name in node.properties:
                yield from node.member(name).nodes(depth + 1)

    def leaves(self, depth: int = 0, above: frozenset[int] = frozenset()) -> Iterator[SchemaNode]:
        """Yield the nodes of single values, also in rows; a definition inside itself is one."""
        forms = frozenset(map(id, self._forms))
        if self.items.properties and not self.properties:
            yield from self.items.leaves(depth, above)
        elif not self.properties or depth > MAX_DEPTH or above & forms:
            yield self
        else:
            for name in self.properties:
                yield from self.member(name).leaves(depth + 1, above | forms)

    def has_single_values(self, depth: int = 0) -> bool:
        """Return whether the value has parts other than lists of rows."""
        if self.is_list:
            return False
        members = [self.member(name) for name in self.properties if depth < MAX_DEPTH]
        return not members or any(member.has_single_values(depth + 1) for member in members)

    def max_row_width(self, depth: int = 0) -> int:
        """Return the number of values in a row of the widest list of objects; 0 without one."""
        inside = [self.member(name) for name in self.properties]
        if self.is_list and self.items.properties:
            return self.items.count_values(depth)
        if depth >= _COUNTED_DEPTH:
            return 0
        return max((member.max_row_width(depth + 1) for member in inside), default=0)

    def count_values(self, depth: int) -> int:
        """Return the number of values in an object, including nested objects and lists."""
        node = self.items if self.is_list else self
        if not node.properties or depth >= _COUNTED_DEPTH:
            return 1
        return sum(node.member(name).count_values(depth + 1) for name in node.properties)

    def _limits(self, keyword: str) -> list[int]:
        declared = (json_values.number(form.get(keyword)) for form in self._forms)
        return [int(number) for number in declared if number is not None]

    def _first_text(self, keyword: str) -> str:
        declared = (json_values.text(form.get(keyword)) for form in self._forms)
        return next((text for text in declared if text), "")

    @cached_property
    def _members(self) -> dict[str, SchemaNode]:
        """The nodes of the members that the schema declares, in its order."""
        declared: dict[str, list[JsonValue]] = {}
        for form in self._forms:
            for name, rules in json_values.as_object(form.get("properties") or {}).items():
                declared.setdefault(name, []).extend([] if rules is None else [rules])
        return {
            name: SchemaNode(self.root, tuple(rules)) if rules else self._other_members
            for name, rules in declared.items()
        }

    @cached_property
    def _other_members(self) -> SchemaNode:
        return SchemaNode(
            self.root, tuple(form.get("additionalProperties") for form in self._forms)
        )

    @cached_property
    def _forms(self) -> tuple[JsonObject, ...]:
        """Return the applicable schemas, each once, including recursive ones."""
        forms: list[JsonObject] = []
        waiting = list(self.schemas)
        while waiting and len(forms) < _MAX_FORMS:
            schema = waiting.pop(0)
            if isinstance(schema, dict) and not any(schema is form for form in forms):
                forms.append(schema)
                if reference := json_values.text(schema.get("$ref")):
                    waiting.append(json_values.at(self.root, reference.removeprefix("#")))
                for name in ("allOf", "anyOf", "oneOf"):
                    waiting += json_values.objects(schema.get(name))
        return tuple(forms)


@memoized_by_identity
def _root_of(schema: JsonObject) -> SchemaNode:
    return SchemaNode(schema, (schema,))
