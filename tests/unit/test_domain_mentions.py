"""Tests of choosing the mention of a quote that occurs several times in a text."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from chordwise.domain import grounding, json_values
from chordwise.domain.grounding import Source
from chordwise.domain.json_values import JsonValue

NAMES = [f"Bolt M{number}" if number % 8 else "Coffee" for number in range(1, 61)]
ROWS = [(name, str(1 + number % 9), f"{1 + number % 7}.50") for number, name in enumerate(NAMES)]
LAYOUTS = {
    "csv": "{id},{0},{1},{2}\n",
    "markdown": "| {id} | {0} | {1} | {2} |\n",
    "names and values": "No.: {id}\nName: {0}\nQuantity: {1}\nPrice: {2} EUR\n\n",
    "a value on each line": "{id}\n{0}\n{1}\n{2}\n",
    "xml on one line": "<row no='{id}'><name>{0}</name><n>{1}</n><price>{2}</price></row>",
    "sentences": "No. {id} are {1} {0} at {2} EUR each. ",
}
RECORDS = {
    layout: [form.format(*row, id=number) for number, row in enumerate(ROWS)]
    for layout, form in LAYOUTS.items()
}


def spans_of(text: str, quotes: Sequence[tuple[str, str]]) -> list[tuple[int, int]]:
    entries: list[JsonValue] = [{"path": path, "quote": quote} for path, quote in quotes]
    found = grounding.ground({"data": {}, "evidence": entries}, Source(text))
    return [
        (
            int(json_values.number(each["start_char"]) or 0),
            int(json_values.number(each["end_char"]) or 0),
        )
        for each in json_values.objects(found["evidence"])
    ]


@pytest.mark.parametrize("is_shuffled", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_values_of_a_row_are_located_in_its_record(layout: str, *, is_shuffled: bool) -> None:
    records = RECORDS[layout]
    text = f"Bolt M3 and 2 others at 1.50 are new.\n\n{''.join(records)}\nCoffee was 2.50 before.\n"
    numbers = range(len(ROWS))
    order = sorted(numbers, key=lambda each: each * 37 % len(ROWS)) if is_shuffled else numbers

    found = spans_of(
        text,
        [
            (f"/rows/{place}/{name}", value)
            for place, number in enumerate(order)
            for name, value in zip(("name", "quantity", "price"), ROWS[number], strict=True)
        ],
    )

    starts = [text.index(records[0])]
    for record in records:
        starts.append(starts[-1] + len(record))
    rows = [found[each : each + 3] for each in range(0, len(found), 3)]
    for number, row in zip(order, rows, strict=True):
        if ROWS[number][0] not in ("Coffee", "Bolt M3"):
            assert all(starts[number] <= a < b <= starts[number + 1] for a, b in row), (number, row)
    if not is_shuffled:
        coffees = [row for number, row in enumerate(rows) if ROWS[number][0] == "Coffee"]
        assert len({row[0] for row in coffees}) == len(coffees)
