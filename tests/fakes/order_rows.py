"""A long order of 1,200 rows, 40 of which are equal, and models that extract them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.llm.model import CompletionRequest

ROW_COUNT = 1_200
EQUAL_COUNT = 40
_EVERY = ROW_COUNT // EQUAL_COUNT
_ROW = re.compile(r"(\S+) costs (\d+) EUR\.")


def _line(number: int) -> str:
    if number % _EVERY == 0:
        return "Coffee costs 3 EUR.\n"
    return f"Part-{number} costs {number} EUR.\n"


ORDER = "".join(_line(number) for number in range(ROW_COUNT))
SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "line_items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "price": {"type": "number"}},
                "required": ["name", "price"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["line_items"],
    "additionalProperties": False,
}


def rows_in(text: str) -> list[JsonValue]:
    """Return the rows of a text, in order."""
    return [{"name": name, "price": int(price)} for name, price in _ROW.findall(text)]


def an_extraction(rows: Sequence[JsonValue]) -> str:
    """Return the answer that has these rows, the first of them with its quote."""
    evidence: list[JsonValue] = []
    if rows:
        first = json_values.as_object(rows[0])
        quote = f"{first['name']} costs {first['price']} EUR."
        evidence = [{"path": "/line_items/0", "quote": quote, "confidence": 9}]
    return json.dumps({"data": {"line_items": list(rows)}, "evidence": evidence})


def rows_of(output: JsonObject) -> list[JsonValue]:
    """Return the rows of an answer."""
    data = json_values.as_object(output["data"])
    rows = data["line_items"]
    assert isinstance(rows, list)
    return rows


def extracting(at_most: int = ROW_COUNT) -> Callable[[CompletionRequest], str]:
    """Return a model that extracts every row, and joins answers to at most so many of them."""

    def answer(request: CompletionRequest) -> str:
        task = request.task
        if not task.answers:
            return an_extraction(rows_in(task.text))
        joined = [row for part in task.answers for row in rows_of(part)]
        return an_extraction(joined[:at_most])

    return answer
