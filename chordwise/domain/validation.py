"""Parsing of completions into answers, and description of their errors."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import SupportsIndex, cast

import json_repair
import jsonschema_rs

from chordwise.domain import checks, json_values, schemas
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.memo import memoized_by_identity
from chordwise.domain.schema_nodes import SchemaNode
from chordwise.errors import InvalidAnswerError, UsageError

MAX_PROBLEMS = 5
MAX_SCHEMA_CHARACTERS = 100_000
MAX_VALUES = 10_000
"""The maximum number of values in a schema; references can repeat each of them many times."""
MAX_LEVELS = 64
"""The maximum nesting of an answer or a schema; PostgreSQL and the parsers have limits, too."""

_FENCE = "```"
_THINKING = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# An unclosed string matches once, up to its end, and not again from each quotation mark in it.
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+("?)', re.DOTALL)
_ELLIPSIS = re.compile(r"\.\.\.|…")
_COUNT = f"/{schemas.COUNT}"
_IN_LIST = re.compile(r"(?<!/properties)/items/")
_COUNT_HINT = (
    f'Put "{schemas.COUNT}": true beside "type": "array"; the list may be in objects, has no '
    "uniqueItems, and has no fixed length."
)
_PHONE = re.compile(r"\+?[0-9(][0-9 ()./-]{4,}[0-9]")
_MODELS_OWN_WORDS = {
    "additionalProperties": "members that are not in the schema are not allowed",
    "propertyNames": "a member has a name that is not allowed",
    "unevaluatedProperties": "members that are not in the schema are not allowed",
}
"""Replacements of messages that would repeat names made up by a model, or by a document."""
_LONGEST_STEP = 60
_PATTERN = re.compile(r"/pattern(?:Properties/[^/]*+)?\Z")
"""The JSON Pointer of a regular expression in a schema."""
_MAX_PATTERN_BYTES = 10_000_000
_MAX_PATTERNS_BYTES = 100_000_000
"""The memory of a compiled regular expression, and of all those of a schema together."""
MAX_PATH_CHARACTERS = 500
"""The limit for the names on the way to a value, which `facts.item` and its index contain."""
_MAX_LOOKS = 2_000_000
"""The maximum number of character accesses of the lenient parser.

