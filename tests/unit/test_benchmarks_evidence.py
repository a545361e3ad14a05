"""Tests of the measurements of rows and pages in docs/quality.md."""

from __future__ import annotations

from pathlib import Path

from benchmarks import evidence
from chordwise.domain.json_values import JsonObject


def test_missing_rows_are_reported_and_complete_lists_are_not() -> None:
    rows: list[JsonObject] = [
        {"text": f"The part of number {number} is here", "label": "part"} for number in range(40)
    ]

    told, whole = evidence.by_lists("parts", rows, Path())

    assert (told.count, told.value) == (8, 1.0)
    assert (whole.count, whole.value) == (4, 1.0)


def test_short_lists_are_detected_as_incomplete() -> None:
    rows: list[JsonObject] = [
        {"text": f"send me part {number}", "label": "part_order"} for number in range(8)
    ]

    *told, whole = evidence.by_short_lists("parts", rows, Path())

    assert [each.count for each in told] == [4, 4, 4]
    assert [each.value for each in told] == [1.0, 1.0, 1.0]
    assert (whole.count, whole.value) == (4, 1.0)


def test_a_list_from_prose_is_complete() -> None:
    text = "On May 3, 1999 it opened. It was closed on 4/7/2001, and sold on June 1, 2002, at last."

    (found,) = evidence.by_prose("prose", [{"text": text}], Path())

    assert (found.count, found.value) == (1, 1.0)
