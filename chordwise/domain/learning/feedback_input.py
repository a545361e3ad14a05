"""Interpreting feedback: which value of an answer is meant, and what it should be."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from chordwise.domain import dates, items, json_values, validation
from chordwise.domain.analysis import NO_LABEL, AnalysisDefinition, analysis_for
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.facts import DATA
from chordwise.domain.items import ColumnKind, DeclaredItem
from chordwise.domain.json_values import USER_DATA, JsonObject, JsonValue
from chordwise.domain.learning import fields
from chordwise.domain.learning.fields import FieldValue
from chordwise.domain.learning.judgments import AnswerWithConfidence
from chordwise.domain.learning.truths import Remark, Truth, Verdict, from_remarks
from chordwise.domain.quantities import quantities
from chordwise.domain.schema_nodes import SchemaNode
from chordwise.domain.typed_values import TRUTHS, is_of_kind, typed
from chordwise.errors import UsageError

_MAX_NAMED = 12
_MAX_SCHEMA = 300
_BETWEEN_WORDS = re.compile(r"[_/ ]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackInput:
    """A person's verdict on a JSON Pointer, a field's name, or the whole answer (empty `path`).

    `span` is the start and end of the right value in the text, if it was selected there.
    """

    verdict: Verdict
    path: str = ""
    value: JsonValue = None
    span: tuple[int, int] | None = None
    note: str = ""
    author: str = ""


def parsed(text: str) -> JsonValue:
    """Return a typed-in value: JSON if it is a valid list, object or string, else the text."""
    stripped = text.strip()
    if stripped == "null" or not stripped:
        return None
    if stripped[0] in '[{"':
        with suppress(ValueError, RecursionError):
            value: JsonValue = json.loads(stripped)
            return value if json_values.is_storable(value) else text
    return text


def understand(
    answer: AnswerWithConfidence,
    entered: FeedbackInput,
    options: AnalysisOptions,
    earlier: Sequence[Remark] = (),
) -> Remark:
    """Return the remark that a person's input means.

    `earlier` are the remarks on answers to the question, the latest last. Correcting or rejecting
    one of several values by its path changes what they left.

    Raises:
        UsageError: The answer has no such value, or the correction is invalid.
    """
    analysis = analysis_for(answer.analysis_type)
    if entered.verdict is Verdict.SEEN:
        return _of_anything(answer, replace(entered, path=""))
    if analysis.label_path:
        return _of_label(answer, entered, analysis, analysis.labels(options))
    if answer.analysis_type == AnalysisType.EXTRACTION:
        if entered.path:
            return _of_field(answer, entered, options, earlier)
        if entered.verdict is Verdict.APPROVED:
            _check_all_types(answer.output, options, from_remarks(AnalysisType.EXTRACTION, earlier))
    return _of_anything(answer, entered)


def _of_label(
    answer: AnswerWithConfidence,
    entered: FeedbackInput,
    analysis: AnalysisDefinition,
    allowed: Sequence[str],
) -> Remark:
    path = analysis.label_path
    if entered.path not in ("", "label", path, path.removeprefix("/")):
        return _of_anything(answer, entered)
    value = entered.value
    if entered.verdict is Verdict.CORRECTED:
        by_name = {fields.normalized(label): label for label in allowed}
        is_none = analysis.nullable_path == path and (
            value is None or fields.is_same(value, NO_LABEL)
        )
        value = by_name.get(fields.normalized(value), None if allowed or is_none else value)
        if not isinstance(value, str) and not is_none:
            shown = "null" if entered.value is None else f"“{entered.value}”"
            raise UsageError(
                f"{shown} is not one of the labels.",
                f"The labels: {', '.join(allowed)}." if allowed else "A label must be a string.",
            )
    return Remark(
        path=path,
        verdict=entered.verdict,
        judged=json_values.at(answer.output, path),
        corrected=value,
        confidence=answer.confidence,
    )


def _of_field(
    answer: AnswerWithConfidence,
    entered: FeedbackInput,
    options: AnalysisOptions,
    earlier: Sequence[Remark],
) -> Remark:
    schema = options.schema
    name = _field_at(answer.output, entered.path, schema)
    entries = fields.entries(answer.output, name)
    targets = [e for e in entries if entered.path in (e.path, f"{e.path}/value")]
    path = (targets or entries)[0].path if entries else f"{DATA.path}{name}"
    if entered.verdict is Verdict.REJECTED and targets and len(entries) > 1:
        entered = replace(entered, verdict=Verdict.CORRECTED)  # to the others
    is_row = isinstance(json_values.at(answer.output, f"{DATA.path}{name}"), dict)
    if entered.verdict is Verdict.CORRECTED and entered.value is None and is_row:
        hint = "To remove a row, correct the list: --correct '/lines=[…]'."
        if not any(map(str.isdecimal, json_values.steps(name))):
            members = SchemaNode.root_of(schema or {}).at(name).properties
            hint = f"Correct its members: {', '.join(f'{name}/{member}' for member in members)}."
        raise UsageError(f"{name} is an object and cannot be corrected to null.", hint)
    if entered.verdict is Verdict.CORRECTED and schema is not None:
        entered = replace(entered, value=_fitting(schema, name, entered.value))
    elif schema is None and (item := items.of(options).get(name)) is not None:
        _check_types(item, entered, [entry.value for entry in targets or entries])
    return Remark(
        path=path,
        name=name,
        verdict=entered.verdict,
        judged=fields.values(answer.output, name),
        corrected=_corrected(entered, _left(answer.output, name, targets, earlier)),
        confidence=entries[0].confidence if len(entries) == 1 else None,
    )


def _left(
    output: JsonObject, name: str, targets: Sequence[FieldValue], earlier: Iterable[Remark]
) -> Sequence[JsonValue]:
    """Return the values of a field that stay if one of them is corrected by its path.

    An earlier correction by a path has replaced the value at it with at most one, any other remark
    all of the field.
    """
    if not targets:
        return ()
    judged = fields.values(output, name)
    stated = [entry for entry in fields.entries(output, name) if entry.key]
    placed = {entry.path: [entry.value] for entry in stated}
    for remark in earlier:
        if remark.name != name or remark.verdict not in (Verdict.CORRECTED, Verdict.REJECTED):
            continue
        is_corrected = remark.verdict is Verdict.CORRECTED
        right = json_values.listed(remark.corrected) if is_corrected else []
        others = _beside(placed, remark.path)
        is_of_one = is_corrected and remark.path in placed and remark.judged == judged
        if is_of_one and right in (others, [*others, *right[-1:]]):
            placed[remark.path] = list(right[len(others) :])
        else:
            placed = _placed(stated, right)
    return _beside(placed, targets[0].path)


def _beside(placed: Mapping[str, Sequence[JsonValue]], path: str) -> list[JsonValue]:
    return [value for place, values in placed.items() if place != path for value in values]


def _placed(stated: Sequence[FieldValue], right: Iterable[JsonValue]) -> dict[str, list[JsonValue]]:
    """Return right values by the paths where an answer has them; the others have no path."""
    left = list(right)
    placed: dict[str, list[JsonValue]] = {}
    for entry in stated:
        same = [value for value in left if fields.is_same(value, entry.value)][:1]
        for value in same:
            left.remove(value)
        placed[entry.path] = same
    return placed | {"": left}


def _corrected(entered: FeedbackInput, left: Sequence[JsonValue]) -> JsonValue:
    if entered.verdict is not Verdict.CORRECTED:
        return None
    return [*left, *(value for value in json_values.listed(entered.value) if fields.keys(value))]


def _check_all_types(output: JsonObject, options: AnalysisOptions, known: Truth) -> None:
    """Refuse to approve an answer with values of other types that no remark has changed."""
    for name, item in () if options.schema is not None else items.of(options).items():
        if name not in known.fields and name not in known.wrong_fields:
            for value in fields.values(output, name):
                _refuse_other_type(item, value, f"Correct or reject it first: --path '{name}'.")


def _check_types(item: DeclaredItem, entered: FeedbackInput, accepted: Sequence[JsonValue]) -> None:
    if entered.verdict is Verdict.APPROVED:
        for value in accepted:
            _refuse_other_type(item, value, "Correct or reject it.")
    elif entered.verdict is Verdict.CORRECTED:
        for value in json_values.listed(entered.value):
            if item.kind in (ColumnKind.DATE, ColumnKind.DATES):
                _refuse_unread_date(value)
            _refuse_other_type(item, value, "Correct it otherwise, or reject it.")


def _refuse_other_type(item: DeclaredItem, value: JsonValue, hint: str) -> None:
    """Refuse a value that the column of an item cannot hold, so that its cell would be empty."""
    if item.type and fields.keys(value) and not is_of_kind(value, item.kind):
        what = items.TYPES[item.type][1]
        if any(len(readings) > 1 for readings in quantities(json_values.text_of(value) or "")):
            what = f"{what}, or can be read in two ways,"
            hint = "Write thousands without a separator, such as 1234.5."
        raise UsageError(f"“{value}” is not {what}, which {item.name} declares.", hint)


def _refuse_unread_date(value: JsonValue) -> None:
    if isinstance(value, str) and None in dates.readings(value):
        raise UsageError(
            f"“{value}” is not a date, or its day and month are ambiguous.",
            "Write year, month and day, such as 2025-04-03.",
        )


def _field_at(output: JsonObject, path: str, schema: JsonObject | None) -> str:
    known = fields.names(output)
    pointed = fields.name_at(output, path)
    if pointed is not None:
        return pointed
    below = (path for path, _ in json_values.walk(output.get(USER_DATA)) if path)
    by_name = {_as_column(name): name for name in (*below, *known)}
    meant = path if path in known else by_name.get(_as_column(path), path)
    if not _is_field(output, meant, schema):
        declared = SchemaNode.root_of(schema).properties if schema else ()
        listed = list(dict.fromkeys((*known, *map(fields.pointer, declared))))
        hint = f"It has {', '.join(listed[:_MAX_NAMED])}."
        if near := difflib.get_close_matches(_as_column(path), by_name, n=1):
            hint = f"Did you mean “{by_name[near[0]]}”?"
        raise UsageError(f"The answer has no field “{path}”.", hint)
    return meant if schema is None else fields.pointer(meant)


def _as_column(name: str) -> str:
    return _BETWEEN_WORDS.sub(" ", name.strip("/").casefold())


def _is_field(output: JsonObject, name: str, schema: JsonObject | None) -> bool:
    if USER_DATA not in output:
        return bool(fields.entries(output, name))
    pointer = fields.pointer(name)
    there = dict(json_values.walk(output))
    path, *others = (f"{DATA.path}{prefix}" for prefix in json_values.upward(pointer))
    rows = [place for place in (path, *others) if place.rpartition("/")[2].isdecimal()]
    if any(row not in there for row in rows):
        return False
    return path in there or (schema is not None and SchemaNode.root_of(schema).at(pointer).is_known)


def _fitting(schema: JsonObject, name: str, value: JsonValue) -> JsonValue:
    node = SchemaNode.root_of(schema).at(name)
    fitting = _converted(node, value)
    if value is None or not node.is_known:
        return fitting
    allowed: list[JsonValue] = [form for form in node.schemas if isinstance(form, dict)]
    around: JsonObject = {
        **{key: schema[key] for key in ("$defs", "definitions", "$schema") if key in schema},
        "properties": {"value": {"allOf": allowed}},
    }
    if problems := validation.problems({"value": fitting}, around):
        said = "; ".join(problem.removeprefix("/value: ") for problem in problems)
        known = json_values.encoded(allowed[0] if len(allowed) == 1 else allowed)
        more = "…" if len(known) > _MAX_SCHEMA else ""
        hint = f"Its schema: {known[:_MAX_SCHEMA]}{more}"
        raise UsageError(f"The value does not fit {name}: {said}.", hint)
    return fitting


def _converted(node: SchemaNode, value: JsonValue) -> JsonValue:
    if "array" in node.types and value is not None:
        return [_converted(node.items, element) for element in json_values.listed(value)]
    if isinstance(value, str) and node.format == "date":
        _refuse_unread_date(value)
        day = typed(value).date
        return value if day is None else day.isoformat()
    if not isinstance(value, str) or "string" in node.types:
        return value
    if "boolean" in node.types and value.casefold() in TRUTHS:
        return TRUTHS[value.casefold()] == "true"
    number = typed(value).number if node.types & {"number", "integer"} else None
    if number is None:
        return value
    return int(number) if number == int(number) else float(number)


def _of_anything(answer: AnswerWithConfidence, entered: FeedbackInput) -> Remark:
    if entered.verdict is Verdict.CORRECTED and not entered.path:
        raise UsageError("The correction names no value.", "Use the form PATH=VALUE.")
    known = dict(json_values.walk(answer.output))
    if entered.path not in known:
        paths = [path for path, value in known.items() if not isinstance(value, dict | list)]
        paths.sort(key=lambda path: path.count("/"))
        further = len(paths) - _MAX_NAMED
        more = f", and {further:,} more" if further > 0 else ""
        hint = f"It has {', '.join(paths[:_MAX_NAMED])}{more}."
        raise UsageError(f"The answer has no value at “{entered.path}”.", hint)
    return Remark(
        path=entered.path,
        verdict=entered.verdict,
        judged=known[entered.path],
        corrected=entered.value if entered.verdict is Verdict.CORRECTED else None,
        confidence=None if entered.path else answer.confidence,
    )
