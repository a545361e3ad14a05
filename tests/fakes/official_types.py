"""The official packages' types as judges of what we send: nothing wrong, and nothing unknown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import TypeAdapter

from chordwise.domain.json_values import JsonObject

_OPENAI = TypeAdapter(CompletionCreateParamsNonStreaming)
_ANTHROPIC = TypeAdapter(MessageCreateParamsNonStreaming)


def require_openai(body: JsonObject) -> None:
    """Fail where a body is no request for Chat Completions, down to its last part."""
    assert _whole(_OPENAI.validate_python(body)) == body


def require_anthropic(body: JsonObject) -> None:
    """Fail where a body is no request for Messages, down to its last part."""
    assert _whole(_ANTHROPIC.validate_python(body)) == body


def _whole(validated: object) -> object:
    """Return what was validated, with all that pydantic checks only while it is read.

    It leaves out what a type does not know, so a comparison finds that.
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