A regular answer needs about two for each of its characters.
"""


class _RepeatedMemberError(ValueError):
    """An object has two different values for a name; only used within this module."""


class _Bounded(str):
    """A string with a limited number of reads: the lenient parser can take quadratic time."""

    __slots__ = ("_looks",)

    def __init__(self, _text: str) -> None:
        self._looks = 0

    def __getitem__(self, key: object) -> str:
        self._looks += 1
        if self._looks > _MAX_LOOKS:
            raise InvalidAnswerError("The answer is not JSON.")
        return super().__getitem__(cast("SupportsIndex", key))  # or a slice


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedAnswer:
    """The JSON object in a completion; `repaired` if the text itself was not valid JSON."""

    answer: JsonObject
    repaired: bool


def parse(text: str, *, lenient: bool = True) -> ParsedAnswer:
    """Parse the JSON object of a completion; `lenient` permits one that is not valid JSON.

    A Markdown fence with the text around it, or a leading thinking block, is removed. A text that
    does not end with a brace is rejected, since it may end in a truncated value.

    Raises:
        InvalidAnswerError: There is no JSON object with finite numbers and short names in it.
    """
    answer, repaired = _load(_without_fence(_THINKING.sub("", text).strip()), lenient=lenient)
    if not isinstance(answer, dict) or not answer:
        is_empty = answer == {} and not repaired
        what = "an empty JSON object" if is_empty else "not a JSON object"
        raise InvalidAnswerError(f"The answer is {what}.")
    if not _is_shallow(answer, MAX_LEVELS):
        raise InvalidAnswerError(f"The answer is nested deeper than {MAX_LEVELS} levels.")
    for path, item in json_values.walk(answer):
        if isinstance(item, int | float) and not json_values.fits_float(item):
            raise InvalidAnswerError("The answer contains a number that is not finite.")
        if len(path) > MAX_PATH_CHARACTERS:
            what = f"The names of nested members have more than {MAX_PATH_CHARACTERS} characters."
            raise InvalidAnswerError(what)
    return ParsedAnswer(answer=json_values.as_object(_storable(answer)), repaired=repaired)


def _without_fence(text: str) -> str:
    before, opened, rest = text.partition(_FENCE)
    _, line_end, body = rest.partition("\n")
    body, closed, after = body.rpartition(_FENCE)
    is_alone = opened and line_end and closed and "{" not in before + after
    return body.strip() if is_alone else text


def _load(text: str, *, lenient: bool) -> tuple[JsonValue, bool]:
    try:
        return json.loads(text, object_pairs_hook=_object), False
    except _RepeatedMemberError as error:
        raise InvalidAnswerError("The answer has a member twice, with different values.") from error
    except (ValueError, RecursionError):
        pass
    if not lenient or not text.endswith("}"):
        raise InvalidAnswerError("The answer is not JSON, or is incomplete.")
    if _ELLIPSIS.search(
        _STRING.sub(lambda match: "" if match[1] else match[0], text[text.find("{") :])
    ):
        raise InvalidAnswerError("The answer omits values with an ellipsis; write all of them.")
    try:
        return json_repair.loads(_Bounded(text), skip_json_loads=True, strict=True), True  # type: ignore[return-value]  # its JSON types equal `JsonValue`
    except (ValueError, RecursionError) as error:
        raise InvalidAnswerError("The answer is not JSON.") from error


def _object(members: list[tuple[str, JsonValue]]) -> JsonObject:
    """Refuse a name that occurs twice with different values, one of which would be lost."""
    by_name = dict(members)
    if len(by_name) < len(members) and any(by_name[name] != value for name, value in members):
        raise _RepeatedMemberError
    return by_name


def _storable(value: JsonValue) -> JsonValue:
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {_UNSTORABLE.sub("\ufffd", key): _storable(item) for key, item in value.items()}
    return value


def _is_shallow(value: JsonValue, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    children = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_shallow(child, levels - 1) for child in children)


def problems(answer: JsonObject, schema: JsonObject) -> list[str]:
    """Return the first few violations of the schema, each with its JSON Pointer.

    They never repeat the answer: the texts become part of the next prompt, outside the marks.
    """
    errors = _validator_of(schema).iter_errors(answer)
    return [_problem(error) for error in itertools.islice(errors, MAX_PROBLEMS)]


def _problem(error: jsonschema_rs.ValidationError) -> str:
    place = ""
    for step in error.instance_path:
        place = json_values.pointer(place, str(step)[:_LONGEST_STEP])
    said = _MODELS_OWN_WORDS.get(error.kind.name, error.message[:200])
    return f"{place}: {said}" if place else said


def unwrapped(schema: JsonValue) -> JsonValue:
    """Return the JSON Schema inside of `{"name": …, "schema": {…}}` and the like, or itself."""
    for wrapper in ("json_schema", "schema"):
        if isinstance(schema, dict) and "properties" not in schema:
            inner = schema.get(wrapper)
            schema = inner if isinstance(inner, dict) else schema
    return schema


def check_schema(schema: JsonValue) -> JsonObject:
    """Validate the JSON Schema of a user for an extraction, and return it `unwrapped`.

    Raises:
        UsageError: The schema does not describe an object, is invalid or too large, has an external
            reference or too large a pattern, or declares an invalid check.
    """
    schema = unwrapped(schema)
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise UsageError(
            "The schema does not describe an object.", 'Its root needs "type": "object".'
        )
    _require_limits(schema)
    for path, value in json_values.walk(schema):
        # A property may be named $ref; its schema is not a reference.
        is_reference = path.endswith("/$ref") and isinstance(value, str)
        if is_reference and not json_values.text(value).startswith(("#/$defs/", "#/definitions/")):
            raise UsageError(
                f"The schema refers to something outside its definitions at {path}.",
                "Put the definition into $defs and refer to it with #/$defs/….",
            )
    try:
        _validator(json.dumps(schema, sort_keys=True), mask=None)
    except (ValueError, jsonschema_rs.ValidationError) as error:
        reason = str(error).partition("\n")[0][:300]
        raise UsageError(f"The schema is not valid: {reason}") from error
    checks.check_declarations(schema)
    _check_counts(schema)
    return schema


def _check_counts(schema: JsonObject) -> None:
    """Check that `x-count` is only on lists that are outside of other lists."""
    is_inside = False
    for path, value in json_values.walk(schema):
        if path.endswith(_COUNT) and not path.endswith(f"/properties{_COUNT}"):
            if not isinstance(value, bool):
                raise UsageError(f"{schemas.COUNT} is not true or false at {path}.", _COUNT_HINT)
            member = SchemaNode(schema, (json_values.at(schema, path.removesuffix(_COUNT)),))
            if value and (not member.is_list or member.is_unique):
                what = f"{schemas.COUNT} is not on a list of rows that may repeat, at {path}."
                raise UsageError(what, _COUNT_HINT)
            is_inside = is_inside or (value and _IN_LIST.search(path) is not None)
    root = SchemaNode.root_of(schema)
    counted = sum(node.is_counted for node in root.nodes())
    if is_inside or counted > len(list(root.counted_lists())):
        raise UsageError(f"{schemas.COUNT} is on a list inside of another list.", _COUNT_HINT)


def _require_limits(schema: JsonObject) -> None:
    """Check the size of a schema, also after its references are replaced by what they refer to."""
    if not _is_shallow(schema, MAX_LEVELS):
        raise UsageError(f"The schema is nested deeper than {MAX_LEVELS} levels.")
    numbers = (item for _, item in json_values.walk(schema) if isinstance(item, int | float))
    is_finite = all(map(json_values.fits_float, numbers))
    if _storable(schema) != schema or not is_finite:
        what = "The schema contains a NUL, an unpaired surrogate or a number that is too large."
        raise UsageError(what, "Look for \\u0000.")
    if len(json.dumps(schema)) > MAX_SCHEMA_CHARACTERS:
        raise UsageError(f"The schema is longer than {MAX_SCHEMA_CHARACTERS:,} characters.")
    if any(itertools.islice(SchemaNode.root_of(schema).nodes(), MAX_VALUES, None)):
        raise UsageError(
            f"The schema describes more than {MAX_VALUES:,} values, as references repeat them.",
            "Remove references between definitions.",
        )


@memoized_by_identity
def _validator_of(schema: JsonObject) -> jsonschema_rs.Validator:
    return _validator(json.dumps(schema, sort_keys=True))


@lru_cache(maxsize=64)
def _validator(schema: str, mask: str | None = "the value") -> jsonschema_rs.Validator:
    """Compile a schema without access to files or network; `mask` replaces values in messages."""
    patterns = sum(1 for path, _ in json_values.walk(json.loads(schema)) if _PATTERN.search(path))
    limit = min(_MAX_PATTERN_BYTES, _MAX_PATTERNS_BYTES // max(1, patterns))
    return jsonschema_rs.validator_for(
        schema,
        formats={"phone": lambda value: bool(_PHONE.fullmatch(value))},
        validate_formats=True,
        mask=mask,
        offline=True,
        pattern_options=jsonschema_rs.FancyRegexOptions(size_limit=limit, dfa_size_limit=limit),
    )
