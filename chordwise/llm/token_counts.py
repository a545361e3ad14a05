"""Token counts of a request before it is sent, exact if a tokenizer is installed.

The tokenizers are optional packages that work offline. `toktok` has the vocabularies of OpenAI,
gpt-oss and Qwen 3.5; `ctok` reconstructs Anthropic's counts and needs Python 3.12. A count is exact
for the models that their authors name; newer models are estimated with the newest vocabulary.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import cast

from chordwise.domain import json_values, tokens
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.llm.exchange import child

_OPENAI = "o200k_base"
_CHARACTERS = "classes of characters"
# Tokens that OpenAI's chat format adds to each message, and to the start of the answer.
_TOKENS_PER_MESSAGE = 3
_TOKENS_OF_THE_REPLY = 3
# Newer Claude models use 1.5 to 1.65 times the tokens of o200k in Latin scripts, more in others.
_CLAUDE_FACTOR = 1.65
# Models that are known to use o200k_base; it is not documented for GPT-6.
_O200K = re.compile(r"(chatgpt-)?(gpt-4o|gpt-4\.1|gpt-5|o[134])(?!\d)")
_QWEN = re.compile(r"qwen-?3\.[5-9]")
_OPENAI_NAME = re.compile(r"gpt-|o\d")
_CLAUDE_VERSION = re.compile(r"(?<!\d)(\d{1,2})[.-](\d{1,2})(?!\d)|(?<!\d)(\d{1,2})(?!\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCounter:
    """Counts the tokens of a text for one model.

    `is_exact` is false for an estimate; `name` is the method of counting. `adds_frame` means that
    each message and the answer take further tokens, and `reads_schema` that an enforced schema is
    put into the prompt; other servers enforce it by a grammar, which the model does not read.
    """

    name: str
    is_exact: bool
    count: Callable[[str], int]
    adds_frame: bool = True
    reads_schema: bool = False


def counter_for(model: str, encoding: str = "") -> TokenCounter:
    """Return the most exact installed counter for a model; `encoding` is for an unknown name."""
    name = model.lower()
    if "gpt-oss" in name:
        encoding = "o200k_harmony"
    elif _QWEN.search(name):
        encoding = "qwen3.5"
    if encoding and is_installed("toktok"):
        is_exact = encoding != _OPENAI or _O200K.match(name) is not None
        return TokenCounter(name=f"{encoding} (toktok)", is_exact=is_exact, count=_toktok(encoding))
    return TokenCounter(name=_CHARACTERS, is_exact=False, count=tokens.estimate)


def openai_counter(model: str, *, is_public: bool) -> TokenCounter:
    """Return the counter for a model behind Chat Completions.

    A server at another address may serve any model, so the model's name has to identify it.
    """
    is_openai = is_public or _OPENAI_NAME.match(model.lower())
    return replace(counter_for(model, _OPENAI if is_openai else ""), reads_schema=is_public)


def count_request(counter: TokenCounter, body: JsonObject) -> int:
    """Return the number of input tokens that a request's body is charged for."""
    texts = _texts(body.get("system"))
    for message in json_values.objects(body.get("messages")):
        texts += _texts(message.get("content"))
    frame = _TOKENS_PER_MESSAGE * len(texts) + _TOKENS_OF_THE_REPLY if counter.adds_frame else 0
    if counter.reads_schema:
        texts += _schemas(body)
    return frame + sum(counter.count(text) for text in texts)


def _schemas(body: JsonObject) -> list[str]:
    openai = child(child(body, "response_format"), "json_schema")
    anthropic = child(child(body, "output_config"), "format")
    schemas = (child(part, "schema") for part in (openai, anthropic))
    return [json.dumps(schema, separators=(",", ":")) for schema in schemas if schema]


def _texts(content: JsonValue) -> list[str]:
    """Return the texts of a content, which is a string or a list of blocks."""
    if isinstance(content, str):
        return [content]
    return [json_values.text(block.get("text")) for block in json_values.objects(content)]


def _toktok(encoding: str) -> Callable[[str], int]:
    library = importlib.import_module("toktok")
    batch_count = cast("Callable[[Sequence[str], str], Sequence[int]]", library.batch_count)
    return lambda text: batch_count([_encodable(text)], encoding)[0]


def claude_counter(model: str) -> TokenCounter:
    """Return the counter of Claude models, or an estimate with another vocabulary."""
    if is_installed("ctok"):
        library, version = importlib.import_module("ctok"), claude_version(model)
        token_count = cast("Callable[[str, str], int]", library.token_count)
        return TokenCounter(
            name=f"Claude {version} (ctok)",
            is_exact=True,
            adds_frame=False,
            reads_schema=True,
            count=lambda text: token_count(_encodable(text), version),
        )
    is_known = is_installed("toktok")
    counted = _toktok(_OPENAI) if is_known else tokens.estimate
    return TokenCounter(
        name=f"{f'{_OPENAI} (toktok)' if is_known else _CHARACTERS} times {_CLAUDE_FACTOR}",
        is_exact=False,
        adds_frame=False,
        reads_schema=True,
        count=lambda text: round(_CLAUDE_FACTOR * counted(text)),
    )


def claude_version(model: str) -> str:
    """Return the generation in a model's name, such as 5.5; 4.8 if the name has none."""
    match = _CLAUDE_VERSION.search(model)
    if match is None:
        return "4.8"
    return f"{match[1]}.{match[2]}" if match[1] else f"{match[3]}.0"


def _encodable(text: str) -> str:
    return text.encode(errors="replace").decode()


@cache
def is_installed(library: str) -> bool:
    """Return whether a tokenizer is installed; cached for the process."""
    return importlib.util.find_spec(library) is not None
