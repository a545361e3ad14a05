"""Extraction: the values that a user asked for, each with its quote, or “not mentioned”.

With a user's own JSON Schema the values stand under `data`, shaped and validated by it, and
`evidence` holds a quote for each of them.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from chordwise.domain import json_values, schemas, value_in_quote
from chordwise.domain.analyses.analysis import Analysis, RowCount, claimed, mean, take_turns
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.tasks import AnalysisOptions, AnalysisTask, AnalysisType

FOUND, NOT_MENTIONED = "found", "not mentioned"
DEFAULT_ITEMS = ("people", "organizations", "dates", "amounts of money", "places")
_OF_THE_ROOT = ("$schema", "$defs", "definitions")
# A comma in brackets is part of an item, where the brackets close within 500 characters.
_SEPARATORS = re.compile(r"[\n;]+|,(?![^()]{0,500}\))")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s*")


def items(options: AnalysisOptions) -> tuple[str, ...]:
    """Return what to look for: the instructions, split at commas, semicolons and lines."""
    parts = (_BULLET.sub("", part).strip() for part in _SEPARATORS.split(options.instructions))
    named = tuple(dict.fromkeys(part for part in parts if part))
    return named or DEFAULT_ITEMS


class Extraction(Analysis):
    """For each item a value, an exact quote, confidence 1–10, or “not mentioned”."""

    type = AnalysisType.EXTRACTION
    principal_fields = ("value", "path")

    def schema(self, options: AnalysisOptions) -> JsonObject:
        """Ask for the named items, or for the user's own structure with evidence beside it."""
        if options.schema is not None:
            return _around(options.schema)
        field = schemas.closed(
            {
                "item": schemas.one_of(items(options)),
                "status": schemas.one_of((FOUND, NOT_MENTIONED)),
                "value": schemas.optional(schemas.string()),
                "quote": schemas.optional(schemas.quote()),
                "confidence": schemas.integer(1, 10),
            }
        )
        return schemas.closed({"fields": schemas.array(field, at_least=1)})

    def confidence(self, answer: JsonObject) -> float:
        """Return the mean over what was found; nothing found is as sure as its denials."""
        fields = _fields(answer)
        found = [field for field in fields if field.get("status") != NOT_MENTIONED]
        return mean(claimed(field) for field in found or fields) / 10

    def problems(self, answer: JsonObject, task: AnalysisTask) -> list[str]:
        """Every item needs an answer, and a found one its value and quote."""
        if task.options.schema is not None:
            return []
        fields = json_values.objects(answer.get("fields"))
        named = {field.get("item") for field in fields}
        missing = [item for item in items(task.options) if item not in named]
        return [f"/fields: no entry for the item {item!r}" for item in missing] + [
            f"/fields/{position}: status is “found”, but value or quote is missing"
            for position, field in enumerate(fields)
            if field.get("status") == FOUND and not (field.get("value") and field.get("quote"))
        ]

    def with_marks(self, answer: JsonObject, options: AnalysisOptions) -> JsonObject:
        """Say of each value with a quote whether it stands there (see `value_in_quote`)."""
        if options.schema is None:
            return {**answer, "fields": [_marked_field(each) for each in _fields(answer)]}
        root, data = SchemaNode.of(options.schema), answer.get("data")
        evidence = json_values.objects(answer.get("evidence"))
        return {**answer, "evidence": [_marked_evidence(each, data, root) for each in evidence]}

    def merge(self, answers: Sequence[JsonObject], options: AnalysisOptions) -> JsonObject:
        """Keep every distinct value of an item; “not mentioned” only where no chunk has one."""
        if options.schema is not None:
            return merge(answers, options.schema)
        fields = [field for answer in answers for field in _fields(answer)]
        return {"fields": [field for item in items(options) for field in _best_of(item, fields)]}

    def has_findings(self, answer: JsonObject) -> bool:
        """Tell whether any item or member of the data has a value."""
        if "data" in answer:
            scalars = (
                v for _, v in json_values.walk(answer["data"]) if not isinstance(v, dict | list)
            )
            return any(value not in (None, "") for value in scalars)
        return any(field.get("status") == FOUND for field in _fields(answer))

    def row_counts(
        self, answers: Sequence[JsonObject], options: AnalysisOptions
    ) -> dict[str, RowCount]:
        """Count the lists of the user's data, or the distinct values of each item."""
        if options.schema is not None:
            counts = row_counts([a.get("data") for a in answers], options.schema)
            return {f"/data{path}": count for path, count in counts.items()}
        values: dict[str, set[str]] = defaultdict(set)
        for field in (field for answer in answers for field in _fields(answer)):
            if field.get("status") == FOUND:
                item = json_values.pointer("/fields", json_values.text(field.get("item")))
                values[item].add(_folded(field))
        return {item: RowCount(number=len(found)) for item, found in values.items()}


