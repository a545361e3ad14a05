"""Tests of leaves: values of nested data are compared one by one, lists in their best order."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.domain.json_values import JsonValue
from chordwise.domain.learning.leaves import Leaf, assigned, compared

SCORES = st.integers(0, 5).flatmap(
    lambda size: st.lists(
        st.lists(st.integers(0, 4), min_size=size, max_size=size), min_size=size, max_size=size
    )
)
CHAIR: dict[str, JsonValue] = {"name": "chair", "price": 40}
DESK: dict[str, JsonValue] = {"name": "desk", "price": 9}


def similar(expected: JsonValue, value: JsonValue) -> float:
    """Return the F1 of two values."""
    leaves = compared(expected, value, lambda one, other: one == other)
    sides = sum(leaf.is_expected + leaf.is_found for leaf in leaves)
    return 2 * sum(leaf.similarity for leaf in leaves) / sides if sides else 1.0


@given(SCORES)
def test_the_assignment_is_the_best_of_all(scores: list[list[int]]) -> None:
    """It has each column once, and no permutation has a higher sum."""
    columns = assigned(scores)

    assert sorted(columns) == list(range(len(scores)))
    best = max(
        sum(scores[row][column] for row, column in enumerate(order))
        for order in permutations(range(len(scores)))
    )
    assert sum(scores[row][column] for row, column in enumerate(columns)) == best


@pytest.mark.parametrize(
    ("expected", "value", "f1"),
    [
        ([CHAIR, DESK], [DESK, CHAIR], 1),
        ([CHAIR, DESK], [{"name": "desk", "price": 8}, CHAIR], 3 / 4),
        ([CHAIR, DESK], [CHAIR], 2 / 3),
        ([CHAIR], [CHAIR, CHAIR], 2 / 3),
        ({"a": {"b": 1, "c": None}}, {"a": {"b": 1}}, 1),
        ({"a": {"b": 1}}, {"a": "text"}, 0),
        ("chairs", "chair", 5 / 6),
        ("chair", "table", 0),
        (["a", "b"], "b", 2 / 3),
        ([[1, 2], [3]], [[3], [2, 1]], 1),
        ([], None, 1),
    ],
)
def test_values_are_compared_in_their_best_order(
    expected: JsonValue, value: JsonValue, f1: float
) -> None:
    assert similar(expected, value) == pytest.approx(f1)
    assert similar(value, expected) == pytest.approx(f1)


def test_a_leaf_has_the_path_of_its_members() -> None:
    leaves = compared({"rows": [DESK]}, {"rows": [CHAIR]}, lambda one, other: one == other)

    assert leaves == [
        Leaf("/rows/name", 0.0, is_expected=True, is_found=True),
        Leaf("/rows/price", 0.0, is_expected=True, is_found=True),
    ]


def test_long_lists_are_paired_in_order_once_equal_elements_are_gone() -> None:
    rows: list[JsonValue] = [{"name": str(number), "price": number} for number in range(200)]
    wrong: list[JsonValue] = [{"name": str(number), "price": -1} for number in range(100)]

    assert similar(rows, [*reversed(rows)]) == 1
    assert similar(rows, [*reversed(rows[100:]), *wrong]) == pytest.approx(3 / 4)
