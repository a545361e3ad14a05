"""Merging what the chunks say under a user's own schema; evidence follows its value."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypeAlias

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject, JsonValue

Step: TypeAlias = str | int


def merge_data(values: Sequence[JsonValue]) -> JsonValue:
    """Merge by shape: objects by member, lists joined, else the first that says something."""
    said = [value for value in values if value not in (None, "", [], {})]
    if not said:
        return values[0] if values else None
    if all(isinstance(value, dict) for value in said):
        members = [json_values.as_object(value) for value in said]
        names = dict.fromkeys(name for member in members for name in member)
        return {name: merge_data([m[name] for m in members if name in m]) for name in names}
    if all(isinstance(value, list) for value in said):
        kept: dict[str, JsonValue] = {}
        for item in (item for value in said if isinstance(value, list) for item in value):
            kept.setdefault(_identity(item), item)
        return list(kept.values())
    return said[0]


def merge_evidence(answers: Sequence[JsonObject], merged: JsonValue) -> list[JsonValue]:
    """Return the evidence of the values that the merged data kept, with the paths they have there.

    A path that leads nowhere in its own part's data stays as the model wrote it.
    """
    evidence: list[JsonValue] = []
    for answer in answers:
        for entry in json_values.objects(answer.get("evidence")):
            path = _followed(json_values.text(entry.get("path")), answer.get("data"), merged)
            if path is not None:
                evidence.append({**entry, "path": path})
    return evidence


def _followed(path: str, own: JsonValue, merged: JsonValue) -> str | None:
    """Return where the value at `path` in `own` stands in `merged`; `None` where it was dropped."""
    values = _values_along(path, own)
    if values is None:
        return path
    place = ""
    for name, value in values:
        step = _step_to(merged, name, value)
        if step is None:
            return None
        place = json_values.pointer(place, step)
        merged = _member(merged, step)
        own = value
    same = isinstance(own, dict | list) or _identity(own) == _identity(merged)
    return place if same else None


def _values_along(path: str, value: JsonValue) -> list[tuple[str, JsonValue]] | None:
    """Return each step of a JSON Pointer with the value that it leads to; `None` if it does not."""
    found: list[tuple[str, JsonValue]] = []
    for name in json_values.steps(path):
        step: Step = int(name) if isinstance(value, list) and name.isdecimal() else name
        if not _has(value, step):
            return None
        value = _member(value, step)
        found.append((name, value))
    return found or None


def _step_to(merged: JsonValue, name: str, value: JsonValue) -> Step | None:
    """Return the step in the merged data: the same member, or the place that the item moved to."""
    if isinstance(merged, list):
        wanted = _identity(value)
        return next((i for i, item in enumerate(merged) if _identity(item) == wanted), None)
    return name if _has(merged, name) else None


def _has(value: JsonValue, step: Step) -> bool:
    if isinstance(value, dict):
        return step in value
    return isinstance(value, list) and isinstance(step, int) and step < len(value)


def _member(value: JsonValue, step: Step) -> JsonValue:
    if isinstance(value, dict):
        return value[str(step)]
    return value[int(step)] if isinstance(value, list) else None


def _identity(value: JsonValue) -> str:
    """Return what two values share when they are the same JSON; `true` is not 1."""
    return json.dumps(value, sort_keys=True)
