"""The fields of an extraction, addressed by the names that people use for them."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import TypeAlias

from chordwise.domain import answer_tables, items, json_values
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.dates import DateOrder
from chordwise.domain.identifiers import sql_identifier
from chordwise.domain.json_values import USER_DATA, JsonObject, JsonValue
from chordwise.domain.learning import leaves
from chordwise.domain.learning.leaves import Leaf
from chordwise.domain.quantities import Quantity
from chordwise.domain.schema_nodes import SchemaNode
from chordwise.domain.typed_values import TypedValue, typed
from chordwise.domain.value_in_quote import LEGAL_FORMS

Key: TypeAlias = tuple[str, str]
"""The identity of a value: its path below the field, without list indexes, and normalized text."""
Row: TypeAlias = frozenset[Key]
"""An object in a list, as the set of its keys."""

# Signs at the end of a word distinguish grades and languages: A, A+ and A-, C, C# and C++.
_TOKEN = re.compile(r"(?<!\w)-\d+|\w+|[%‰$€£¥]|(?<=\w)(?:\++|#|-)(?!\w)")
_OPEN = ("$ref", "allOf", "anyOf", "oneOf", "patternProperties", "additionalProperties")
"""Keywords of a JSON Schema whose objects may have members that `properties` does not name."""
_POINTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldValue:
    """A value of a field in an answer; `key` is `None` without a value (“not mentioned”).

    `path` is a JSON Pointer into the output, `confidence` is 0 to 1, or `None` if not claimed.
    """

    path: str
    value: JsonValue
    key: Key | None
    confidence: float | None


class Rule(StrEnum):
    """The rule by which a value of a field counts as right.

    Equal values are the same text, date, number with its currency and unit, or name apart from its
    legal form; the rule `typed` also accepts a number within a thousandth, and `contains` a text
    with the right one in it.
    """

    EQUAL = "equal"
    TYPED = "typed"
    CONTAINS = "contains"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparing:
    """How values are compared: by a rule, with the order of ambiguous dates.

    With `alternatives`, a right text may state several acceptable ones: `Delaware | Del.`.
    """

    rule: Rule = Rule.EQUAL
    dates: DateOrder | None = None
    alternatives: bool = False

    def aligned(self, field_values: Sequence[FieldValue], expected: JsonValue) -> list[FieldValue]:
        """Return entries, each with the key of the right value that it matches, if any."""
        right = keys(expected)
        leaves = list(_leaves(expected))

        def matched(entry: FieldValue) -> FieldValue:
            if entry.key is None or entry.key in right:
                return entry
            keys_matched = (
                _key(path, leaf)
                for path, leaf in leaves
                if path == entry.key[0] and self.is_same(entry.value, leaf)
            )
            return replace(entry, key=next(keys_matched, entry.key))

        return [matched(entry) for entry in field_values]

    def leaves(self, output: JsonObject, name: str, expected: JsonValue) -> list[Leaf]:
        """Return the single values of a field; numbers are the same within a thousandth."""
        tolerant = replace(self, rule=Rule.TYPED) if self.rule is Rule.EQUAL else self
        path = _unnumbered(pointer(name))
        return leaves.compared(expected, data_at(output, name), tolerant.is_same, path)

    def is_same(self, value: JsonValue, right: JsonValue) -> bool:
        """Return whether a value counts as a right one."""
        return any(self._is_same(value, acceptable) for acceptable in self._acceptable(right))

    def is_exact(self, values: Sequence[JsonValue], expected: JsonValue) -> bool:
        """Return whether each value is literally an expected one, apart from outer white space."""
        right = {
            _written(acceptable).strip()
            for _, leaf in _leaves(expected)
            for acceptable in self._acceptable(leaf)
        }
        return all(_written(value).strip() in right for value in values)

    def manners(self, expected: JsonValue) -> Iterator[str]:
        """Yield how each right value is compared, in words."""
        for _, leaf in _leaves(expected):
            if normalized(leaf):
                yield self._manner(self._acceptable(leaf)[0])

    def _manner(self, right: JsonValue) -> str:
        if self.rule is Rule.CONTAINS:
            return "by containment"
        value = typed(right, self.dates)
        if value.date is not None:
            return "as a date"
        if value.number is not None:
            return "as an amount" if value.currency else "as a number"
        if normalized(right) in _TRUTH:
            return "as yes or no"
        return "as a name" if _name(right)[1] else "as text"

    def _acceptable(self, leaf: JsonValue) -> Sequence[JsonValue]:
        if not self.alternatives or not isinstance(leaf, str):
            return [leaf]
        return [part for part in map(str.strip, leaf.split("|")) if part] or [leaf]

    def _is_same(self, value: JsonValue, right: JsonValue) -> bool:
        text, right_text = normalized(value), normalized(right)
        tolerance = _TOLERANCE if self.rule is Rule.TYPED else Decimal(0)
        return (
            text == right_text
            or (self.rule is Rule.CONTAINS and f" {right_text} " in f" {text} ")
            or _is_equivalent(typed(value, self.dates), typed(right, self.dates), tolerance)
            or _is_same_name(_name(value), _name(right))
            or _TRUTH.get(text, text) == _TRUTH.get(right_text)
        )


_TOLERANCE = Decimal("0.001")
_TRUTH = dict.fromkeys(("yes", "y", "true"), True) | dict.fromkeys(("no", "n", "false"), False)
_DEFINED_TERM = re.compile(r"\([^()]*[\"“”][^()]*\)")
"""The name by which a contract refers to a party: (“Lessor”)."""
_BETWEEN_ANSWERS = re.compile(r"[;\n]")
_DOT_OF_LETTER = re.compile(r"(?<=\b[^\W\d_])\.")


def _name(value: JsonValue) -> tuple[list[str], set[str]]:
    """Return the words of a name without article and defined terms, and its legal forms."""
    text = _DEFINED_TERM.sub(" ", _written(value)).replace("&", " and ")
    name = normalized(_DOT_OF_LETTER.sub("", text)).removeprefix("the ").split()
    forms: set[str] = set()
    while len(name) > 1 and name[-1] in LEGAL_FORMS:
        forms.add(LEGAL_FORMS[name.pop()])
    return name, forms


def _is_same_name(name: tuple[list[str], set[str]], other: tuple[list[str], set[str]]) -> bool:
    return name[0] == other[0] != [] and (name[1] == other[1] or not name[1] or not other[1])


def _is_equivalent(value: TypedValue, right: TypedValue, tolerance: Decimal) -> bool:
    if value.number is None or right.number is None:
        return value.date is not None and value.date == right.date
    if value.currency and right.currency and value.currency != right.currency:
        return False
    number, unit = Quantity(number=value.number, unit=value.unit).measure
    right_number, right_unit = Quantity(number=right.number, unit=right.unit).measure
    if not unit or not right_unit:
        return abs(value.number - right.number) <= abs(right.number) * tolerance
    return unit == right_unit and abs(number - right_number) <= abs(right_number) * tolerance


def names(output: JsonObject) -> list[str]:
    """Return the field names: the items, or a JSON Pointer for each member of the data."""
    if USER_DATA in output:
        data = output[USER_DATA]
        members = data if isinstance(data, dict) else {}
        return [json_values.pointer("", name) for name in members]
    return list(dict.fromkeys(json_values.text(field.get("item")) for field in _listed(output)))


def top(name: str) -> str:
    """Return the top-level field that contains a nested value; see `names`."""
    return f"/{name.split('/')[1]}" if name.startswith("/") else name


def requested_fields(names: Iterable[str], options: AnalysisOptions) -> dict[str, str]:
    """Return the field that each name means: an item or a pointer, or its column or heading.

    Names of nothing that the question asks for are left out.
    """
    columns = {
        column.name: column.pointer if options.schema else column.item
        for column in answer_tables.columns_for([AnalysisType.EXTRACTION], options)
        if not column.rows
    }
    meant = {
        name: _requested_field(name, options) or columns.get(sql_identifier(name), "")
        for name in names
    }
    return {name: field for name, field in meant.items() if field}


def _requested_field(name: str, options: AnalysisOptions) -> str | None:
    if options.schema is None:
        by_name = {item.casefold(): item for item in items.of(options)}
        return by_name.get(name.strip().casefold())
    members = options.schema.get("properties")
    if not isinstance(members, dict) or any(options.schema.get(keyword) for keyword in _OPEN):
        return name
    step = json_values.steps(pointer(name))[0]
    return name if step in members else None


def values_of_cell(name: str, cell: JsonValue, options: AnalysisOptions) -> JsonValue:
    """Return the values in a cell, parted by semicolons or lines if the field is a list of texts.

    The names that a contract gives to parties, such as (“Lessor”), are left out of lists.
    """
    if options.schema is None:
        is_list = items.kind_in(options, name).is_list
    else:
        is_list = SchemaNode.root_of(options.schema).at(name).is_list
    if not is_list or not isinstance(cell, str):
        return cell
    parts = (part.strip(" ,") for part in _BETWEEN_ANSWERS.split(_DEFINED_TERM.sub("", cell)))
    return [part for part in parts if part]


def is_same_field(name: str, one: AnalysisOptions, other: AnalysisOptions) -> bool:
    """Return whether two questions ask for a field of this name, with the same schema if any."""
    if one.schema is None and other.schema is None:
        return items.of(one).get(name, "") == items.of(other).get(name)
    if one.schema is None or other.schema is None:
        return False
    step = json_values.steps(pointer(name))[0]
    schemas = (one.schema, other.schema)
    members = [json_values.member(schema.get("properties"), step) for schema in schemas]
    definitions = [(schema.get("$defs"), schema.get("definitions")) for schema in schemas]
    return members[0] == members[1] is not None and definitions[0] == definitions[1]


def entries(output: JsonObject, name: str) -> list[FieldValue]:
    """Return the entries of a field in an answer, in order; empty if it has no such field."""
    if USER_DATA in output:
        return list(_of_data(output, name))
    return [
        _entry(f"/fields/{index}", "", field.get("value"), field.get("confidence"))
        for index, field in enumerate(_listed(output))
        if field.get("item") == name
    ]


def values(output: JsonObject, name: str) -> list[JsonValue]:
    """Return the values of a field, with rows and objects as a whole; empty if not mentioned."""
    if USER_DATA not in output:
        return [entry.value for entry in entries(output, name) if entry.key is not None]
    return [value for value in json_values.listed(data_at(output, name)) if keys(value)]


def paths_with(output: JsonObject, name: str, value: JsonValue) -> list[str]:
    """Return the paths of a field's values that a person rejected as `value`.

    In lists these are all equal values, and may have moved; a member of a row is found in another
    row if only one has its value.
    """
    sought = keys(value)
    if USER_DATA not in output:
        return [e.path for e in entries(output, name) if (e.key in sought if sought else not e.key)]
    if keys(values(output, name)) == sought:
        names = [pointer(name)]
    else:
        names = _elements(output, pointer(name), "", value) or _moved(output, pointer(name), value)
    return [f"/{USER_DATA}{path}" for path in names]


def _moved(output: JsonObject, name: str, value: JsonValue) -> list[str]:
    for element in json_values.upward(name):
        listed, _, step = element.rpartition("/")
        if step.isdecimal():
            below = name.removeprefix(element)
            moved = _elements(output, listed, below, value)
            return moved if not below or len(moved) == 1 else []
    return []


def _elements(output: JsonObject, listed: str, below: str, value: JsonValue) -> list[str]:
    """Return the names of the values below the elements of a list that are among the values."""
    sought = [keys(one) for one in json_values.listed(value)]
    size = len(json_values.listed(data_at(output, listed)))
    names = [f"{listed}/{index}{below}" for index in range(size)]
    return [name for name in names if keys(data_at(output, name)) in sought]


def name_at(output: JsonObject, path: str) -> str | None:
    """Return the field at a JSON Pointer into the output, or `None`."""
    steps = json_values.steps(path)
    if USER_DATA in output:
        below = path.removeprefix(f"/{USER_DATA}")
        is_there = steps[:1] == [USER_DATA] and bool(entries(output, below))
        return below if is_there and below else None
    if len(steps) > 1 and steps[0] == "fields":
        field = json_values.member([*_listed(output)], steps[1])
        return json_values.text(field.get("item")) if isinstance(field, dict) else None
    return None


def keys(value: JsonValue) -> frozenset[Key]:
    """Return the keys of a scalar, a list or an object; nulls and empty texts have none."""
    leaf_keys = (_key(path, leaf) for path, leaf in _leaves(value))
    return frozenset(key for key in leaf_keys if key is not None)


def rows(value: JsonValue) -> Counter[Row]:
    """Return the objects of a list, each as the set of its keys, with their counts."""
    return Counter(keys(row) for row in json_values.objects(value))


def rows_of(field_values: Sequence[FieldValue], name: str) -> Counter[Row]:
    """Return the rows of a field, a member of a user's own schema, like `rows`, from its values."""
    depth = len(json_values.steps(pointer(name))) + 1
    keys_by_row: dict[str, set[Key]] = defaultdict(set)
    for entry in field_values:
        if entry.key:
            keys_by_row["/".join(json_values.steps(entry.path)[depth : depth + 1])].add(entry.key)
    return Counter(map(frozenset, keys_by_row.values()))


