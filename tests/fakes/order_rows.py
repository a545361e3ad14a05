"""A long order of 300 rows, 10 of which are equal, and models that extract them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from chordwise.domain import json_values, tokens
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.llm.model import Completion, CompletionRequest, FinishReason, Usage

ROW_COUNT = 300
EQUAL_COUNT = 10
_EVERY = ROW_COUNT // EQUAL_COUNT
_ROW = re.compile(r"(\S+) costs (\d+) EUR\.")


def _line(number: int) -> str:
    if number % _EVERY == 0:
        return "Coffee costs 3 EUR.\n"
    return f"Part-{number} costs {number} EUR.\n"


ORDER = "".join(_line(number) for number in range(ROW_COUNT))
_LINE_ITEMS: JsonObject = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "price": {"type": "number"}},
        "required": ["name", "price"],
        "additionalProperties": False,
    },
}


def _schema(**single: JsonValue) -> JsonObject:
    return {
        "type": "object",
        "properties": {"line_items": _LINE_ITEMS, **single},
        "required": ["line_items", *single],
        "additionalProperties": False,
    }


SCHEMA = _schema()
TITLED = _schema(title={"type": "string"})
"""A schema with a value that differs between chunks."""

UNJOINABLE: JsonObject = {
    **_schema(kind={"enum": ["part", "whole"]}),
    "if": {"properties": {"kind": {"const": "part"}}},
    "then": {"properties": {"line_items": {"maxItems": 150}}},
}
"""A schema with a rule that the joined rows violate, so that a model has to join them."""


def rows_in(text: str) -> list[JsonValue]:
    return [{"name": name, "price": int(price)} for name, price in _ROW.findall(text)]


def an_extraction(rows: Sequence[JsonValue], **single: JsonValue) -> str:
    """Return an answer with these rows, each with its quote."""
    objects = [json_values.as_object(row) for row in rows]
    evidence: list[JsonValue] = [
        {
            "path": f"/line_items/{position}",
            "quote": f"{row['name']} costs {row['price']} EUR.",
            "confidence": 9,
        }
        for position, row in enumerate(objects)
        if "price" in row
    ]
    return json.dumps({"data": {"line_items": list(rows), **single}, "evidence": evidence})


def rows_of(output: JsonObject) -> list[JsonValue]:
    data = json_values.as_object(output["data"])
    rows = data["line_items"]
    assert isinstance(rows, list)
    return rows


def extracting(max_rows: int = ROW_COUNT) -> Callable[[CompletionRequest], str]:
    """Return a model that extracts every row, and joins answers to at most `max_rows` rows.

    It adds title and kind if the schema has them.
    """

    def answer(request: CompletionRequest) -> str:
        task = request.task
        if task.answers:
            rows = [row for part in task.answers for row in rows_of(part)][:max_rows]
            single: JsonObject = {"title": "The order", "kind": "whole"}
        else:
            rows, single = rows_in(task.text), {"title": task.text[-20:], "kind": "part"}
        properties = json_values.as_object((task.options.schema or {})["properties"])
        return an_extraction(rows, **{name: single[name] for name in single if name in properties})

    return answer


def within_limits(
    answer: Callable[[CompletionRequest], str],
) -> Callable[[CompletionRequest], str | Completion]:
    """Return a model whose answers are truncated at the output limit of the request."""

    def limited(request: CompletionRequest) -> str | Completion:
        text = answer(request)
        if tokens.estimate(text) <= request.max_output_tokens:
            return text
        return Completion(
            text=text[: request.max_output_tokens],
            finish_reason=FinishReason.LENGTH,
            usage=Usage(output_tokens=request.max_output_tokens),
            provider="scripted",
            model="script-1",
        )

    return limited


def straying(request: CompletionRequest) -> str:
    """Return half of the rows of a chunk, and as many different ones of the text after it."""
    rows, parts = rows_in(request.task.text), rows_in(ORDER.replace("Coffee costs 3 EUR.\n", ""))
    begins = max(parts.index(row) for row in rows if row in parts) + 1
    half = len(rows) // 2
    return an_extraction([*rows[:half], *parts[begins : begins + half]])
