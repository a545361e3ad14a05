"""Extraction: the values that a user asked for, each with its quote, or “not mentioned”.

With a user's own JSON Schema the values are under `data`, in the shape of the schema and validated
against it, and `evidence` holds a quote for each of them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence

from chordwise.domain import items as item_names
from chordwise.domain import json_values, schema_data, schemas, value_in_quote
from chordwise.domain.analysis import (
    AnalysisDefinition,
    AnswerSection,
    Joining,
    RowCount,
    claimed_number,
    mean,
)
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.schema_nodes import SchemaNode
from chordwise.domain.typed_values import typed

FOUND, NOT_MENTIONED = "found", "not mentioned"
_CAPITALIZED = re.compile(r"[A-Z][a-z]{2,}")
_OF_THE_ROOT = ("$schema", "$defs", "definitions")
COUNTS = "counts"
"""The member with the numbers of rows that a model states, in the shape of the data."""
_MAX_COUNT = _MAX_QUOTED_VALUES = 100_000
_TOO_MUCH_EVIDENCE = "/evidence: the paths name lists too often; name single values"


def items(options: AnalysisOptions) -> tuple[str, ...]:
    """Return the names of the items."""
    return tuple(item_names.of(options))


class Extraction(AnalysisDefinition):
    """For each item a value, an exact quote and a confidence 1–10, or “not mentioned”."""

    principal_fields = ("value", "path")
    complexity = 0.5
    assumed_length = 120, 0.15
    principles = (
        "Each value is complete and as in the text, with its unit or currency.",
        "No value that the text mentions is reported as missing.",
    )
    sections = (
        AnswerSection("Data", "/data"),
        AnswerSection("Evidence", "/evidence"),
        AnswerSection("Found", "/fields"),
    )

    def headline(self, output: JsonObject) -> str:
        """Return the values, grouped by item or member name."""
        fields = json_values.objects(output.get("fields"))
        pairs = [(json_values.text(field.get("item")), field.get("value")) for field in fields]
        if isinstance(data := output.get("data"), dict):
            pairs = list(data.items())
        by_name: dict[str, list[str]] = {}
        for name, value in pairs:
            if value or value in (0, False):
                written = value if isinstance(value, str) else json_values.encoded(value)
                by_name.setdefault(name, []).append(written)
        return "; ".join(f"{name}: {', '.join(values)}" for name, values in by_name.items())

    def schema(self, options: AnalysisOptions) -> JsonObject:
        """Return a schema for the items, or for the user's own structure with evidence."""
        if options.schema is not None:
            return _around(options.schema)
        field = schemas.closed(
            {
                "item": schemas.one_of(items(options)),
                "status": schemas.one_of((FOUND, NOT_MENTIONED)),
                "value": schemas.optional(schemas.string()),
                "quote": schemas.optional(schemas.quote()),
                "confidence": schemas.integer(1, 10),
            }
        )
        return schemas.closed({"fields": schemas.array(field, at_least=1)})

    def question_schema(self, options: AnalysisOptions) -> JsonObject:
        """Return the schema with the numbers of rows that a model states (`x-count`) first."""
        schema = self.schema(options)
        shape = _counts(options, lambda path: f"The number of rows of {path} in the text.")
        if not shape:
            return schema
        properties = {COUNTS: _of_counts(shape), **json_values.as_object(schema["properties"])}
        return {**schema, **schemas.closed(properties)}

    def with_counts(self, answer: JsonObject, options: AnalysisOptions) -> JsonObject:
        """Return an answer that states the numbers of its own rows, if the schema asks for any."""
        rows = self.row_counts([answer], options)
        counts = _counts(options, lambda path: rows.get(f"/data{path}", RowCount(number=0)).number)
        return {COUNTS: counts, **answer} if counts else answer

    def without_reasoning(self, answer: JsonObject) -> JsonObject:
        """Return an answer without the numbers of rows, which are no values of the data."""
        return {name: value for name, value in answer.items() if name != COUNTS}

    def confidence(self, answer: JsonObject) -> float:
        """Return the mean over the found values; without any, the mean over the entries."""
        fields = _fields(answer)
        mentions = [field for field in fields if field.get("status") != NOT_MENTIONED]
        return mean(claimed_number(field) for field in mentions or fields) / self.max_confidence

    def problems(self, answer: JsonObject, task: AnalysisTask) -> list[str]:
        """Return the items without an entry, and the found entries without a value or quote.

        With the user's own schema, return a problem if there is too much evidence to check.
        """
        if task.options.schema is not None:
            is_too_much = schema_data.quoted_values(answer) > _MAX_QUOTED_VALUES
            return [_TOO_MUCH_EVIDENCE] if is_too_much else []
        fields = json_values.objects(answer.get("fields"))
        names = {field.get("item") for field in fields}
        missing = [item for item in items(task.options) if item not in names]
        return [f"/fields: no entry for the item {item!r}" for item in missing] + [
            f"/fields/{position}: status is “found”, but value or quote is missing"
            for position, field in enumerate(fields)
            if field.get("status") == FOUND and not (field.get("value") and field.get("quote"))
        ]

    def with_marks(self, answer: JsonObject, options: AnalysisOptions) -> JsonObject:
        """Mark each value with a quote by whether it occurs in it (see `value_in_quote`)."""
        if options.schema is None:
            return {**answer, "fields": [_marked_field(field) for field in _fields(answer)]}
        return schema_data.with_marks(answer, options.schema)

    def without_evidence(self, answer: JsonObject, options: AnalysisOptions) -> list[str]:
        """Return the numbers, dates, names and codes of the user's data without evidence."""
        schema = options.schema
        return [] if schema is None else schema_data.without_evidence(answer, schema)

    def merge(self, answers: Sequence[JsonObject], options: AnalysisOptions) -> JsonObject:
        """Keep the values of each item; it is “not mentioned” only if no chunk mentions it."""
        return self.join(answers, options).output

    def join(self, answers: Sequence[JsonObject], options: AnalysisOptions) -> Joining:
        """Join by rule; only contradictory single values of the user's data are left to a model."""
        if options.schema is not None:
            return schema_data.join(answers, options.schema)
        fields = _deduplicated(answers, options)
        kept = [field for item in items(options) for field in _all_of(item, fields)]
        return Joining(output={"fields": kept})

    def apply_reconciliation(self, joining: Joining, answer: JsonObject) -> JsonObject:
        """Return the output with only the contested values taken from the model's answer."""
        return schema_data.apply_reconciliation(joining, answer) if joining.contested else answer

    def needs_model_to_join(self, options: AnalysisOptions) -> bool:
        """Return whether the user's data has single values, which chunks may contradict."""
        return options.schema is not None and SchemaNode.root_of(options.schema).has_single_values()

    def has_findings(self, answer: JsonObject) -> bool:
        """Return whether any item or member of the data has a value."""
        if "data" in answer:
            return any(value not in (None, "") for _, value in json_values.scalars(answer["data"]))
        return any(field.get("status") == FOUND for field in _fields(answer))

    def row_counts(
        self, answers: Sequence[JsonObject], options: AnalysisOptions
    ) -> dict[str, RowCount]:
        """Count the rows of the user's lists, or the distinct values of items that are lists."""
        if options.schema is not None:
            return schema_data.row_counts(answers, options.schema)
        values = {
            _value_of(field)
            for answer in answers
            for field in _fields(answer)
            if field.get("status") == FOUND and _is_list(field, options)
        }
        numbers = Counter(path for path, _ in values)
        return {path: RowCount(number=number) for path, number in numbers.items()}

    def row_places(
        self, answer: JsonObject, options: AnalysisOptions
    ) -> dict[str, list[list[tuple[int, int]]]]:
        """Return the spans of the user's rows, or the first one of each distinct value of items."""
        if options.schema is not None:
            return schema_data.row_places(answer)
        first: dict[tuple[str, str], tuple[int, int]] = {}
        for field in _fields(answer):
            if (span := json_values.span_of(field)) is not None:
                first.setdefault(_value_of(field), span)
        places: dict[str, list[list[tuple[int, int]]]] = defaultdict(list)
        for (path, _), span in first.items():
            places[path].append([span])
        return places


