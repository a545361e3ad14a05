"""Looking into a provider's answer without trusting its types."""

from __future__ import annotations

from chordwise.domain.json_values import JsonObject

MOST_TOKENS = 1_000_000_000
"""No request has as many: whoever counts more has miscounted."""


def child(value: JsonObject, key: str) -> JsonObject:
    """Return the object under `key`; anything else counts as an empty one."""
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def count(value: JsonObject, key: str) -> int | None:
    """Return the token count under `key`, or `None` where there is no sensible one."""
    found = value.get(key)
    if not isinstance(found, int) or isinstance(found, bool):
        return None
    return found if 0 <= found <= MOST_TOKENS else None


def storable(text: str) -> str:
    """Return the text with each half of a broken surrogate pair replaced: UTF-8 has none."""
    return text.encode(errors="replace").decode()
