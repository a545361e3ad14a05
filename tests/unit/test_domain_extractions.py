"""Extractions: which items are asked for, and how values and their evidence merge."""

from __future__ import annotations

import json

import pytest

from chordwise.domain import json_values
from chordwise.domain.analyses import extraction
from chordwise.domain.analyses.catalog import analysis_for
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.tasks import AnalysisOptions, AnalysisTask, AnalysisType, Stage

ORDER: JsonObject = {
    "type": "object",
    "$defs": {"best": {"type": "array", "maxItems": 3}},
    "properties": {
        "total": {"type": ["number", "null"]},
        "paid": {"type": ["boolean", "null"]},
        "parties": {"type": "array", "items": {"type": "object"}},
        "flags": {"type": "array", "uniqueItems": True},
        "best": {"anyOf": [{"$ref": "#/$defs/best"}, {"type": "null"}]},
        "place": {"type": "array", "minItems": 2, "maxItems": 2},
    },
}


def task_of(analysis_type: AnalysisType, options: AnalysisOptions | None = None) -> AnalysisTask:
    """Return a question under these options."""
    return AnalysisTask(
        analysis_type=analysis_type, stage=Stage.ANALYZE, options=options or AnalysisOptions()
    )


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        ("", extraction.DEFAULT_ITEMS),
        ("  \n ", extraction.DEFAULT_ITEMS),
        ("price, date", ("price", "date")),
        ("price; date\nplace", ("price", "date", "place")),
        ("- price\n- date\n2) place", ("price", "date", "place")),
        ("amounts (in USD, EUR), date", ("amounts (in USD, EUR)", "date")),
        ("price, price", ("price",)),
    ],
)
def test_items_are_what_the_instructions_name(instructions: str, expected: tuple[str, ...]) -> None:
    """Split at commas, semicolons and lines, but not inside parentheses."""
    assert extraction.items(AnalysisOptions(instructions=instructions)) == expected


def a_field(item: str, value: str | None, confidence: int = 5, quote: str = "q") -> JsonObject:
    """Return an extraction's field; without a value it is not mentioned."""
    status = extraction.NOT_MENTIONED if value is None else extraction.FOUND
    found = None if value is None else quote
    return {
        "item": item,
        "status": status,
        "value": value,
        "quote": found,
        "confidence": confidence,
    }


def test_an_extraction_needs_an_entry_for_every_item() -> None:
    """And a value with its quote where it says that it found one."""
    task = task_of(AnalysisType.EXTRACTION, AnalysisOptions(instructions="price, date"))
    answer: JsonObject = {"fields": [a_field("price", "5", quote="")]}

    found = analysis_for(AnalysisType.EXTRACTION).problems(answer, task)

    assert len(found) == 2
    assert "'date'" in found[0]
    assert found[1].startswith("/fields/0")


def test_merged_fields_keep_each_value_once_and_the_surest_mention() -> None:
    """“Not mentioned” stands only where no chunk has a value."""
    options = AnalysisOptions(instructions="price, date")
    parts: list[JsonObject] = [
        {"fields": [a_field("price", None), a_field("date", None)]},
        {"fields": [a_field("price", "5 USD", 4, "weak"), a_field("date", None)]},
        {"fields": [a_field("price", "5 usd ", 9, "strong"), a_field("price", "6 USD")]},
    ]

    merged = analysis_for(AnalysisType.EXTRACTION).merge(parts, options)

    fields = json_values.objects(merged["fields"])
    found = [(field["item"], field["value"], field["quote"]) for field in fields]
    assert found == [("price", "5 usd ", "strong"), ("price", "6 USD", "q"), ("date", None, None)]


def test_the_confidence_of_an_extraction_is_that_of_what_it_found() -> None:
    """Denials count only where nothing was found."""
    analysis = analysis_for(AnalysisType.EXTRACTION)

    assert analysis.confidence({"fields": [a_field("a", "x", 8), a_field("b", None, 2)]}) == 0.8
    assert analysis.confidence({"fields": [a_field("b", None, 2)]}) == 0.2
    assert analysis.confidence({"fields": []}) == 0


def an_order(data: JsonValue, **evidence: str) -> JsonObject:
    """Return the answer of a chunk under the schema of an order; evidence is quote = path."""
    entries: list[JsonValue] = [
        {"path": path, "quote": quote, "confidence": 5} for quote, path in evidence.items()
    ]
    return {"data": data, "evidence": entries}


def merged_orders(*parts: JsonObject) -> tuple[JsonValue, dict[JsonValue, JsonValue]]:
    """Return the merged data, and the merged evidence as path by quote."""
    options = AnalysisOptions(schema=ORDER)
    merged = analysis_for(AnalysisType.EXTRACTION).merge(parts, options)
    entries = json_values.objects(merged["evidence"])
    return merged["data"], {entry["quote"]: entry["path"] for entry in entries}