ANALYSIS = Extraction()


def repetitions(answer: JsonObject, options: AnalysisOptions) -> dict[str, int]:
    """Return for each list how many rows or values an answer repeats from the same place.

    A value may occur as often as in its quote.
    """
    if options.schema is not None:
        return schema_data.repetitions(answer, options.schema)
    read = Counter(
        (_list_of(field), span, json_values.text(field["value"]), json_values.text(field["quote"]))
        for field in json_values.objects(answer.get("fields"))
        if (span := json_values.span_of(field)) is not None
    )
    numbers: Counter[str] = Counter()
    for (path, _, value, quote), number in read.items():
        numbers[path] += number - max(1, quote.count(value))
    return {path: number for path, number in numbers.items() if number > 0}


def _around(schema: JsonObject) -> JsonObject:
    """Return a schema with the user's schema under `data`; its definitions stay at the root.

    References of the form `#/…` point to the root, and the dialect applies to the whole schema. A
    `$id` below the root would redirect the references and is left out.
    """
    at_root = {name: schema[name] for name in _OF_THE_ROOT if name in schema}
    left_out = (*at_root, "$id", schemas.CHECKS)
    data_schema = {name: value for name, value in schema.items() if name not in left_out}
    evidence = schemas.closed(
        {
            "path": schemas.string("JSON Pointer into data, such as /total."),
            "quote": schemas.quote(),
            "confidence": schemas.integer(1, 10),
        }
    )
    return {**schemas.closed({"data": data_schema, "evidence": schemas.array(evidence)}), **at_root}


