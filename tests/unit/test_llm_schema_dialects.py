"""Tests of translating schemas to the dialects of the providers."""

from __future__ import annotations

import copy

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.domain import schemas
from chordwise.domain.json_values import JsonObject, JsonValue, walk
from chordwise.llm.schema_dialects import (
    as_instruction,
    for_anthropic,
    for_llama_cpp,
    for_openai_strict,
)
from tests.fakes.completion_requests import SENTIMENT_SCHEMA


def closed(**properties: JsonValue) -> JsonObject:
    return schemas.closed(properties)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "string"}},
        {"anyOf": [closed(a={"type": "string"})]},
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "string"}},
        closed(a={"type": "object", "additionalProperties": True, "properties": {"b": {}}}),
        {"type": "object", "properties": {"a": {"type": "string"}}},
        closed(a={"not": {"type": "string"}}),
        closed(a={"if": {}, "then": {}, "type": "string"}),
        closed(a={"allOf": [{"type": "string"}, {"minLength": 2}]}),
        closed(a={}),
        closed(a=True),
        closed(a={"type": "array"}),
        closed(a={"$ref": "https://example.org/schema.json"}),
        closed(a={"type": "string", "patternProperties": {"x": {}}}),
        closed(a={"enum": [{"b": 1}]}),
        closed(a={"enum": [str(number) for number in range(1_001)]}),
    ],
)
def test_some_schemas_have_no_strict_form(schema: JsonObject) -> None:
    assert for_openai_strict(schema) is None


CHILD: JsonValue = {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}
RECURSIVE = closed(root={"$ref": "#/$defs/node"}) | {"$defs": {"node": closed(child=CHILD)}}
EITHER: JsonValue = [{"type": "string"}, {"type": "null"}]
CODE: JsonObject = {"type": "string", "description": "A code", "maxLength": 5, "default": "x"}


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (SENTIMENT_SCHEMA, SENTIMENT_SCHEMA),
        # Objects are closed, and nullable properties are required, which does not invent data.
        (
            {
                "type": "object",
                "properties": {"a": {"type": "string"}, "b": {"type": ["string", "null"]}},
                "required": ["a"],
            },
            closed(a={"type": "string"}, b={"type": ["string", "null"]}),
        ),
        # Providers know only `anyOf`; Chordwise checks afterwards that exactly one matches.
        (closed(a={"oneOf": EITHER}), closed(a={"anyOf": EITHER})),
        # Rules that the grammar cannot enforce are described in words.
        (closed(a=CODE), closed(a={"type": "string", "description": "A code (maxLength: 5)"})),
        (RECURSIVE, RECURSIVE),
    ],
    ids=["strict", "open", "one of", "constraints", "recursive"],
)
def test_openai_gets_a_strict_form(schema: JsonObject, strict: JsonObject) -> None:
    assert for_openai_strict(schema) == strict


@pytest.mark.parametrize(
    ("schema", "translated"),
    [
        # Bounds and most formats become text for Claude; `minItems` is kept only as 0 or 1.
        (
            closed(
                n={"type": "integer", "minimum": 1},
                u={"type": "string", "format": "uri"},
                r={"type": "string", "format": "regex"},
                one={"type": "array", "items": {"type": "string"}, "minItems": 1},
                two={"type": "array", "items": {"type": "string"}, "minItems": 2},
            ),
            closed(
                n={"type": "integer", "description": "(minimum: 1)"},
                u={"type": "string", "format": "uri"},
                r={"type": "string", "description": '(format: "regex")'},
                one={"type": "array", "items": {"type": "string"}, "minItems": 1},
                two={
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "(minItems: 2)",
                },
            ),
        ),
        # A nullable type is an `anyOf`, and an enumeration has no type.
        (
            closed(a={"type": ["string", "null"]}, b={"type": "string", "enum": ["x"]}),
            closed(a={"anyOf": EITHER}, b={"enum": ["x"]}),
        ),
        (closed(a={"oneOf": EITHER}), closed(a={"anyOf": EITHER})),
        (RECURSIVE, None),
    ],
    ids=["keywords", "types", "one of", "recursive"],
)
def test_anthropic_gets_fewer_keywords(schema: JsonObject, translated: JsonObject | None) -> None:
    assert for_anthropic(schema) == translated


def test_deep_nesting_has_no_strict_form() -> None:
    """OpenAI accepts ten levels; an endlessly nested schema must not fail either."""
    schema: JsonObject = closed(a={"type": "string"})
    for _ in range(2_000):
        schema = closed(a=schema)

    assert for_openai_strict(schema) is None
    assert for_anthropic(schema) is None


def test_llama_cpp_gets_no_large_bounds() -> None:
    """llama.cpp rejects bounds above its limit; smaller ones are enforced."""
    schema = closed(a={"type": "string", "minLength": 4_000, "maxLength": 10}, maxLength=closed())

    assert for_llama_cpp(schema) == closed(
        a={"type": "string", "maxLength": 10}, maxLength=closed()
    )


def test_the_instruction_contains_the_word_json_and_the_schema() -> None:
    """`json_object` mode rejects a prompt without the word."""
    assert "JSON" in as_instruction({"type": "object"})
    assert as_instruction({"title": "ü"}).endswith('{"title":"ü"}')


NAMES = st.sampled_from(["a", "b", "type", "enum", "$ref"])
LEAVES: st.SearchStrategy[JsonObject] = st.one_of(
    st.builds(lambda low: {"type": "integer", "minimum": low}, st.integers(-9, 9)),
    st.builds(lambda size: {"type": "string", "maxLength": size}, st.integers(0, 9)),
    st.just({"type": ["string", "null"]}),
    st.just({"enum": ["x", None, 1]}),
    st.just({"const": True}),
)


def _nested(inner: st.SearchStrategy[JsonObject]) -> st.SearchStrategy[JsonObject]:
    return st.one_of(
        st.dictionaries(NAMES, inner, min_size=1, max_size=3).map(
            lambda properties: closed(**properties)
        ),
        inner.map(lambda item: {"type": "array", "items": item, "maxItems": 3}),
        st.lists(inner, min_size=1, max_size=2).map(lambda options: {"oneOf": [*options]}),
    )


SCHEMAS = st.dictionaries(NAMES, st.recursive(LEAVES, _nested, max_leaves=8), min_size=1).map(
    lambda properties: closed(**properties)
)


@given(SCHEMAS)
def test_translations_are_valid_schemas_with_closed_objects(schema: JsonObject) -> None:
    original = copy.deepcopy(schema)

    translations = [for_openai_strict(schema), for_anthropic(schema)]

    assert schema == original
    for translated in translations:
        assert translated is not None
        assert jsonschema_rs.meta.is_valid(translated)
        for _, value in walk(translated):
            if isinstance(value, dict) and value.get("type") == "object":
                assert value["additionalProperties"] is False
                assert isinstance(value["properties"], dict)
                assert value["required"] == list(value["properties"])