def test_evidence_follows_its_value_into_the_merged_data() -> None:
    """Lists are joined: equal rows of two chunks stand at different places, and both are kept."""
    data, evidence = merged_orders(
        an_order({"parties": [{"name": "Ann"}, {"name": "Ben"}]}, q1="/parties/1/name"),
        an_order(
            {"parties": [{"name": "Cid"}, {"name": "Ann"}]}, q2="/parties/0/name", q3="/parties/1"
        ),
    )

    names = ["Ann", "Ben", "Cid", "Ann"]
    assert data == {"parties": [{"name": name} for name in names]}
    assert evidence == {"q1": "/parties/1/name", "q2": "/parties/2/name", "q3": "/parties/3"}


def test_evidence_of_a_dropped_value_is_dropped() -> None:
    """Where two chunks disagree the first one's value stays, with its evidence alone."""
    data, evidence = merged_orders(
        an_order({"total": 5, "paid": None}, five="/total", nothing="/paid"),
        an_order({"total": 7, "paid": True}, seven="/total", yes="/paid"),
        an_order({"total": 5}, again="/total"),
    )

    assert data == {"total": 5, "paid": True}
    assert evidence == {"five": "/total", "yes": "/paid", "again": "/total"}


def test_evidence_with_a_path_to_nowhere_stays_as_it_is() -> None:
    """A model may miss the form of a pointer; its quote is not thrown away for that."""
    _, evidence = merged_orders(
        an_order({"total": 5}, q1="total", q2="/missing/0", q3="", q4="/parties/x")
    )

    assert evidence == {"q1": "total", "q2": "/missing/0", "q3": "", "q4": "/parties/x"}


def test_merged_data_tells_true_from_one() -> None:
    """In JSON they are different values, in Python they are equal."""
    data, _ = merged_orders(an_order({"flags": [1, True]}), an_order({"flags": [True, 0, False]}))

    assert json.dumps(data) == '{"flags": [1, true, 0, false]}'


def test_a_list_of_distinct_values_drops_repetitions() -> None:
    """`uniqueItems` says so; the evidence of each mention leads to the one value."""
    data, evidence = merged_orders(
        an_order({"flags": ["a", "b"]}, q1="/flags/1"),
        an_order({"flags": ["b", "c"]}, q2="/flags/0", q3="/flags/1"),
    )

    assert data == {"flags": ["a", "b", "c"]}
    assert evidence == {"q1": "/flags/1", "q2": "/flags/1", "q3": "/flags/2"}


def test_a_list_with_a_limit_takes_turns_between_the_chunks() -> None:
    """The merged data keeps to `maxItems`; evidence of what found no room is dropped."""
    data, evidence = merged_orders(
        an_order({"best": ["a", "b", "c"]}, q1="/best/0", q2="/best/2"),
        an_order({"best": ["d", "e"]}, q3="/best/0"),
    )

    assert data == {"best": ["a", "b", "d"]}
    assert evidence == {"q1": "/best/0", "q3": "/best/2"}


def test_a_tuple_is_one_value() -> None:
    """A pair of coordinates is not joined with another one."""
    data, evidence = merged_orders(
        an_order({"place": [47.5, 9.7]}, q1="/place/0"),
        an_order({"place": [48.1, 11.6]}, q2="/place/1"),
    )

    assert data == {"place": [47.5, 9.7]}
    assert evidence == {"q1": "/place/0"}


def test_rows_are_counted_by_list() -> None:
    """Nested ones over all rows, distinct values once; tuples are no lists."""
    parts = [
        an_order({"parties": [{"tags": ["x"]}, {"tags": ["x", "y"]}], "flags": ["a", "b"]}),
        an_order({"parties": [{"tags": ["x"]}], "flags": ["b"], "place": [1, 2], "best": ["k"]}),
    ]

    counts = analysis_for(AnalysisType.EXTRACTION).row_counts(parts, AnalysisOptions(schema=ORDER))

    assert {path: (count.number, count.max_items) for path, count in counts.items()} == {
        "/data/parties": (3, None),
        "/data/parties/*/tags": (4, None),
        "/data/flags": (2, None),
        "/data/best": (1, 3),
    }


def test_rows_under_a_recursive_schema_are_counted() -> None:
    """References to itself end where the data ends."""
    node: JsonObject = {
        "type": "object",
        "properties": {"parts": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
    }
    schema: JsonObject = {**node, "$defs": {"node": node}}
    tree: JsonValue = {"parts": [{"parts": [{}, {}]}, {"parts": []}]}

    counts = analysis_for(AnalysisType.EXTRACTION).row_counts(
        [an_order(tree)], AnalysisOptions(schema=schema)
    )

    assert {path: count.number for path, count in counts.items()} == {
        "/data/parts": 2,
        "/data/parts/*/parts": 2,
    }


def test_a_merge_without_any_value_keeps_its_shape() -> None:
    """Nothing said is what the first chunk said it with."""
    assert merged_orders(an_order({"total": None}), an_order({}))[0] == {"total": None}
    assert merged_orders(an_order({"parties": []}), an_order({"parties": []}))[0] == {"parties": []}
