"""Groups of fields: a schema that is too wide for one question, as several narrower schemas.

An object that is wider than a group is split between its members, at any depth. A list stays whole,
and so does an object with rules for several members, such as `minProperties` or `if`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from chordwise.domain import checks, json_values, schemas
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask, Example
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.memo import memoized_by_identity
from chordwise.domain.schema_nodes import MAX_DEPTH, SchemaNode
from chordwise.domain.schemas import CHECKS

MAX_FIELDS = 60
"""The maximum number of fields in a question; models rarely give a valid answer with more."""
Steps: TypeAlias = tuple[str, ...]
"""The names on the path to a member of the data."""
_DEFINITIONS = ("$defs", "definitions")
_NOTES = {"title", "description", "default"}
_INDEPENDENT = {
    *("type", "properties", "required", "additionalProperties", "examples", "$comment"),
    *("$schema", "$id", *_DEFINITIONS, *_NOTES),
}
"""The keywords of an object whose members do not depend on each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldGroup:
    """The members of the data that one question is about, and the options of that question."""

    options: AnalysisOptions
    members: Collection[Steps]

    @property
    def fields(self) -> int:
        """The number of values, those of a row counted once."""
        return len(list(SchemaNode.root_of(self.options.schema or {}).leaves()))

    def task(self, whole: AnalysisTask) -> AnalysisTask:
        """Return the part of a question that is about this group."""
        return replace(
            whole,
            options=self.options,
            answers=tuple(part_of(answer, self.members) for answer in whole.answers),
            draft=None if whole.draft is None else part_of(whole.draft, self.members),
            examples=_parts_of(whole.examples, self.members),
        )


@memoized_by_identity
def groups_of(options: AnalysisOptions, max_fields: int, max_choices: int) -> Sequence[FieldGroup]:
    """Return groups of at most `max_fields` fields and `max_choices` values of enumerations.

    The result is empty for a schema of at most `MAX_FIELDS`. A member that cannot be split and
    exceeds a limit is a group by itself.
    """
    schema = options.schema or {}
    if len(list(SchemaNode.root_of(schema).leaves())) <= MAX_FIELDS:
        return []
    groups: list[list[Steps]] = []
    together: list[SchemaNode] = []
    for steps, leaves in _members(schema, schema, max_fields):
        together = [*together, *leaves]
        choices = sum(len(leaf.choices) + len(leaf.items.choices) for leaf in together)
        if groups and len(together) <= max_fields and choices <= max_choices:
            groups[-1].append(steps)
        else:
            groups.append([steps])
            together = leaves
    return [FieldGroup(options=narrowed(options, group), members=group) for group in groups]


def _members(
    schema: JsonValue, root: JsonObject, max_fields: int, steps: Steps = ()
) -> Iterator[tuple[Steps, list[SchemaNode]]]:
    """Yield the largest parts of the data with at most `max_fields`, as far as it can be split."""
    leaves, plain = list(SchemaNode(root, (schema,)).leaves()), _plain(schema, root)
    if plain is None or len(leaves) <= max_fields or len(steps) > MAX_DEPTH:
        yield steps, leaves
        return
    # PostgreSQL does not keep the order of members, on which the groups must not depend.
    for name, member in sorted(json_values.as_object(plain["properties"]).items()):
        yield from _members(member, root, max_fields, (*steps, name))


def _plain(schema: JsonValue, root: JsonObject) -> JsonObject | None:
    """Return the object behind references and beside null, if its members are independent."""
    notes: JsonObject = {}
    types = SchemaNode(root, (schema,)).types
    for _ in range(MAX_DEPTH):
        if not isinstance(schema, dict):
            return None
        notes = {name: schema[name] for name in _NOTES & schema.keys()} | notes
        reference = json_values.text(schema.get("$ref")).removeprefix("#")
        options = json_values.objects(schema.get("anyOf") or schema.get("oneOf"))
        others = [option for option in options if option.get("type") != "null"]
        if len(schema.keys() - _NOTES) > 1 or not (reference or len(others) == 1):
            break
        schema = json_values.at(root, reference) if reference else others[0]
    if types - {"null"} != {"object"} or not isinstance(schema, dict):
        return None
    is_map = isinstance(schema.get("additionalProperties"), dict) or not schema.get("properties")
    if is_map or any(name not in _INDEPENDENT and name[:2] != "x-" for name in schema):
        return None
    return {**schema, **notes, "type": ["object", "null"] if "null" in types else "object"}


