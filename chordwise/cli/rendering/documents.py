"""Values as one JSON document: versioned, complete, and harmless on a terminal."""

from __future__ import annotations

import json

from chordwise.cli.rendering.plain_text import escape_json
from chordwise.domain.json_forms import plain
from chordwise.domain.json_values import JsonObject

SCHEMA_VERSION = 1


def document(**members: object) -> str:
    """Return one JSON document with these members, and a line end."""
    whole: JsonObject = {"schema_version": SCHEMA_VERSION}
    whole.update({name: plain(value) for name, value in members.items()})
    return f"{encoded(whole, indent=2)}\n"


def encoded(value: object, indent: int | None = None) -> str:
    """Return a value as JSON text that a terminal takes for nothing but text."""
    return escape_json(json.dumps(plain(value), ensure_ascii=False, indent=indent))
