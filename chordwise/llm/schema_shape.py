"""The size and the recursion of a JSON Schema, which some providers bound."""

from __future__ import annotations

from collections.abc import Mapping

from chordwise.domain.json_values import JsonObject, JsonValue, text, walk

REF_PREFIX = "#/$defs/"
MAX_PROPERTIES = 5_000
MAX_DEPTH = 10
MAX_ENUM_VALUES = 1_000


def within_limits(schema: JsonObject) -> bool:
    """Return whether the schema is as small as OpenAI's strict mode asks for."""
    pairs = list(walk(schema))
    names = [value for path, value in pairs if path.endswith("/properties")]
    enums = [value for path, value in pairs if path.endswith("/enum")]
    depth = max(path.count("/properties/") + path.count("/items") for path, _ in pairs)
    return (
        sum(len(value) for value in names if isinstance(value, dict)) <= MAX_PROPERTIES
        and sum(len(value) for value in enums if isinstance(value, list)) <= MAX_ENUM_VALUES
        and depth <= MAX_DEPTH
    )


def is_recursive(schema: JsonObject) -> bool:
    """Return whether a definition contains itself, directly or through others."""
    definitions = schema.get("$defs")
    if not isinstance(definitions, dict):
        return False
    uses = {name: _references(child) for name, child in definitions.items()}
    return any(name in _reachable(name, uses) for name in uses)


def _references(schema: JsonValue) -> set[str]:
    targets = {text(value) for path, value in walk(schema) if path.endswith("/$ref")}
    return {target.removeprefix(REF_PREFIX) for target in targets}


def _reachable(name: str, uses: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(uses.get(name, ()))
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting += uses.get(current, ())
    return found