def narrowed(options: AnalysisOptions, members: Collection[Steps]) -> AnalysisOptions:
    """Return options with the part of the schema, the checks and the examples for some members."""
    root = options.schema or {}
    schema = json_values.as_object(_narrowed(root, root, members))
    schema = {name: value for name, value in schema.items() if name not in (*_DEFINITIONS, CHECKS)}
    schema |= _used_definitions(schema, root)
    if declared := checks.defined_by(schema, json_values.objects(root.get(CHECKS))):
        schema[CHECKS] = [*declared]
    return replace(options, schema=schema, examples=_parts_of(options.examples, members))


def _narrowed(schema: JsonValue, root: JsonObject, members: Collection[Steps]) -> JsonValue:
    plain = None if () in members else _plain(schema, root)
    if plain is None:
        return schema
    properties: JsonObject = {
        name: _narrowed(member, root, inside)
        for name, member in json_values.as_object(plain["properties"]).items()
        if (inside := _inside(name, members))
    }
    required = [name for name in json_values.strings(plain.get("required")) if name in properties]
    return {**plain, **schemas.closed(properties), "type": plain["type"], "required": [*required]}


def _inside(name: str, members: Collection[Steps]) -> list[Steps]:
    return [steps[1:] for steps in members if steps[0] == name]


def _used_definitions(schema: JsonObject, root: JsonObject) -> JsonObject:
    """Return the definitions of `root` to which a schema refers, directly or through others."""
    used: dict[str, JsonObject] = {}
    waiting: list[JsonValue] = [schema]
    while waiting:
        for path, reference in json_values.walk(waiting.pop()):
            if path.endswith("/$ref") and isinstance(reference, str):
                kind, name = json_values.steps(reference.removeprefix("#"))[:2]
                if name not in used.setdefault(kind, {}):
                    used[kind][name] = json_values.at(root, pointer((kind, name)))
                    waiting.append(used[kind][name])
    return {**used}


def _parts_of(examples: Sequence[Example], members: Collection[Steps]) -> tuple[Example, ...]:
    return tuple(replace(one, answer=part_of(one.answer, members)) for one in examples)


def part_of(answer: JsonObject, members: Collection[Steps]) -> JsonObject:
    """Return the members of an answer, with the evidence for them or for values in them."""
    paths = [pointer(steps) for steps in members]
    evidence: list[JsonValue] = [
        entry
        for entry in json_values.objects(answer.get("evidence"))
        if any(json_values.is_within(json_values.text(entry.get("path")), path) for path in paths)
    ]
    return {"data": _kept(answer.get("data"), members), "evidence": evidence}


def _kept(value: JsonValue, members: Collection[Steps]) -> JsonValue:
    if () in members or not isinstance(value, dict):
        return value
    inside = {name: _inside(name, members) for name in value}
    return {name: _kept(member, inside[name]) for name, member in value.items() if inside[name]}


def completed(value: JsonValue, node: SchemaNode) -> JsonValue:
    """Return data in which no required member is missing: null, or empty if null is not allowed.

    Members are missing if one group gave an object that another one denied with null.
    """
    if not isinstance(value, dict):
        return value
    members = dict(value)
    for name in node.properties:
        if name in node.required - value.keys():
            member = node.member(name)
            empty: JsonValue = {} if member.properties else [] if member.is_list else None
            members[name] = None if "null" in member.types else empty
    return {name: completed(member, node.member(name)) for name, member in members.items()}


def pointer(steps: Steps) -> str:
    """Return the JSON Pointer of a member."""
    return "".join(json_values.pointer("", step) for step in steps)
