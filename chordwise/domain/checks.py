"""Checks of an answer: declared relations between values, leaks from examples, and names.

A declaration in `x-checks` is data: four kinds, with JSON Pointers to the values, in which `*`
stands for every position of a list. Except for `required`, a check passes if a value is missing or
if the values cannot be compared.
"""

from __future__ import annotations

import operator
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import TypeAlias

import jsonschema_rs

from chordwise.domain import items, json_values, schemas, words
from chordwise.domain.analyses import extraction
from chordwise.domain.analysis_tasks import AnalysisOptions, Example
from chordwise.domain.extractive.proper_names import FORMS, name_lists
from chordwise.domain.extractive.values import ValueKind, values
from chordwise.domain.grounding import Source
from chordwise.domain.json_values import JsonObject, JsonValue, text_of
from chordwise.domain.schema_data import ANY_POSITION
from chordwise.domain.schema_nodes import SchemaNode
from chordwise.domain.schemas import CHECKS
from chordwise.domain.typed_values import typed
from chordwise.domain.words import LEXICON
from chordwise.errors import UsageError

MAX_CHECKS = 50
_OPERATORS: Mapping[str, Callable[[Decimal, Decimal], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_Positions: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedCheck:
    """A check that an answer fails; `path` is a JSON Pointer into the output.

    `problem` contains nothing of the answer and may be put into a prompt; `found` and `expected`
    are the compared values, if there are two.
    """

    check: str
    path: str
    problem: str
    found: str | None = None
    expected: str | None = None


def failures(
    output: JsonObject, options: AnalysisOptions, learned: Sequence[Example] = ()
) -> tuple[FailedCheck, ...]:
    """Return the checks that an answer about a whole document fails, values before quotes.

    `learned` are the examples that were shown in addition to those of the options.
    """
    declared = json_values.objects((options.schema or {}).get(CHECKS))
    kinds = ((_KINDS[json_values.text(check["check"])], check) for check in declared)
    failed = (failed for find, check in kinds for failed in find(check, output.get("data")))
    return (*failed, *failures_of_part(output, options, learned))


def failures_of_part(
    output: JsonObject, options: AnalysisOptions, learned: Sequence[Example] = ()
) -> tuple[FailedCheck, ...]:
    """Return the checks that a grounded answer about any part of a document fails."""
    return (*_repetitions(output, options), *_leaks(output, options, learned), *_no_names(output))


def _repetitions(output: JsonObject, options: AnalysisOptions) -> Iterator[FailedCheck]:
    """Yield a failure for each list with rows that repeat the values and places of another row."""
    for path, number in extraction.repetitions(output, options).items():
        rows = "row repeats" if number == 1 else "rows repeat"
        problem = f"{number} {rows} the values of another one at the same place"
        yield FailedCheck(check="repetition", path=path, problem=problem)


def _leaks(
    output: JsonObject, options: AnalysisOptions, learned: Sequence[Example]
) -> Iterator[FailedCheck]:
    sources = [Source(example.text) for example in (*options.examples, *learned)]
    members: JsonObject = {name: value for name, value in output.items() if name != "data"}
    for path, item in json_values.walk(members if sources else None):
        if isinstance(item, dict) and item.get("grounded") is False:
            quote = json_values.text(item.get("quote"))
            if any(source.locate(quote) for source in sources):
                problem = "the quote is in an example and not in the text"
                yield FailedCheck(check="example", path=f"{path}/quote", problem=problem)


# Names of parties, companies and persons

_TERMS = {kind: {words.stem(word) for word in listed} for kind, listed in LEXICON["kinds"].items()}
_NAME = words.stem("name")
_PARTIES = {*_TERMS.pop("person"), *_TERMS.pop("organization"), words.stem("registrant")} - {_NAME}
_OTHER_KINDS = frozenset().union(*_TERMS.values())
_ROADS = "Street|Avenue|Road|Boulevard|Parkway|Lane|Highway"
_ADDRESS = re.compile(
    r"(?<![\w/.'’-])(?:\d[\w/-]{0,9}+|One|Two|Three|Four|Five|Ten) (?:[A-Z][\w.'’-]{0,30}+ ){1,4}?"
    rf"(?:{_ROADS}|St|Ave|Rd|Blvd|Way|Drive|Court|Place|Plaza|Square)\b"
)
_ADDRESS_LINE = re.compile(
    rf"{_ADDRESS.pattern}.*+|(?:[A-Z]\w*+ ){{1,4}}?(?:{_ROADS})|P\.? ?O\.? Box \d.*+"
)
_PLACE_LINE = re.compile(r"[A-Z][\w.'’ -]*+, ([^\W\d]++(?: [^\W\d]++)*+)(?: \d{5}(?:-\d{4})?)?")


def _no_names(output: JsonObject) -> Iterator[FailedCheck]:
    """Yield a failure for each address, place, date or number where a name was requested."""
    quotes = {
        json_values.text(entry.get("path")): json_values.text(entry.get("quote"))
        for entry in json_values.objects(output.get("evidence"))
    }
    read: list[tuple[str, str, JsonValue, str]] = []
    for path, value in json_values.scalars(output.get("data")):
        question = " ".join(step for step in json_values.steps(path) if not step.isdecimal())
        read.append((f"/data{path}", question, value, quotes.get(path, "")))
    for number, field in enumerate(json_values.objects(output.get("fields"))):
        item, quote = (json_values.text(field.get(name)) for name in ("item", "quote"))
        read.append((json_values.pointer("/fields", number), item, field.get("value"), quote))
    for path, question, value, quote in read:
        text = json_values.text(value).strip()
        if text and _asks_for_name(question) and (kind := _kind_of_no_name(text, quote)):
            yield FailedCheck(check="name", path=path, problem=f"the value is {kind}, not a name")


@lru_cache(maxsize=1_000)
def _asks_for_name(question: str) -> bool:
    """Return whether an item, or the names on a path, end in a word for a party or its name."""
    spelled = question.replace("_", " ")
    terms, head = words.terms(spelled), words.terms(items.noun_of(spelled))[-1:]
    is_party = not _PARTIES.isdisjoint(terms if head == [_NAME] else head)
    return (is_party or terms == [_NAME]) and _OTHER_KINDS.isdisjoint(terms)


def _kind_of_no_name(text: str, quote: str) -> str:
    if not any(map(str.isalpha, text)):
        return "a number" if any(map(str.isdigit, text)) else ""
    if any(text == date.text for date in values(ValueKind.DATE, text)):
        return "a date"
    place = _PLACE_LINE.fullmatch(text)
    if place and place[1].casefold() in name_lists().states:
        return "a place"
    is_within = quote.count(text) == 1 and any(text in hit[0] for hit in _ADDRESS.finditer(quote))
    is_line = _ADDRESS_LINE.fullmatch(text) and FORMS.isdisjoint(words.words(text))
    return "an address" if is_within or is_line else ""


def check_declarations(schema: JsonObject) -> None:
    """Validate the checks that a schema declares.

    Raises:
        UsageError: A declaration is invalid, or names a value that the schema does not define.
    """
    declared = schema.get(CHECKS, [])
    if not isinstance(declared, list) or len(declared) > MAX_CHECKS:
        raise UsageError(f"{CHECKS} must be a list of at most {MAX_CHECKS} checks.", _HINT)
    for number, check in enumerate(declared, start=1):
        if problem := _problem(check, SchemaNode.root_of(schema)):
            raise UsageError(f"{CHECKS}, check {number}: {problem}.", _HINT)


def defined_by(schema: JsonObject, declared: Sequence[JsonObject]) -> list[JsonObject]:
    """Return the declared checks all of whose values a schema defines."""
    root = SchemaNode.root_of(schema)
    return [check for check in declared if not _problem(check, root)]


_HINT = "docs/analyses.md#checks-between-values shows each kind."
_PATH: JsonObject = {"type": "string", "pattern": "^/"}
_PATHS_OF_A_SUM: JsonObject = {
    **schemas.array(_PATH, at_least=1, at_most=20),
    **_PATH,
    "type": ["string", "array"],
}
_TOLERANCE: JsonObject = {"type": "number", "minimum": 0}
_VALUE: JsonObject = {"type": ["string", "number", "boolean"]}


def _form(kind: str, required: JsonObject, optional: JsonObject) -> jsonschema_rs.Validator:
    properties: JsonObject = {"check": {"const": kind}, "message": schemas.string()}
    properties |= required | optional
    return jsonschema_rs.validator_for({**schemas.closed(properties), "required": list(required)})


_FORMS: Mapping[str, jsonschema_rs.Validator] = {
    "sum": _form(
        "sum",
        {"of": _PATHS_OF_A_SUM, "equals": {**_PATH, "type": ["string", "number"]}},
        {"tolerance": _TOLERANCE},
    ),
    "order": _form("order", {"before": _PATH, "after": _PATH}, {"strict": {"type": "boolean"}}),
    "compare": _form(
        "compare",
        {"left": _PATH, "operator": schemas.one_of([*_OPERATORS]), "right": _VALUE},
        {"tolerance": _TOLERANCE},
    ),
    "required": _form("required", {"field": _PATH, "if": _PATH}, {"equals": _VALUE}),
}
_PATHS = {
    "sum": ("of", "equals"),
    "order": ("before", "after"),
    "compare": ("left", "right"),
    "required": ("field", "if"),
}
"""The entries that are, or may be, JSON Pointers."""


def _problem(declared: JsonValue, root: SchemaNode) -> str:
    kind = json_values.text(declared.get("check")) if isinstance(declared, dict) else ""
    if not isinstance(declared, dict) or kind not in _FORMS:
        return f'"check" has to be one of {", ".join(_FORMS)}'
    for error in _FORMS[kind].iter_errors(declared):
        place = "".join(f'"{step}": ' for step in error.instance_path)
        return f"{place}{error.message}"
    *paths, last = [path for name in _PATHS[kind] for path in _paths(declared[name])]
    for path in (*paths, last):
        if not _is_known(path, root):
            return f"the schema does not define {path}"
        one, other = _list_of(path), _list_of(last)
        if not (one.startswith(other) or other.startswith(one)):
            return f"{path} and {last} are in different lists"
    return ""


def _paths(value: JsonValue) -> list[str]:
    return json_values.strings([value] if _is_path(value) else value)


def _is_path(value: JsonValue) -> bool:
    return isinstance(value, str) and value.startswith("/")


def _is_known(path: str, node: SchemaNode) -> bool:
    for step in json_values.steps(path):
        node = node.items if step == ANY_POSITION else node.member(step)
    return node.is_known


def _list_of(path: str) -> str:
    return path[: path.rfind(f"/{ANY_POSITION}") + 2] if f"/{ANY_POSITION}" in path else ""


def _sum(declared: JsonObject, data: JsonValue) -> Iterator[FailedCheck]:
    """Compare a value with the sum of the values in its row; skip rows with a missing value."""
    parts_of, equals = _paths(declared["of"]), declared["equals"]
    of = " + ".join(parts_of)
    totals = json_values.text(equals) if _is_path(equals) else ""
    of_row: dict[_Positions, list[JsonValue]] = defaultdict(list)
    for path in parts_of:
        for positions in _rows(data, json_values.steps(path)):
            of_row[positions[: _depth(totals)]].append(_at(data, path, positions)[1])
    for row, parts in of_row.items():
        path, total = _at(data, totals, row) if totals else (parts_of[0], equals)
        numbers, expected = [_number(part) for part in parts], _number(total)
        known = [number for number in numbers if number is not None]
        if expected is None or len(known) < len(numbers):
            continue
        if abs(sum(known, Decimal(0)) - expected) > _tolerance(declared):
            problem = f"the sum of {of} is not {equals}"
            yield _failed(declared, path, problem, str(sum(known)), str(expected))


def _order(declared: JsonObject, data: JsonValue) -> Iterator[FailedCheck]:
    before, after = declared["before"], declared["after"]
    sign = "<" if declared.get("strict") is True else "<="
    message = declared.get("message", f"{before} is not before {after}")
    compared: JsonObject = {"left": before, "operator": sign, "right": after}
    return _compare({**declared, **compared, "message": message}, data)


def _compare(declared: JsonObject, data: JsonValue) -> Iterator[FailedCheck]:
    left, right = json_values.text(declared["left"]), declared["right"]
    other = json_values.text(right) if _is_path(right) else ""
    sign = json_values.text(declared["operator"])
    for row in _rows(data, json_values.steps(max(left, other, key=_depth))):
        path, value = _at(data, left, row)
        expected = _at(data, other, row)[1] if other else right
        difference = typed(value).difference(typed(expected))
        if difference is None and sign in ("=", "!="):
            difference = _text_difference(value, expected)
        if difference is None:
            continue
        if abs(difference) <= _tolerance(declared):
            difference = Decimal(0)
        if not _OPERATORS[sign](difference, Decimal(0)):
            problem = f"{left} {sign} {right} does not hold"
            yield _failed(declared, path, problem, text_of(value), text_of(expected))


def _required(declared: JsonObject, data: JsonValue) -> Iterator[FailedCheck]:
    field, condition = (json_values.text(declared[name]) for name in ("field", "if"))
    for row in _rows(data, json_values.steps(max(field, condition, key=_depth))):
        path, value = _at(data, field, row)
        actual = _at(data, condition, row)[1]
        holds = json_values.is_filled(actual)
        if "equals" in declared:
            equals = declared["equals"]
            difference = typed(actual).difference(typed(equals))
            holds = difference == 0 or _text_difference(actual, equals) == 0
        if holds and not json_values.is_filled(value):
            yield _failed(declared, path, f"{field} is missing beside {condition}")


_KINDS: Mapping[str, Callable[[JsonObject, JsonValue], Iterator[FailedCheck]]] = {
    "sum": _sum,
    "order": _order,
    "compare": _compare,
    "required": _required,
}


def _failed(
    declared: JsonObject,
    path: str,
    problem: str,
    value: str | None = None,
    expected: str | None = None,
) -> FailedCheck:
    return FailedCheck(
        check=json_values.text(declared["check"]),
        path=f"/data{path}",
        problem=json_values.text(declared.get("message")) or problem,
        found=value,
        expected=expected,
    )


def _depth(path: str) -> int:
    return json_values.steps(path).count(ANY_POSITION)


def _rows(value: JsonValue, steps: Sequence[str], above: _Positions = ()) -> Iterator[_Positions]:
    """Yield the positions that the `*` of a path stand for; without `*`, one empty tuple."""
    if not steps:
        yield above
    elif steps[0] != ANY_POSITION:
        yield from _rows(json_values.member(value, steps[0]), steps[1:], above)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _rows(item, steps[1:], (*above, position))


def _at(data: JsonValue, path: str, row: _Positions) -> tuple[str, JsonValue]:
    positions, place, value = iter(row), "", data
    for step in json_values.steps(path):
        key = str(next(positions)) if step == ANY_POSITION else step
        place, value = json_values.pointer(place, key), json_values.member(value, key)
    return place, value


def _number(value: JsonValue) -> Decimal | None:
    return typed(value).number


def _tolerance(declared: JsonObject) -> Decimal:
    return _number(declared.get("tolerance")) or Decimal(0)


def _text_difference(left: JsonValue, right: JsonValue) -> Decimal | None:
    """Return 0 for two texts that are equal up to case, else 1; `None` for other values."""
    if isinstance(left, str) and isinstance(right, str):
        return Decimal(left.strip().casefold() != right.strip().casefold())
    return None
