"""Translation of a JSON Schema to the dialect of each provider's structured output.

Providers accept subsets and reject anything else with a 400. A translation may loosen a schema,
because every answer is validated against the original again. It never narrows a schema so that the
model would have to invent data; such a schema has no translation.

Sources: OpenAI's guide “Structured outputs”, the schema transformation in Anthropic's SDK, and
llama.cpp's grammar converter.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from chordwise.domain.json_values import JsonObject, JsonValue, objects, strings, text, walk
from chordwise.domain.memo import memoized_by_identity

# llama.cpp unrolls repetitions into its grammar and fails at 2,000.
MAX_REPETITIONS = 1_000
_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
)
_BOUNDS = frozenset(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "maxItems"}
)
# Keywords that a dialect lacks go into the description, where the model may follow them.
_SPEAKABLE = _BOUNDS | {
    "pattern", "format", "minItems", "minLength", "maxLength", "uniqueItems", "minProperties",
    "maxProperties",
}  # fmt: skip
# These open an object or make one part of an answer depend on another.
_UNTRANSLATABLE = frozenset(
    {
        "patternProperties", "propertyNames", "unevaluatedProperties", "unevaluatedItems",
        "dependentSchemas", "dependentRequired", "dependencies", "prefixItems", "additionalItems",
        "contains", "if", "then", "else", "not", "definitions", "$dynamicRef", "$recursiveRef",
    }
)  # fmt: skip


_TYPES = {type(None): "null", bool: "boolean", str: "string", int: "integer"}


class _UntranslatableError(ValueError):
    """The dialect cannot express the schema; never leaves this module."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dialect:
    """The part of JSON Schema that a provider accepts.

    `keywords` are the supported constraints. With `optional_properties`, an object's property may
    be missing; with `type_lists`, a type may be a list, otherwise it becomes an `anyOf`.
    """

    keywords: frozenset[str]
    formats: frozenset[str]
    optional_properties: bool
    type_lists: bool


_OPENAI = _Dialect(
    keywords=_BOUNDS | {"pattern", "minItems"},
    formats=_FORMATS,
    optional_properties=False,
    type_lists=True,
)
_ANTHROPIC = _Dialect(
    keywords=frozenset(),
    formats=_FORMATS | {"uri"},
    optional_properties=True,
    type_lists=False,
)


@memoized_by_identity
def for_openai_strict(schema: JsonObject) -> JsonObject | None:
    """Return the schema for `strict: true`, or `None` where it has no strict form."""
    translated = _translated(schema, _OPENAI)
    return translated if translated is not None and within_limits(translated) else None


@memoized_by_identity
def for_anthropic(schema: JsonObject) -> JsonObject | None:
    """Return the schema for `output_config.format`, or `None` if it cannot be expressed there."""
    translated = _translated(schema, _ANTHROPIC)
    return None if translated is None or is_recursive(translated) else translated


@memoized_by_identity
def for_llama_cpp(schema: JsonObject) -> JsonObject:
    """Return the schema without the constraints for which llama.cpp rejects a schema."""
    return {
        key: _for_llama_cpp(value)
        for key, value in schema.items()
        if not _refused_by_llama_cpp(key, value)
    }


def as_instruction(schema: JsonObject) -> str:
    """Return the schema as sentences for the prompt, for servers that do not enforce it."""
    compact = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    return (
        "Answer with JSON only, without any text or code fence around it. "
        f"The JSON must be valid against this JSON Schema:\n{compact}"
    )


def _translated(schema: JsonObject, dialect: _Dialect) -> JsonObject | None:
    if schema.get("type") != "object":
        return None
    try:
        return _schema(schema, dialect)
    except (_UntranslatableError, RecursionError):
        return None


def _schema(value: JsonValue, dialect: _Dialect) -> JsonObject:
    source = _simplified(value)
    if "$ref" in source:
        return _reference(source)
    result = {key: source[key] for key in ("title", "description") if text(source.get(key))}
    if "$defs" in source:
        result["$defs"] = _mapped(source["$defs"], dialect)
    if "enum" in source or "const" in source:
        return result | _literals(source, dialect)
    if "anyOf" in source:
        result["anyOf"] = [_schema(option, dialect) for option in _options(source["anyOf"])]
        return result
    types = _types(source)
    if len(types) > 1 and not dialect.type_lists:
        single = [{**source, "type": name, "description": ""} for name in types]
        return result | {"anyOf": [_schema(option, dialect) for option in single]}
    result["type"] = source["type"]
    if "object" in types:
        result |= _object(source, dialect)
    if "array" in types:
        result["items"] = _schema(source.get("items"), dialect)
    return _constrained(result, source, dialect)


def _simplified(value: JsonValue) -> JsonObject:
    """Return the schema with `oneOf` as `anyOf` and an `allOf` of one part merged."""
    if not isinstance(value, dict) or _UNTRANSLATABLE & value.keys():
        raise _UntranslatableError
    source = dict(value)
    if "allOf" in source:
        parts = objects(source.pop("allOf"))
        if len(parts) != 1 or parts[0].keys() & source.keys() - {"title", "description"}:
            raise _UntranslatableError
        return _simplified(parts[0] | source)
    if "oneOf" in source:
        if "anyOf" in source:
            raise _UntranslatableError
        source["anyOf"] = source.pop("oneOf")
    return source


