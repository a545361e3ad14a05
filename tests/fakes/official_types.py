"""Validation of request bodies by the types of the official packages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module

from pydantic import TypeAdapter

from chordwise.domain.json_values import JsonObject

OPENAI = ("openai.types.chat.completion_create_params", "CompletionCreateParamsNonStreaming")
ANTHROPIC = ("anthropic.types.message_create_params", "MessageCreateParamsNonStreaming")


@cache
def adapter(module: str, name: str) -> TypeAdapter[object]:
    """Return the adapter of a type; importing these packages takes seconds."""
    return TypeAdapter(getattr(import_module(module), name))


def require_openai(body: JsonObject) -> None:
    """Assert that a body is a valid Chat Completions request without unknown members."""
    assert _whole(adapter(*OPENAI).validate_python(body)) == body


def require_anthropic(body: JsonObject) -> None:
    """Assert that a body is a valid Messages request without unknown members."""
    assert _whole(adapter(*ANTHROPIC).validate_python(body)) == body


def _whole(validated: object) -> object:
    """Return the validated value, including the parts that pydantic validates only when read.

    Members that the type does not know are missing in it, so a comparison finds them.
    """
    match validated:
        case str():
            return validated
        case Mapping():
            return {name: _whole(value) for name, value in validated.items()}
        case Iterable():
            return [_whole(value) for value in validated]
        case _:
            return validated
