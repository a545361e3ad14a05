"""Leaves: the values of nested data, compared one by one, with lists in their best order.

Elements of lists are paired so that the sum of the similarities of their values is highest; those
that are literally equal are paired first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeAlias

from rapidfuzz.distance import Levenshtein

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonValue
from chordwise.domain.schema_data import canonical_json

Same: TypeAlias = Callable[[JsonValue, JsonValue], bool]
_MAX_PAIRS = 1_600
"""The pairs of elements that are compared; of longer lists the elements are paired in order."""
_LEAST_SIMILARITY = 0.5
"""Texts that are less similar count as different (ANLS; Biten et al. 2019)."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value of the truth, of an answer, or of both; `path` has no list indexes.

    `similarity` is 0 to 1, and 0 for a value of only one side.
    """

    path: str
    similarity: float
    is_expected: bool
    is_found: bool


def compared(expected: JsonValue, value: JsonValue, is_same: Same, path: str = "") -> list[Leaf]:
    """Return the leaves of two values; empty values have none.

    Of texts that are not the same, the similarity is 1 - edit distance / length of the longer one.
    """
    if isinstance(expected, dict) and isinstance(value, dict):
        return [
            leaf
            for name in expected | value
            for leaf in compared(
                expected.get(name), value.get(name), is_same, json_values.pointer(path, name)
            )
        ]
    if isinstance(expected, list) or isinstance(value, list):
        return _of_lists(json_values.listed(expected), json_values.listed(value), is_same, path)
    if isinstance(expected, dict) or isinstance(value, dict):
        pairs = (expected, _empty(expected)), (_empty(value), value)
        return [leaf for one, other in pairs for leaf in compared(one, other, is_same, path)]
    sides = json_values.is_filled(expected), json_values.is_filled(value)
    if not any(sides):
        return []
    return [Leaf(path, _similarity(expected, value, is_same) if all(sides) else 0.0, *sides)]


def _empty(value: JsonValue) -> JsonValue:
    return {} if isinstance(value, dict) else None


def _of_lists(
    expected: list[JsonValue], values: list[JsonValue], is_same: Same, path: str
) -> list[Leaf]:
    by_text: dict[str, list[JsonValue]] = defaultdict(list)
    for value in values:
        by_text[canonical_json(value)].append(value)
    equal: list[JsonValue] = []
    rest: list[JsonValue] = []
    for element in expected:
        same = by_text[canonical_json(element)]
        (equal if same else rest).append(same.pop() if same else element)
    others = [value for same in by_text.values() for value in same]
    leaves = [leaf for value in equal for leaf in compared(value, value, is_same, path)]
    for element, value in _paired(rest, others, is_same):
        leaves += compared(element, value, is_same, path)
    return leaves


def _paired(
    expected: Sequence[JsonValue], values: Sequence[JsonValue], is_same: Same
) -> Iterator[tuple[JsonValue, JsonValue]]:
    """Yield all elements and values, in pairs as far as possible; else with `None`."""
    if len(expected) > len(values):
        return ((element, value) for value, element in _paired(values, expected, is_same))
    order: Sequence[int] = range(len(expected))
    if len(expected) * len(values) <= _MAX_PAIRS:
        order = assigned(
            [
                [sum(leaf.similarity for leaf in compared(one, value, is_same)) for value in values]
                for one in expected
            ]
        )
    rest = sorted(set(range(len(values))).difference(order))
    return zip_longest(expected, (values[place] for place in (*order, *rest)))


def assigned(scores: Sequence[Sequence[float]]) -> Sequence[int]:
    """Return a different column for each row, with the highest sum of scores (up to 0.05).

    There are no more rows than columns. The rows bid for columns (Bertsekas 1988).
    """
    prices = [0.0] * len(scores[0]) if scores else []
    owners: dict[int, int] = {}
    waiting = list(range(len(scores)))
    while waiting:
        row = waiting.pop()
        gains = [score - price for score, price in zip(scores[row], prices, strict=True)]
        best, *others = sorted(range(len(gains)), key=gains.__getitem__, reverse=True)[:2]
        prices[best] += gains[best] - gains[others[0] if others else best] + 0.05 / len(scores)
        if best in owners:
            waiting.append(owners[best])
        owners[best] = row
    return sorted(owners, key=owners.__getitem__)


def _similarity(expected: JsonValue, value: JsonValue, is_same: Same) -> float:
    if expected == value or is_same(value, expected):
        return 1.0
    if not isinstance(expected, str) or not isinstance(value, str):
        return 0.0
    length = max(len(expected), len(value))
    similarity = 1 - Levenshtein.distance(expected.casefold(), value.casefold()) / length
    return similarity if similarity >= _LEAST_SIMILARITY else 0.0