def _around(schema: JsonObject) -> JsonObject:
    """Put the user's schema under `data`; its definitions stay at the root, where `#/…` points.

    The dialect holds for the whole; an `$id` below the root would turn the references to itself.
    """
    at_root = {name: schema[name] for name in _OF_THE_ROOT if name in schema}
    own = {name: value for name, value in schema.items() if name not in (*at_root, "$id")}
    return {**schemas.closed({"data": own, "evidence": _evidence_schema()}), **at_root}


def _evidence_schema() -> JsonObject:
    return schemas.array(
        schemas.closed(
            {
                "path": schemas.string("JSON Pointer into data, such as /total."),
                "quote": schemas.quote(),
                "confidence": schemas.integer(1, 10),
            }
        )
    )


def _fields(answer: JsonObject) -> list[JsonObject]:
    return json_values.objects(answer.get("fields") or answer.get("evidence"))


def _best_of(item: str, fields: Sequence[JsonObject]) -> list[JsonValue]:
    """Return the distinct values found for an item, the surest mention of each."""
    own = [field for field in fields if field.get("item") == item]
    best: dict[str, JsonObject] = {}
    for field in own:
        if field.get("status") == FOUND:
            value = _folded(field)
            if value not in best or claimed(field) > claimed(best[value]):
                best[value] = field
    return list(best.values()) or list(own[:1])


def _folded(field: JsonObject) -> str:
    return json_values.text(field.get("value")).strip().casefold()


def _marked_field(field: JsonObject) -> JsonObject:
    quote, item = json_values.text(field.get("quote")), json_values.text(field.get("item"))
    stands = value_in_quote.stands_in(field.get("value"), quote, item) if quote else None
    return {**field, value_in_quote.MARK: stands}


def _marked_evidence(entry: JsonObject, data: JsonValue, root: SchemaNode) -> JsonObject:
    quote, path = (json_values.text(entry.get(name)) for name in ("quote", "path"))
    exact = _exact(path, data)
    if not quote or exact is None:
        return {**entry, value_in_quote.MARK: None}
    names = json_values.steps(exact)
    value, node = _inside(data, root, names)
    if not isinstance(value, dict | list):
        return {**entry, value_in_quote.MARK: node.stands_in(value, quote, names)}
    marks: JsonObject = {}
    for below, leaf in json_values.walk(value):
        if not isinstance(leaf, dict | list):
            steps = json_values.steps(below)
            stands = _inside(value, node, steps)[1].stands_in(leaf, quote, [*names, *steps])
            marks |= {} if stands is None else {below: stands}
    return {**entry, value_in_quote.MARK: marks}