def _counts(options: AnalysisOptions, value_of: Callable[[str], JsonValue]) -> JsonObject:
    """Return an object in the shape of the data, with a value for each list that is counted."""
    counts: JsonObject = {}
    for path in SchemaNode.root_of(options.schema or {}).counted_lists():
        *parents, name = json_values.steps(path)
        inner = counts
        for parent in parents:
            inner = json_values.as_object(inner.setdefault(parent, {}))
        inner[name] = value_of(path)
    return counts


def _of_counts(shape: JsonValue) -> JsonObject:
    if isinstance(shape, dict):
        return schemas.closed({name: _of_counts(member) for name, member in shape.items()})
    return {**schemas.integer(0, _MAX_COUNT), "description": json_values.text(shape)}


def _fields(answer: JsonObject) -> list[JsonObject]:
    return json_values.objects(answer.get("fields") or answer.get("evidence"))


def _list_of(field: JsonObject) -> str:
    return json_values.pointer("/fields", json_values.text(field.get("item")))


def _is_list(field: JsonObject, options: AnalysisOptions) -> bool:
    return item_names.kind_in(options, json_values.text(field.get("item"))).is_list


def _value_of(field: JsonObject) -> tuple[str, str]:
    """Return the list and the value of a field, in one form for equal values."""
    return _list_of(field), " ".join(json_values.text(field.get("value")).casefold().split())


def _deduplicated(answers: Sequence[JsonObject], options: AnalysisOptions) -> list[JsonObject]:
    """Leave out values of earlier answers; the others have the number of their `mentions`."""
    kept: list[tuple[Hashable, JsonObject]] = []
    numbers: dict[Hashable, dict[Hashable, int]] = defaultdict(dict)
    for position, answer in enumerate(answers):
        mentions = [(_mention(field, options), field) for field in _fields(answer)]
        kept += [(mention, field) for mention, field in mentions if mention not in numbers]
        for mention, field in mentions:
            number = json_values.integer(field.get("mentions")) or 1
            numbers[mention].setdefault(json_values.span_of(field) or position, number)
    counted = [(field, sum(numbers.pop(mention, {}).values())) for mention, field in kept]
    return [
        {**field, "mentions": number} if number > 1 and field.get("status") == FOUND else field
        for field, number in counted
    ]


def _mention(field: JsonObject, options: AnalysisOptions) -> Hashable:
    """Return the identity of a value; numbers and dates of a list differ by their place."""
    path, value = _value_of(field)
    is_entry = _is_list(field, options) and _is_quantity(json_values.text(field.get("value")))
    return path, value, json_values.span_of(field) if is_entry else None


def _is_quantity(value: str) -> bool:
    """Return whether a value is a number or a date, and not a name with a digit, as 3M Company."""
    if not any(map(str.isdigit, value)):
        return False
    parsed = typed(value)
    return bool(parsed.date or parsed.currency) or not _CAPITALIZED.search(value)


def _all_of(item: str, fields: Sequence[JsonObject]) -> list[JsonValue]:
    """Return the mentions of an item, or one “not mentioned” entry."""
    entries = [field for field in fields if field.get("item") == item]
    mentions = [field for field in entries if field.get("status") == FOUND]
    return list(mentions or entries[:1])


def _marked_field(field: JsonObject) -> JsonObject:
    quote, item = json_values.text(field.get("quote")), json_values.text(field.get("item"))
    occurs = value_in_quote.occurs_in(field.get("value"), quote, item) if quote else None
    return {**field, value_in_quote.MARK: occurs}
