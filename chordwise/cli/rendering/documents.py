"""Values as one JSON document: versioned, complete, and harmless on a terminal."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePath

from chordwise.cli.rendering.plain_text import escape_json
from chordwise.domain.json_values import JsonObject, JsonValue

SCHEMA_VERSION = 1


def document(**members: object) -> str:
    """Return one JSON document with these members, and a line end."""
    whole: JsonObject = {"schema_version": SCHEMA_VERSION}
    whole.update({name: plain(value) for name, value in members.items()})
    return f"{encoded(whole, indent=2)}\n"


def encoded(value: object, indent: int | None = None) -> str:
    """Return a value as JSON text that a terminal takes for nothing but text."""
    return escape_json(json.dumps(plain(value), ensure_ascii=False, indent=indent))


def plain(value: object) -> JsonValue:
    """Return what JSON can hold of a value: numbers stay numbers, moments become ISO 8601."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case Decimal():
            return _number(value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case _:
            return _composed(value)


def _composed(value: object) -> JsonValue:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value)]
        return {name: plain(getattr(value, name)) for name in fields}
    if isinstance(value, Mapping):
        return {str(name): plain(member) for name, member in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | PurePath):
        return [plain(member) for member in value]
    return str(value)


def _number(value: Decimal) -> JsonValue:
    """Return a JSON number unless that would change the value."""
    if not value.is_finite():
        return str(value)
    if value == value.to_integral_value():
        return int(value)
    return float(value) if Decimal(repr(float(value))) == value else str(value)