def _reference(source: JsonObject) -> JsonObject:
    """Return the bare reference, as both providers reject keywords beside it."""
    target = text(source["$ref"])
    constrains = {"type", "properties", "enum", "const", "anyOf", "items"} | _SPEAKABLE
    if not target.startswith(REF_PREFIX) or constrains & source.keys():
        raise _UntranslatableError
    return {"$ref": target}


def _mapped(value: JsonValue, dialect: _Dialect) -> JsonObject:
    if not isinstance(value, dict):
        raise _UntranslatableError
    return {name: _schema(child, dialect) for name, child in value.items()}


def _options(value: JsonValue) -> list[JsonValue]:
    if not isinstance(value, list) or not value:
        raise _UntranslatableError
    return value


def _literals(source: JsonObject, dialect: _Dialect) -> JsonObject:
    values = _options(source["enum"]) if "enum" in source else [source["const"]]
    if any(isinstance(value, dict | list) for value in values):
        raise _UntranslatableError
    # Anthropic requires bare literals, OpenAI requires a type beside them.
    names = list(dict.fromkeys(_TYPES.get(type(value), "number") for value in values))
    kind: JsonObject = {"type": names[0] if len(names) == 1 else [*names]}
    return (kind if dialect.type_lists else {}) | {"enum": values}


def _types(source: JsonObject) -> list[str]:
    kind = source.get("type")
    types = [kind] if isinstance(kind, str) else strings(kind)
    if not types:
        raise _UntranslatableError
    return types


def _object(source: JsonObject, dialect: _Dialect) -> JsonObject:
    if not source.get("properties") or source.get("additionalProperties", False) is not False:
        raise _UntranslatableError
    properties = _mapped(source["properties"], dialect)
    required = set(strings(source.get("required")))
    if required - properties.keys():
        raise _UntranslatableError
    if not dialect.optional_properties:
        required |= {name for name, child in properties.items() if _accepts_null(child)}
        if required != properties.keys():
            raise _UntranslatableError
    names: list[JsonValue] = [name for name in properties if name in required]
    return {"properties": properties, "required": names, "additionalProperties": False}


def _accepts_null(schema: JsonValue) -> bool:
    if not isinstance(schema, dict):
        return False
    types = schema.get("type")
    if types == "null" or (isinstance(types, list) and "null" in types):
        return True
    return any(_accepts_null(option) for option in objects(schema.get("anyOf")))


def _constrained(result: JsonObject, source: JsonObject, dialect: _Dialect) -> JsonObject:
    """Keep the constraints that the dialect supports and put the others into the description."""
    spoken: list[str] = []
    for key in sorted(_SPEAKABLE & source.keys()):
        if _is_supported(key, source[key], dialect):
            result[key] = source[key]
        else:
            spoken.append(f"{key}: {json.dumps(source[key], ensure_ascii=False)}")
    if spoken and source["type"] != "null":
        described = text(result.get("description"))
        result["description"] = f"{described} ({'; '.join(spoken)})".strip()
    return result


def _is_supported(key: str, value: JsonValue, dialect: _Dialect) -> bool:
    if key == "format":
        return value in dialect.formats
    if key == "minItems" and value in (0, 1):
        return True
    # Providers' regular expressions do not support look-around.
    return key in dialect.keywords and not (key == "pattern" and "(?" in text(value))


def _for_llama_cpp(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return for_llama_cpp(value)
    return [_for_llama_cpp(item) for item in value] if isinstance(value, list) else value


def _refused_by_llama_cpp(key: str, value: JsonValue) -> bool:
    if key in {"minLength", "maxLength", "minItems", "maxItems"}:
        return isinstance(value, int) and value > MAX_REPETITIONS
    return key == "pattern" and "(?" in text(value)


REF_PREFIX = "#/$defs/"
MAX_PROPERTIES = 5_000
MAX_DEPTH = 10
MAX_ENUM_VALUES = 1_000


def within_limits(schema: JsonObject) -> bool:
    """Return whether the schema is within the size limits of OpenAI's strict mode."""
    pairs = list(walk(schema))
    names = [value for path, value in pairs if path.endswith("/properties")]
    enums = [value for path, value in pairs if path.endswith("/enum")]
    depth = max(path.count("/properties/") + path.count("/items") for path, _ in pairs)
    return (
        sum(len(value) for value in names if isinstance(value, dict)) <= MAX_PROPERTIES
        and sum(len(value) for value in enums if isinstance(value, list)) <= MAX_ENUM_VALUES
        and depth <= MAX_DEPTH
    )


def is_recursive(schema: JsonObject) -> bool:
    """Return whether a definition contains itself, directly or through others."""
    definitions = schema.get("$defs")
    if not isinstance(definitions, dict):
        return False
    uses = {name: _references(child) for name, child in definitions.items()}
    try:
        TopologicalSorter(uses).prepare()
    except CycleError:
        return True
    return False


def _references(schema: JsonValue) -> set[str]:
    targets = {text(value) for path, value in walk(schema) if path.endswith("/$ref")}
    return {target.removeprefix(REF_PREFIX) for target in targets}
