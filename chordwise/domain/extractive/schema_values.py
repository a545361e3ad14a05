"""Turning the words of a match into values of the types that a JSON Schema knows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from chordwise.domain import json_values
from chordwise.domain.extractive import iso_dates, words
from chordwise.domain.extractive.item_hints import Hint
from chordwise.domain.extractive.search import Match
from chordwise.domain.extractive.value_patterns import Kind, values
from chordwise.domain.json_values import JsonObject, JsonValue

_FORMAT_KINDS = {
    "date": Kind.DATE,
    "date-time": Kind.DATE,
    "email": Kind.EMAIL,
    "uri": Kind.URL,
    "phone": Kind.PHONE,
}
_NUMBER_KINDS = (Kind.MONEY, Kind.PERCENT, Kind.NUMBER)
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "bn": 10**9, "trillion": 10**12}
_NEGATION = re.compile(r"\b(?:not|no|never|neither|nor|without|none)\b|n['’]t\b", re.IGNORECASE)


def kind_of(schema: JsonObject) -> str:
    """Return the first type that a schema allows besides null; string where it names none."""
    named = schema.get("type")
    listed = json_values.strings(named) if isinstance(named, list) else [json_values.text(named)]
    real = [kind for kind in listed if kind not in ("null", "")]
    if real:
        return real[0]
    return "object" if "properties" in schema else "string"


def referred(root: JsonObject, reference: str) -> JsonObject:
    """Return the definition that a local reference points to; empty where there is none."""
    found: JsonValue = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if name and isinstance(found, dict) else found
    return found if isinstance(found, dict) else {}


def narrowed(wanted: Hint, schema: JsonObject) -> Hint:
    """Let the schema's own type and format decide which kind of value is searched for."""
    by_format = _FORMAT_KINDS.get(json_values.text(schema.get("format")))
    if by_format:
        return replace(wanted, kinds=(by_format,))
    if kind_of(schema) in ("number", "integer"):
        numeric = [kind for kind in wanted.kinds if kind in _NUMBER_KINDS]
        kinds = (*numeric, *(kind for kind in _NUMBER_KINDS if kind not in numeric))
        return replace(wanted, kinds=kinds)
    if kind_of(schema) == "boolean" or "enum" in schema:
        return replace(wanted, kinds=())
    return wanted


def as_list(wanted: Hint) -> Hint:
    """Ask for several values."""
    return replace(wanted, is_list=True)


def readings(match: Match, schema: JsonObject) -> Iterator[JsonValue]:
    """Yield what a match may mean under a schema, the likeliest first; each is yet to be checked.

    Dates become ISO 8601, numbers lose their separators; strings stay the text's own words.
    """
    kind = kind_of(schema)
    choices = schema.get("enum")
    if isinstance(choices, list):
        yield from (choice for choice in choices if _mentions(match.quote, choice))
    elif kind == "boolean":
        yield not _NEGATION.search(match.quote)
    elif kind in ("number", "integer"):
        yield from _numbers(match.value, kind)
    else:
        yield from _strings(match, json_values.text(schema.get("format")))


def empties(schema: JsonObject) -> tuple[JsonValue, ...]:
    """Return the values of a schema that claim nothing."""
    return ("",) if kind_of(schema) == "string" else ()


def _mentions(quote: str, choice: JsonValue) -> bool:
    wanted = words.terms(json_values.text(choice).replace("_", " "))
    return bool(wanted) and set(wanted).issubset(words.terms(quote))


def _numbers(value: str, kind: str) -> Iterator[JsonValue]:
    for match in _NUMBER.finditer(value):
        following = value[match.end() :].split(maxsplit=1)
        scale = _SCALES.get(following[0].lower().strip(".,") if following else "", 1)
        amount = float(match.group().replace(",", "")) * scale
        is_whole = amount.is_integer() and ("." not in match.group() or kind == "integer")
        yield int(amount) if is_whole else amount


def _strings(match: Match, wanted_format: str) -> Iterator[JsonValue]:
    if wanted_format == "date":
        for text in (match.value, match.quote):
            for date in values(Kind.DATE, text):
                yield iso_dates.iso_date(date.text)
    yield match.value
