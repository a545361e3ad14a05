"""JSON as a type, access to JSON values, and conversion of values to JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import cast

from typing_extensions import TypeAliasType

JsonValue = TypeAliasType(
    "JsonValue", "dict[str, JsonValue] | list[JsonValue] | str | int | float | bool | None"
)
JsonObject = TypeAliasType("JsonObject", dict[str, JsonValue])
# Python converts no text with thousands of digits to a number.
_MAX_DIGITS = 18
USER_DATA = "data"
"""The member of an answer that follows the schema of the user."""


def objects(value: JsonValue) -> list[JsonObject]:
    """Return the objects in a list; empty for any other value."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def strings(value: JsonValue) -> list[str]:
    """Return the strings in a list; empty for any other value."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def listed(value: JsonValue) -> list[JsonValue]:
    """Return a list unchanged, and any other value as its only element."""
    return value if isinstance(value, list) else [value]


def texts(value: JsonValue) -> dict[str, str]:
    """Return the string members of an object; empty for any other value."""
    members = value.items() if isinstance(value, dict) else ()
    return {name: item for name, item in members if isinstance(item, str)}


def text(value: JsonValue) -> str:
    """Return a string unchanged, and the empty string for any other value."""
    return value if isinstance(value, str) else ""


def number(value: JsonValue) -> float | None:
    """Return a finite number as float; `None` for booleans and any other value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if fits_float(value) else None


def integer(value: JsonValue) -> int | None:
    """Return an integer; `None` for booleans and any other value."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def fits_float(number: float) -> bool:
    """Return whether a number, which may be an integer of any size, is a finite float."""
    return abs(number) <= sys.float_info.max


def pointer(path: str, step: str | int) -> str:
    """Extend a JSON Pointer by one step (RFC 6901: `~` and `/` are escaped)."""
    return f"{path}/{str(step).replace('~', '~0').replace('/', '~1')}"


def steps(path: str) -> list[str]:
    """Return the steps of a JSON Pointer; empty for the root and for an invalid pointer."""
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


def scalars(value: JsonValue) -> Iterator[tuple[str, JsonValue]]:
    """Yield every value except objects and lists, with its JSON Pointer; null is one."""
    return (pair for pair in walk(value) if not isinstance(pair[1], dict | list))


def upward(path: str) -> Iterator[str]:
    """Yield a JSON Pointer and those of the enclosing objects and lists, without the root."""
    while path:
        yield path
        path = path.rpartition("/")[0]


def is_within(path: str, outer: str) -> bool:
    """Return whether a JSON Pointer equals another one, or leads to a value inside of it."""
    return f"{path}/".startswith(f"{outer}/")


def member(value: JsonValue, step: str) -> JsonValue:
    """Return the member of an object or the element of a list; `None` if there is none."""
    if isinstance(value, dict):
        return value.get(step)
    if isinstance(value, list) and is_position(step, value):
        return value[int(step)]
    return None


def is_position(step: str, values: list[JsonValue]) -> bool:
    """Return whether a step of a JSON Pointer, which a model may have written, names an element."""
    return step.isdecimal() and len(step) <= _MAX_DIGITS and int(step) < len(values)


def at(value: JsonValue, path: str) -> JsonValue:
    """Return the value at a JSON Pointer; `None` if there is none."""
    for step in steps(path):
        value = member(value, step)
    return value


def is_filled(value: JsonValue) -> bool:
    """Return whether a value is not empty: null, `""`, `[]` and `{}` are empty."""
    return value not in (None, "", [], {})


def with_findings(answer: JsonObject, changed: Callable[[JsonObject], JsonObject]) -> JsonObject:
    """Return an answer with `changed` applied to every object with a member `quote`, inner first.

    The value under `data` follows the schema of the user and is not changed.
    """
    return as_object(_with_findings(answer, changed))


def _with_findings(value: JsonValue, changed: Callable[[JsonObject], JsonObject]) -> JsonValue:
    if isinstance(value, list):
        return [_with_findings(item, changed) for item in value]
    if not isinstance(value, dict):
        return value
    members: JsonObject = {
        name: item if name == USER_DATA else _with_findings(item, changed)
        for name, item in value.items()
    }
    return changed(members) if "quote" in members else members


def findings(value: JsonValue) -> Iterator[JsonObject]:
    """Yield the objects that `with_findings` changes, in the same order."""
    if isinstance(value, list):
        for item in value:
            yield from findings(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name != USER_DATA:
                yield from findings(item)
        if "quote" in value:
            yield value


def span_of(finding: JsonObject) -> tuple[int, int] | None:
    """Return the span of a grounded quote, or `None`."""
    start, end = integer(finding.get("start_char")), integer(finding.get("end_char"))
    return None if start is None or end is None else (start, end)


def is_storable(value: JsonValue) -> bool:
    """Return whether PostgreSQL can store a value: no NaN, infinity, NUL or lone surrogate."""
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False)
        written.encode()
    except ValueError:
        return False
    return "\\u0000" not in written


def as_object(value: object) -> JsonObject:
    """Cast a parsed mapping to a JSON object."""
    return cast("JsonObject", value)


def encoded(value: object) -> str:
    """Return a value as JSON text on one line."""
    return json.dumps(as_json(value), ensure_ascii=False)


def as_json(value: object) -> JsonValue:
    """Return the JSON form of a value: numbers stay numbers, dates and times become ISO 8601."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case Decimal():
            return _decimal(value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case bytes():
            return f"\\x{value.hex()}"
        case _:
            return _composed(value)


def _composed(value: object) -> JsonValue:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = (field.name for field in dataclasses.fields(value))
        return {name: as_json(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(name): as_json(member) for name, member in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, PurePath):
        return [as_json(member) for member in value]
    return str(value)


def _decimal(value: Decimal) -> JsonValue:
    if not value.is_finite():
        return str(value)
    if value == value.to_integral_value():
        return int(value)
    return float(value) if Decimal(repr(float(value))) == value else str(value)


_LARGEST_WHOLE = 1e15


def text_of(value: JsonValue) -> str | None:
    """Return a scalar as text; a number keeps all of its digits: 1234567, not 1.23457e+06."""
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        whole = abs(value) < _LARGEST_WHOLE and value == int(value)
        return str(int(value) if whole else value)
    return None
