"""How large a request can be at most for whoever counts its tokens, known before it is sent."""

from __future__ import annotations

import json

from chordwise.domain.json_values import JsonObject
from chordwise.domain.memoizing import memoized_by_identity
from chordwise.llm.model import CompletionRequest

# The words with which a server wraps messages and a schema; vendors' own prompts for structured
# answers take a few hundred tokens.
_WRAPPING_TOKENS = 1_024
# A dialect of the schema may be longer than the schema: limits that it does not know become words.
_SCHEMA_FACTOR = 2


def most_input_tokens(request: CompletionRequest) -> int:
    """Return a number of input tokens that no tokenizer exceeds: each token is a byte or more."""
    prompt = _bytes(request.system) + _bytes(request.user)
    schema = _schema_bytes(request.schema) + _bytes(request.schema_name)
    return prompt + _SCHEMA_FACTOR * schema + _WRAPPING_TOKENS


@memoized_by_identity
def _schema_bytes(schema: JsonObject) -> int:
    return _bytes(json.dumps(schema, indent=2))


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