def normalized(value: JsonValue) -> str:
    """Return a value for comparison: case-folded, without punctuation, in Unicode form NFKC.

    Minus signs, percent signs and currencies are kept, and so are articles, since a value is not
    prose. A sign at the end of a word is kept as well, as in A+.
    """
    text = unicodedata.normalize("NFKC", _written(value)).casefold().replace("−", "-")
    return " ".join(_TOKEN.findall(text)) or text.strip()


def is_same(value: JsonValue, other: JsonValue) -> bool:
    """Return whether two values are equal in their normalized form."""
    return normalized(value) == normalized(other)


def data_at(output: JsonObject, name: str) -> JsonValue:
    """Return the value of a member of a user's own schema, or `None`."""
    return json_values.at(output.get(USER_DATA), pointer(name))


def pointer(name: str) -> str:
    """Return the JSON Pointer of a member of a user's own schema, named with or without a slash."""
    return name if name.startswith("/") else f"/{name}"


def _of_data(output: JsonObject, name: str) -> Iterator[FieldValue]:
    evidence = json_values.objects(output.get("evidence"))
    claims = {
        json_values.text(entry.get("path")): entry.get("confidence") for entry in reversed(evidence)
    }
    for below, value in json_values.scalars(data_at(output, name)):
        place = f"{pointer(name)}{below}"
        yield _entry(f"/{USER_DATA}{place}", _unnumbered(below), value, claims.get(place))


def _entry(path: str, below: str, value: JsonValue, points: JsonValue) -> FieldValue:
    claimed = json_values.number(points)
    confidence = None if claimed is None else claimed / _POINTS
    return FieldValue(path=path, value=value, key=_key(below, value), confidence=confidence)


def _listed(output: JsonObject) -> Sequence[JsonObject]:
    return json_values.objects(output.get("fields"))


def _key(path: str, value: JsonValue) -> Key | None:
    text = normalized(value)
    return (path, text) if text else None


def _leaves(value: JsonValue) -> Iterator[tuple[str, JsonValue]]:
    return ((_unnumbered(path), leaf) for path, leaf in json_values.scalars(value))


def _unnumbered(path: str) -> str:
    return "".join(f"/{step}" for step in json_values.steps(path) if not step.isdecimal())


def _written(value: JsonValue) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
