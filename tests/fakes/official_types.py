"""Validation of request bodies by the types of the official packages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import TypeAdapter

from chordwise.domain.json_values import JsonObject

_OPENAI = TypeAdapter(CompletionCreateParamsNonStreaming)
_ANTHROPIC = TypeAdapter(MessageCreateParamsNonStreaming)


def require_openai(body: JsonObject) -> None:
    """Assert that a body is a valid Chat Completions request without unknown members."""
    assert _whole(_OPENAI.validate_python(body)) == body


def require_anthropic(body: JsonObject) -> None:
    """Assert that a body is a valid Messages request without unknown members."""
    assert _whole(_ANTHROPIC.validate_python(body)) == body


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
