"""Turning a completion's text into an answer, and telling in words what is wrong with it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import lru_cache

import json_repair
import jsonschema_rs

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.errors import InvalidAnswerError, UsageError

MAX_PROBLEMS = 5
MAX_SCHEMA_CHARACTERS = 100_000
_OWN_REFERENCES = ("#/$defs/", "#/definitions/")
_FENCE = re.compile(r"^\s*```[a-zA-Z]*\s*\n(.*)\n\s*```\s*$", re.DOTALL)
_THINKING = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_PHONE = re.compile(r"^\+?[0-9(][0-9 ()./-]{4,}[0-9]$")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedAnswer:
    """The JSON object in a completion; `repaired` when the text alone was not valid JSON."""

    answer: JsonObject
    repaired: bool


def parse(text: str) -> ParsedAnswer:
    """Read the JSON object of a completion that ended cleanly.

    A Markdown fence or a leading block of thoughts is taken off; what then still is not JSON goes
    through a lenient parser once, and is marked.

    Raises:
        InvalidAnswerError: There is no JSON object with finite numbers in it.
    """
    bare = _THINKING.sub("", text)
    if fenced := _FENCE.match(bare):
        bare = fenced.group(1)
    answer, repaired = _load(bare)
    if not isinstance(answer, dict) or not answer:
        raise InvalidAnswerError("The answer is not a JSON object.")
    if not _is_finite(answer):
        raise InvalidAnswerError("The answer holds a number that is not finite.")
    return ParsedAnswer(answer=json_values.as_object(_storable(answer)), repaired=repaired)


def _load(text: str) -> tuple[JsonValue, bool]:
    try:
        return json.loads(text), False
    except (ValueError, RecursionError):
        pass
    try:
        return json_repair.loads(text, skip_json_loads=True, strict=True), True  # type: ignore[return-value]  # its JSON types are ours under another name
    except (ValueError, RecursionError) as error:
        raise InvalidAnswerError("The answer is not JSON.") from error


def _storable(value: JsonValue) -> JsonValue:
    """Replace what PostgreSQL cannot hold: NUL and lone surrogates."""
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {_UNSTORABLE.sub("\ufffd", key): _storable(item) for key, item in value.items()}
    return value


def _is_finite(value: JsonValue) -> bool:
    numbers = (item for _, item in json_values.walk(value) if isinstance(item, float))
    return all(math.isfinite(item) for item in numbers)


def problems(answer: JsonObject, schema: JsonObject) -> list[str]:
    """Return the first few violations of the schema, each with its JSON Pointer."""
    found = []
    for error in _validator(json.dumps(schema, sort_keys=True)).iter_errors(answer):
        place = "".join(f"/{step}" for step in error.instance_path) or "/"
        found.append(f"{place}: {error.message[:200]}")
        if len(found) == MAX_PROBLEMS:
            break
    return found


def check_schema(schema: JsonValue) -> JsonObject:
    """Accept a user's JSON Schema for an extraction, or say what is wrong with it.

    Raises:
        UsageError: Not a schema of an object, not valid, too large, or it refers elsewhere.
    """
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise UsageError(
            "The schema does not describe an object.", 'Its root needs "type": "object".'
        )
    if len(json.dumps(schema)) > MAX_SCHEMA_CHARACTERS:
        raise UsageError(f"The schema is longer than {MAX_SCHEMA_CHARACTERS:,} characters.")
    for path, value in json_values.walk(schema):
        if path.endswith("/$ref") and not json_values.text(value).startswith(_OWN_REFERENCES):
            raise UsageError(
                f"The schema refers to something outside its definitions at {path}.",
                "Put the definition into $defs and refer to it with #/$defs/….",
            )
    try:
        _validator(json.dumps(schema, sort_keys=True))
    except (ValueError, jsonschema_rs.ValidationError) as error:
        raise UsageError(f"The schema is not valid: {str(error)[:300]}") from error
    return schema


@lru_cache(maxsize=64)
def _validator(schema: str) -> jsonschema_rs.Validator:
    """Compile a schema without any access to files or the network."""
    return jsonschema_rs.validator_for(
        schema, formats={"phone": _is_phone}, validate_formats=True, offline=True
    )


def _is_phone(value: str) -> bool:
    return bool(_PHONE.match(value))
