"""A schema of 369 fields in five levels, its gold, and a model that fails beyond 60 fields."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from chordwise.domain import json_values
from chordwise.domain.grounding import without_spans
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.schema_nodes import SchemaNode
from chordwise.llm.model import CompletionRequest
from tests.fakes.scripted_model import Answer, cut_off

LIMIT = 60
CONTESTED, OTHER = "/mark_0", "V-9-9"
CONTRADICTION = "mark 0 has the code V-9-9."
FIELDS = 369
_LEVELS = (("part", 3, 0), ("head", 3, 2), ("item", 3, 3), ("line", 2, 2))
_CODE: JsonObject = {"type": ["string", "null"], "description": "A code such as V-12-1."}
_ROW = ("number", "payer", "account", "purpose", "due", "amount")


def _closed(properties: JsonObject) -> JsonObject:
    required: list[JsonValue] = [*properties]
    closed: JsonObject = {"required": required, "additionalProperties": False}
    return {"type": "object", "properties": properties, **closed}


def _level(depth: int) -> JsonObject:
    if depth == len(_LEVELS):
        return _closed({f"code_{number}": _CODE for number in range(4)})
    name, objects, codes = _LEVELS[depth]
    inner: JsonObject = {"$ref": f"#/$defs/{name}"}
    if name == "part":
        inner = {"anyOf": [inner, {"type": "null"}]}
    members: JsonObject = {f"code_{number}": _CODE for number in range(codes)}
    return _closed(members | {f"{name}_{number}": inner for number in range(objects)})


def _wide() -> JsonObject:
    root = _level(0)
    row = _closed({name: {"type": ["string", "null"]} for name in _ROW})
    codes: JsonObject = {f"mark_{number}": _CODE for number in range(60)}
    lists: JsonObject = {"payments": {"type": "array", "items": row}}
    definitions: JsonObject = {name: _level(n + 1) for n, (name, _, _) in enumerate(_LEVELS)}
    properties = codes | json_values.as_object(root["properties"]) | lists
    return {**_closed(properties), "$defs": definitions}


SCHEMA = _wide()


def _gold(node: SchemaNode, names: tuple[str, ...] = ()) -> JsonValue:
    if node.is_list:
        return [{name: f"P-{n}-{name}" for name in _ROW} for n in range(8)]
    if not node.properties:
        number = "-".join(name.rpartition("_")[2] for name in names)
        return None if names[-1].endswith("3") else f"V-{len(names)}-{number}"
    return {name: _gold(node.member(name), (*names, name)) for name in node.properties}


GOLD = json_values.as_object(_gold(SchemaNode.root_of(SCHEMA)))


def _sentence(path: str, value: JsonValue) -> str:
    return f"{' '.join(json_values.steps(path)).replace('_', ' ')} has the code {value}."


def text(separator: str = "\n\n") -> str:
    """Return a document that states all values: single values in sentences, rows in lines."""
    payments = json_values.objects(GOLD["payments"])
    rows = [" | ".join(json_values.texts(row).values()) for row in payments]
    codes = separator.join(_sentence(*pair) for pair in _codes())
    return "\n\n".join([codes, "\n".join(rows)])


def _codes() -> Iterator[tuple[str, JsonValue]]:
    for path, value in json_values.scalars(GOLD):
        if value is not None and not path.startswith("/payments"):
            yield path, value


def fields_of(request: CompletionRequest) -> int:
    """Return the number of fields for which a request asks."""
    schema = SchemaNode.root_of(request.schema).member("data")
    return sum(1 for _ in schema.leaves())


def replay(request: CompletionRequest) -> Answer:
    """Answer with the gold that the text states; beyond 60 fields, stop in the middle.

    Of the answers of chunks, the first that says anything is kept for each value.
    """
    evidence: list[JsonValue] = []
    node = SchemaNode.root_of(request.schema).member("data")
    data = _stated(GOLD, node, request.task.text, evidence)
    if parts := [json_values.as_object(without_spans(part)) for part in request.task.answers]:
        data = _first([part["data"] for part in parts])
        evidence = [entry for part in parts for entry in json_values.objects(part["evidence"])]
    answer = json.dumps({"data": data, "evidence": evidence})
    return cut_off(answer[: len(answer) // 2]) if fields_of(request) > LIMIT else answer


def _first(values: Sequence[JsonValue]) -> JsonValue:
    filled = [value for value in values if value is not None]
    if not filled or not isinstance(filled[0], dict):
        return filled[0] if filled else None
    objects = [value for value in filled if isinstance(value, dict)]
    return {name: _first([value.get(name) for value in objects]) for name in filled[0]}


def _stated(
    value: JsonValue, node: SchemaNode, text: str, evidence: list[JsonValue], path: str = ""
) -> JsonValue:
    if isinstance(value, dict):
        return {
            name: _stated(
                value[name], node.member(name), text, evidence, json_values.pointer(path, name)
            )
            for name in node.properties
        }
    if isinstance(value, list):
        lines = [" | ".join(json_values.texts(row).values()) for row in value]
        kept = [(row, line) for row, line in zip(value, lines, strict=True) if line in text]
        for position, (_, line) in enumerate(kept):
            entry = {"path": f"{path}/{position}", "quote": line, "confidence": 9}
            evidence.append(json_values.as_object(entry))
        return [row for row, _ in kept]
    others = [OTHER] if path == CONTESTED else []
    stated = (code for code in (value, *others) if code and _sentence(path, code) in text)
    if (value := next(stated, None)) is None:
        return None
    quote = _sentence(path, value)
    evidence.append({"path": path, "quote": quote, "confidence": 9})
    return value
