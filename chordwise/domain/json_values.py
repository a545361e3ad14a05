"""JSON as a type, and the few ways in which the domain looks into it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import cast

from typing_extensions import TypeAliasType

JsonValue = TypeAliasType(
    "JsonValue", "dict[str, JsonValue] | list[JsonValue] | str | int | float | bool | None"
)
JsonObject = TypeAliasType("JsonObject", dict[str, JsonValue])


def objects(value: JsonValue) -> list[JsonObject]:
    """Return the objects in a list; anything else counts as none."""
    if not isinstance(value, list):
        return []
    return [item for item in value if isinstance(item, dict)]


def strings(value: JsonValue) -> list[str]:
    """Return the strings in a list; anything else counts as none."""
    if not isinstance(value, list):
        return []
    return [item for item in value if isinstance(item, str)]


def texts(value: JsonValue) -> dict[str, str]:
    """Return the strings of an object by their names; anything else counts as none."""
    if not isinstance(value, dict):
        return {}
    return {name: item for name, item in value.items() if isinstance(item, str)}


def text(value: JsonValue) -> str:
    """Return a string as it is and anything else as the empty string."""
    return value if isinstance(value, str) else ""


def number(value: JsonValue) -> float | None:
    """Return a number as float; booleans and everything else are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def pointer(path: str, step: str | int) -> str:
    """Extend a JSON Pointer by one step (RFC 6901: `~` and `/` are escaped)."""
    escaped = str(step).replace("~", "~0").replace("/", "~1")
    return f"{path}/{escaped}"


def steps(path: str) -> list[str]:
    """Return the steps of a JSON Pointer; none for the root, and for what is not a pointer."""
    if not path.startswith("/"):
        return []
    return [step.replace("~1", "/").replace("~0", "~") for step in path[1:].split("/")]


def walk(value: JsonValue, path: str = "") -> Iterator[tuple[str, JsonValue]]:
    """Yield every value with its JSON Pointer, parents before children."""
    yield path, value
    if isinstance(value, dict):
        for key, child in value.items():
            yield from walk(child, pointer(path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from walk(child, pointer(path, index))


def is_storable(value: JsonValue) -> bool:
    """Tell whether PostgreSQL can store a value: no NaN or infinity, no NUL, no half characters."""
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False)
        written.encode()
    except ValueError:
        return False
    return "\\u0000" not in written


def as_object(value: object) -> JsonObject:
    """Treat a mapping that a parser made as a JSON object."""
    return cast("JsonObject", value)
