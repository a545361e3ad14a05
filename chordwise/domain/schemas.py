"""Building blocks for the JSON Schemas of answers: closed objects, every property required."""

from __future__ import annotations

import json
from collections.abc import Sequence

from chordwise.domain import tokens
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.memo import memoized_by_identity

CHECKS = "x-checks"
"""The member of a user's schema that declares checks between values; models do not see it."""
SELECTION = "x-selection"
"""The member of the schema of a list that declares it to hold only some records of a text."""
COUNT = "x-count"
"""The member of the schema of a list that makes the model state how many rows its text has."""


@memoized_by_identity
def as_text(schema: JsonObject) -> str:
    """Return a schema as JSON text, for prompts and for estimates of its size."""
    return json.dumps(schema, ensure_ascii=False)


@memoized_by_identity
def estimated_tokens(schema: JsonObject) -> int:
    """Return a conservative estimate of the number of tokens of a schema."""
    return tokens.estimate(as_text(schema))


def closed(properties: JsonObject) -> JsonObject:
    """Return an object schema that allows and requires exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def string(description: str = "") -> JsonObject:
    """Return the schema of a string."""
    return {"type": "string", "description": description} if description else {"type": "string"}


def optional(schema: JsonObject) -> JsonObject:
    """Return a schema that also allows null; for schemas with a single `type`."""
    nullable: JsonObject = {**schema, "type": [schema["type"], "null"]}
    choices = schema.get("enum")
    return nullable | {"enum": [*choices, None]} if isinstance(choices, list) else nullable


def array(items: JsonObject, *, at_least: int = 0, at_most: int | None = None) -> JsonObject:
    """Return the schema of a list with bounds on its length."""
    schema: JsonObject = {"type": "array", "items": items, "minItems": at_least}
    if at_most is not None:
        schema["maxItems"] = at_most
    return schema


def integer(minimum: int, maximum: int) -> JsonObject:
    """Return the schema of a whole number within bounds, both included."""
    return {"type": "integer", "minimum": minimum, "maximum": maximum}


def number(minimum: float, maximum: float) -> JsonObject:
    """Return the schema of a number within bounds, both included."""
    return {"type": "number", "minimum": minimum, "maximum": maximum}


def one_of(values: Sequence[str]) -> JsonObject:
    """Return the schema of a string that is one of `values`."""
    choices: list[JsonValue] = [str(value) for value in values]  # members of enums are no texts
    return {"type": "string", "enum": choices}


def quote() -> JsonObject:
    """Return the schema of a verbatim quotation."""
    return string("Copied word for word from the text.")