def _inside(
    value: JsonValue, node: SchemaNode, names: Sequence[str]
) -> tuple[JsonValue, SchemaNode]:
    """Return a value inside another, and what the schema says of it."""
    for name in names:
        if isinstance(value, list):
            value, node = value[int(name)], node.items
        elif isinstance(value, dict):
            value, node = value[name], node.member(name)
    return value, node


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
    def is_known(self) -> bool:
        """Tell whether the schema says anything of this place."""
        return bool(self._forms)

    @property
    def is_scalar(self) -> bool:
        """Tell whether a value is a text, a number or a truth value by its type or its choices."""
        has_choices = any("enum" in form or "const" in form for form in self._forms)
        types = self.types - {"null"}
        return not types & {"object", "array"} and (bool(types) or has_choices)

    @property
    def properties(self) -> list[str]:
        """Return the names of an object's members that the schema knows, each once."""
        named = (json_values.as_object(form.get("properties") or {}) for form in self._forms)
        return list(dict.fromkeys(name for members in named for name in members))

    @property
    def types(self) -> set[str]:
        """Return the types that a value may have, as far as the schema says so."""
        said = [form.get("type") for form in self._forms]
        return {
            name
            for each in said
            for name in ([each] if isinstance(each, str) else json_values.strings(each))
        }

    @property
    def format(self) -> str:
        """Return the format that a text has to have; empty where the schema names none."""
        return self._first_text("format")

    @property
    def description(self) -> str:
        """Return what the schema says of the value; empty where it says nothing."""
        return self._first_text("description") or self._first_text("title")

    @property
    def is_unique(self) -> bool:
        """Tell whether a list holds distinct values: the same value twice is one row."""
        return any(form.get("uniqueItems") is True for form in self._forms)

    def stands_in(self, value: JsonValue, quote: str, names: Sequence[str]) -> bool | None:
        """Tell whether a value here stands in a quote; `None` of choices, and of free text."""
        if any("enum" in form or "const" in form for form in self._forms):
            return None
        name = next((name for name in reversed(names) if not name.isdecimal()), "")
        return value_in_quote.stands_in(value, quote, f"{name} {self.description}")

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

    def _first_text(self, keyword: str) -> str:
        said = (json_values.text(form.get(keyword)) for form in self._forms)
        return next((text for text in said if text), "")

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

    rows: dict[str, int] = dataclasses.field(default_factory=dict)
    distinct: dict[str, set[str]] = dataclasses.field(default_factory=dict)
    limits: dict[str, int | None] = dataclasses.field(default_factory=dict)

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


def merge(answers: Sequence[JsonObject], schema: JsonObject) -> JsonObject:
    """Merge by shape: objects by member, lists joined, else the first that says something.

    Chunks do not overlap, so equal rows of two chunks stand at different places and are two rows.
    Only a list of distinct values (`uniqueItems`) drops repetitions, and only one with `maxItems`
    drops rows. Evidence is kept for the values that are kept, with the paths that they have in the
    merged data; a path that leads nowhere in its own part's data stays as the model wrote it.
    """
    merge_ = _Merge()
    parts = [
        _Value(part=number, path="", content=answer.get("data"))
        for number, answer in enumerate(answers)
    ]
    data = merge_.join(parts, SchemaNode.of(schema), "")
    return {"data": data, "evidence": list(merge_.evidence(answers))}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Value:
    """A value in the data of a part, and its place there."""

    part: int
    path: str
    content: JsonValue

    @property
    def is_said(self) -> bool:
        return self.content not in (None, "", [], {})

    def members(self) -> dict[str, _Value]:
        members = self.content if isinstance(self.content, dict) else {}
        return {name: self._child(name, value) for name, value in members.items()}

    def items(self) -> list[_Value]:
        items = self.content if isinstance(self.content, list) else []
        return [self._child(position, value) for position, value in enumerate(items)]

    def _child(self, step: str | int, content: JsonValue) -> _Value:
        return replace(self, path=json_values.pointer(self.path, step), content=content)


