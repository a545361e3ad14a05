"""What JSON can hold of our values: nothing changes silently, and moments become ISO 8601."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePath

from chordwise.domain.json_values import JsonValue


def encoded(value: object) -> str:
    """Return a value as JSON text on one line."""
    return json.dumps(plain(value), ensure_ascii=False)


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
        case bytes():
            return f"\\x{value.hex()}"
        case _:
            return _composed(value)


def _composed(value: object) -> JsonValue:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value)]
        return {name: plain(getattr(value, name)) for name in fields}
    if isinstance(value, Mapping):
        return {str(name): plain(member) for name, member in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, PurePath):
        return [plain(member) for member in value]
    return str(value)


def _number(value: Decimal) -> JsonValue:
    """Return a JSON number unless that would change the value."""
    if not value.is_finite():
        return str(value)
    if value == value.to_integral_value():
        return int(value)
    return float(value) if Decimal(repr(float(value))) == value else str(value)
