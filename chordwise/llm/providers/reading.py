"""Looking into a provider's answer without trusting its types."""

from __future__ import annotations

from chordwise.domain.json_values import JsonObject


def child(value: JsonObject, key: str) -> JsonObject:
    """Return the object under `key`; anything else counts as an empty one."""
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def count(value: JsonObject, key: str) -> int | None:
    """Return the token count under `key`, or `None` where there is no sensible one."""
    found = value.get(key)
    sensible = isinstance(found, int) and not isinstance(found, bool) and found >= 0
    return found if sensible and isinstance(found, int) else None


def storable(text: str) -> str:
    """Return the text with each half of a broken surrogate pair replaced: UTF-8 has none."""
    return text.encode(errors="replace").decode()