@dataclass
class _Merge:
    """Where the values of the parts stand in the merged data.

    `joined` are objects and lists that became a part of a larger one, `moved` values that were
    taken over as a whole.
    """

    joined: dict[tuple[int, str], str] = dataclasses.field(default_factory=dict)
    moved: dict[tuple[int, str], str] = dataclasses.field(default_factory=dict)

    def join(self, values: Sequence[_Value], node: SchemaNode, place: str) -> JsonValue:
        """Return the merged value, which will stand at `place`."""
        said = [value for value in values if value.is_said] or list(values)
        if all(isinstance(value.content, dict) for value in said):
            return self._join_objects(said, node, place)
        if all(isinstance(value.content, list) for value in said) and not node.is_tuple:
            self._note(self.joined, values, place)
            return self._join_lists(said, node, place)
        first = identity(said[0].content)
        self._note(self.moved, [each for each in said if identity(each.content) == first], place)
        return said[0].content

    def evidence(self, answers: Sequence[JsonObject]) -> Iterator[JsonValue]:
        """Yield the evidence of the values that were kept, with their new paths."""
        for part, answer in enumerate(answers):
            for entry in json_values.objects(answer.get("evidence")):
                path = json_values.text(entry.get("path"))
                exact = _exact(path, answer.get("data"))
                followed = path if exact is None else self._followed(part, exact)
                if followed is not None:
                    yield {**entry, "path": followed}

    def _join_objects(self, said: Sequence[_Value], node: SchemaNode, place: str) -> JsonValue:
        self._note(self.joined, said, place)
        objects = [value.members() for value in said]
        names = dict.fromkeys(name for members in objects for name in members)
        return {
            name: self.join(
                [members[name] for members in objects if name in members],
                node.member(name),
                json_values.pointer(place, name),
            )
            for name in names
        }

    def _join_lists(self, said: Sequence[_Value], node: SchemaNode, place: str) -> JsonValue:
        lists = [value.items() for value in said]
        rows = _first_of_each(lists) if node.is_unique else lists
        if node.max_items is not None:
            kept = take_turns(rows, node.max_items)
        else:
            kept = [row for each in rows for row in each]
        for position, row in enumerate(kept):
            self._note(self.moved, [row], json_values.pointer(place, position))
        if node.is_unique:
            self._note_repetitions(kept, lists, place)
        return [row.content for row in kept]

    def _note_repetitions(
        self, kept: Sequence[_Value], lists: Sequence[Sequence[_Value]], place: str
    ) -> None:
        positions = {identity(row.content): position for position, row in enumerate(kept)}
        for row in (row for each in lists for row in each):
            position = positions.get(identity(row.content))
            if position is not None:
                self._note(self.moved, [row], json_values.pointer(place, position))

    def _note(
        self, where: dict[tuple[int, str], str], values: Sequence[_Value], place: str
    ) -> None:
        where.update({(value.part, value.path): place for value in values})

    def _followed(self, part: int, path: str) -> str | None:
        """Return where a value of a part stands in the merged data; `None` if it was dropped."""
        if (part, path) in self.joined:
            return self.joined[part, path]
        beginning, rest = path, ""
        while beginning and (part, beginning) not in self.moved:
            beginning, _, step = beginning.rpartition("/")
            rest = f"/{step}{rest}"
        place = self.moved.get((part, beginning))
        return None if place is None else f"{place}{rest}"


def _first_of_each(lists: Sequence[Sequence[_Value]]) -> list[list[_Value]]:
    """Return the lists without the values that came before, in the same list or another."""
    seen: set[str] = set()
    kept: list[list[_Value]] = []
    for rows in lists:
        kept.append([])
        for row in rows:
            if (own := identity(row.content)) not in seen:
                seen.add(own)
                kept[-1].append(row)
    return kept


def _exact(path: str, value: JsonValue) -> str | None:
    """Return a JSON Pointer in its usual form; `None` where it leads to no value inside."""
    exact = ""
    for name in json_values.steps(path):
        if isinstance(value, dict) and name in value:
            value, exact = value[name], json_values.pointer(exact, name)
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value, exact = value[int(name)], json_values.pointer(exact, int(name))
        else:
            return None
    return exact or None
