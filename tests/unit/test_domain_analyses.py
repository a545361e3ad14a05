"""Tests of the analysis types: their schemas, their validation, and their merging."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chordwise.domain import analysis as analyses
from chordwise.domain import grounding, json_values, validation
from chordwise.domain import items as item_names
from chordwise.domain.analyses import extraction
from chordwise.domain.analyses.sentiment import label_for
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType, PromptTemplate
from chordwise.domain.grounding import Source
from chordwise.domain.items import DEFAULT_ITEMS, ColumnKind, kind_of
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.prompts import render
from chordwise.errors import UsageError
from chordwise.llm import schema_dialects
from tests.fakes.completion_requests import a_task
from tests.fakes.generated_answers import TEXT, a_field, grounded_answers, options_for, task_for

EXTRACTION, SUMMARY, CLASSIFICATION = (
    analysis_for(kind)
    for kind in (AnalysisType.EXTRACTION, AnalysisType.SUMMARY, AnalysisType.CLASSIFICATION)
)
EVERY_TYPE = pytest.mark.parametrize("analysis_type", list(AnalysisType))


# Generating answers from schemas and filtering them takes time.
few_examples = settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))


@EVERY_TYPE
def test_every_schema_is_valid_and_closed(analysis_type: AnalysisType) -> None:
    """Each object allows and requires exactly its properties, except those that are not kept."""
    analysis = analysis_for(analysis_type)
    schema = validation.check_schema(analysis.schema(AnalysisOptions()))

    for _, value in json_values.walk(schema):
        if isinstance(value, dict) and value.get("type") == "object":
            assert value["additionalProperties"] is False
            properties = json_values.as_object(value["properties"])
            assert value["required"] == list(analysis.without_reasoning(properties))
    assert schema_dialects.for_openai_strict(schema) is not None


def test_an_analysis_of_reasoning_begins_with_considerations() -> None:
    analysis = analysis_for(AnalysisType.REASONING)

    properties = json_values.as_object(analysis.schema(AnalysisOptions())["properties"])

    assert next(iter(properties)) == "considerations"
    assert analysis.without_reasoning({"considerations": "hm", "gaps": []}) == {"gaps": []}


@EVERY_TYPE
@few_examples
@given(data=st.data())
def test_merged_answers_are_valid_answers(analysis_type: AnalysisType, data: st.DataObject) -> None:
    """Completing an answer changes none of its values."""
    analysis, options = analysis_for(analysis_type), options_for(analysis_type)
    parts = data.draw(grounded_answers(analysis_type))

    merged = analysis.merge(parts, options)

    answer = json_values.as_object(grounding.without_spans(merged))
    assert validation.problems(answer, analysis.schema(options)) == []
    assert analysis.problems(answer, task_for(analysis_type)) == []
    given_quotes = [quote for part in parts for quote in grounding.quotes(part)]
    kept = [{n: v for n, v in q.items() if n != "mentions"} for q in grounding.quotes(merged)]
    assert all(quote in given_quotes for quote in kept)
    for part in (merged, *parts):
        assert 0 <= analysis.confidence(part) <= 1
        output = analysis.complete(part, options)
        assert {name: output[name] for name in part} == part


def a_finding(name: str, quote: str) -> JsonObject:
    return {"finding": name, "quote": quote}


def a_summary(*findings: JsonObject, confidence: int = 5, topic: str = "t") -> JsonObject:
    return {
        "main_topic": topic,
        "key_findings": list(findings),
        "conclusions": [],
        "confidence": confidence,
    }


def test_a_merged_summary_covers_the_whole_document() -> None:
    """With more chunks than findings, the first and the last chunk are both represented."""
    parts = [a_summary(a_finding(f"f{n}", f"q{n}"), a_finding("g", "r")) for n in range(12)]

    merged = SUMMARY.merge(parts, AnalysisOptions())

    names = [finding["finding"] for finding in json_values.objects(merged["key_findings"])]
    assert len(names) == 5
    assert names[0] == "f0"
    assert names[-1] == "f11"


def test_the_chunk_with_the_highest_confidence_supplies_the_topic() -> None:
    parts = [
        a_summary(a_finding("a", "a"), confidence=3, topic="vague"),
        a_summary(a_finding("b", "b"), confidence=9, topic="clear"),
    ]

    merged = SUMMARY.merge(parts, AnalysisOptions())

    assert merged["main_topic"] == "clear"
    assert merged["confidence"] == 6


def test_a_completed_summary_lists_its_evidence() -> None:
    answer = a_summary(a_finding("a", "It"), a_finding("b", ""), a_finding("c", "nowhere at all"))

    output = SUMMARY.complete(grounding.ground(answer, Source(TEXT)), AnalysisOptions())

    evidence = json_values.objects(output["evidence"])
    assert [entry["supports"] for entry in evidence] == ["/key_findings/0", "/key_findings/2"]
    assert [entry["grounded"] for entry in evidence] == [True, False]


def a_vote(primary: str | None, confidence: float, secondary: str | None = None) -> JsonObject:
    return {
        "primary_label": primary,
        "secondary_label": secondary,
        "confidence": confidence,
        "features": [{"feature": f"says {primary}", "quote": primary or "nothing"}],
        "uncertainty_factors": [],
    }


def test_the_chunks_vote_with_their_confidence() -> None:
    """Two uncertain chunks do not outvote a certain one, and the dissenting label is reported."""
    parts = [a_vote("news", 0.3), a_vote("news", 0.2), a_vote("law", 0.9)]

    merged = CLASSIFICATION.merge(parts, AnalysisOptions())

    assert (merged["primary_label"], merged["secondary_label"]) == ("law", "news")
    assert merged["confidence"] == round(0.9 / 1.4 * 0.9, 3)
    assert json_values.strings(merged["uncertainty_factors"])[0].startswith("36%")
    features = json_values.objects(merged["features"])
    assert [feature["quote"] for feature in features] == ["law"]


def test_chunks_with_zero_confidence_still_give_a_label() -> None:
    merged = CLASSIFICATION.merge([a_vote("a", 0.0), a_vote("b", 0.0, "c")], AnalysisOptions())

    assert merged["primary_label"] in ("a", "b")
    assert merged["confidence"] == 0


def test_chunks_without_a_label_have_no_vote() -> None:
    abstained = a_vote(None, 0.9)

    merged = CLASSIFICATION.merge([abstained, a_vote("law", 0.4), abstained], AnalysisOptions())
    none_fits = CLASSIFICATION.merge([a_vote(None, 0.2), abstained], AnalysisOptions())

    assert (merged["primary_label"], merged["confidence"]) == ("law", 0.4)
    assert (none_fits["primary_label"], none_fits["confidence"]) == (None, 0.9)
    assert [CLASSIFICATION.has_findings(output) for output in (merged, none_fits)] == [True, False]


def test_only_the_labels_of_the_user_are_allowed() -> None:
    """Both labels may be null, but not the primary label alone, and they must differ."""
    options = AnalysisOptions(labels=("news", "law"))
    schema = CLASSIFICATION.schema(options)

    assert validation.problems(a_vote("news", 0.5), schema) == []
    assert validation.problems(a_vote(None, 0.5), schema) == []
    assert validation.problems(a_vote("sports", 0.5), schema)
    assert validation.problems(a_vote("news", 0.5, "sports"), schema)
    task = a_task(AnalysisType.CLASSIFICATION)
    assert CLASSIFICATION.problems(a_vote("a", 0.5, "a"), task)
    assert CLASSIFICATION.problems(a_vote(None, 0.5, "a"), task)
    assert CLASSIFICATION.problems(a_vote(None, 0.5), task) == []


def test_evidence_must_not_name_large_lists_too_often() -> None:
    """Otherwise the number of values to check would grow with the square of the answer."""
    rows: list[JsonValue] = [{"a": "x"}] * 400
    entry: JsonObject = {"path": "/rows", "quote": "x", "confidence": 5}
    task = a_task(AnalysisType.EXTRACTION, options=AnalysisOptions(schema={"type": "object"}))

    problems = [
        EXTRACTION.problems({"data": {"rows": rows}, "evidence": [entry] * times}, task)
        for times in (200, 300)
    ]

    assert problems == [[], ["/evidence: the paths name lists too often; name single values"]]


@pytest.mark.parametrize(
    ("label", "score", "contradiction"),
    [
        ("positive", -0.5, True),
        ("negative", 0.5, True),
        ("positive", 0.5, False),
        ("negative", 0.05, False),
        ("mixed", 0.9, False),
        ("neutral", -0.9, False),
    ],
)
def test_label_and_score_have_one_sign(label: str, score: float, *, contradiction: bool) -> None:
    answer: JsonObject = {"label": label, "score": score}

    problems = analysis_for(AnalysisType.SENTIMENT).problems(answer, a_task(AnalysisType.SENTIMENT))

    assert bool(problems) is contradiction


@pytest.mark.parametrize(
    ("score", "parts", "label"),
    [
        (0.0, [0.9, -0.9], "mixed"),
        (0.5, [0.5], "positive"),
        (-0.5, [-0.5, -0.5], "negative"),
        (0.05, [0.05], "neutral"),
        (0.2, [0.6, -0.2], "positive"),
    ],
)
def test_a_merged_score_has_its_label(score: float, parts: list[float], label: str) -> None:
    """Strong scores of both signs are mixed, whatever their mean."""
    assert label_for(score, parts) == label


@given(st.lists(st.lists(st.integers(), max_size=5), max_size=8), st.integers(0, 20))
def test_items_are_taken_from_the_lists_in_turn(lists: list[list[int]], limit: int) -> None:
    """No list contributes a second item before every list has contributed its first."""
    tagged = [[(place, rank) for rank in range(len(items))] for place, items in enumerate(lists)]

    chosen = analyses.round_robin(tagged, limit)

    assert len(chosen) == min(limit, sum(map(len, lists)))
    assert chosen == sorted(set(chosen))
    deepest = max((rank for _, rank in chosen), default=0)
    for place, items in enumerate(tagged):
        taken = [rank for where, rank in chosen if where == place]
        assert taken == list(range(len(taken)))
        assert len(taken) >= min(deepest, len(items))


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


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        ("", DEFAULT_ITEMS),
        ("  \n ", DEFAULT_ITEMS),
        ("price, date", ("price", "date")),
        ("price; date\nplace", ("price", "date", "place")),
        ("- price\n- date\n2) place", ("price", "date", "place")),
        ("amounts (in USD, EUR), date", ("amounts (in USD, EUR)", "date")),
        ("price, price", ("price",)),
    ],
)
def test_items_are_parsed_from_instructions(instructions: str, expected: tuple[str, ...]) -> None:
    """They are split at commas, semicolons and lines, but not inside parentheses."""
    assert extraction.items(AnalysisOptions(instructions=instructions)) == expected


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (ColumnKind.TEXT, "governing law; invoice number; payment terms; notice days; gas; status"),
        (ColumnKind.DATE, "effective date; date of birth; day"),
        (ColumnKind.MONEY, "annual fee; sum of all invoices; fee (if any); operating earnings"),
        (ColumnKind.MONEY, "total assets; net proceeds; gross earnings; total fees; net sales"),
        (ColumnKind.NUMBER, "number of all employees; total employees; share of revenue"),
        (ColumnKind.TEXTS, "parties; people; assets; names of the parties; name of each director"),
        (ColumnKind.TEXTS, "amounts of money; amount of each payment; topics; employee IDs"),
        (ColumnKind.DATES, "dates; deadlines; all dates"),
    ],
)
def test_the_name_of_an_item_determines_the_kind_of_its_values(
    kind: ColumnKind, names: str
) -> None:
    assert {name: kind_of(name) for name in names.split("; ")} == dict.fromkeys(
        names.split("; "), kind
    )


def test_a_declared_type_is_not_part_of_the_name() -> None:
    options = AnalysisOptions(items=("annual fee: Money", "notice (in days, please): text", "name"))

    assert {name: item.kind for name, item in item_names.of(options).items()} == {
        "annual fee": ColumnKind.MONEY,
        "notice (in days, please)": ColumnKind.TEXT,
        "name": ColumnKind.TEXT,
    }
    assert "- annual fee (an amount of money with its currency)\n" in asked_for(options)


@pytest.mark.parametrize("name", ["fee: dollars", "fee: monney"])
def test_an_unknown_type_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError, match="not a type of values") as refused:
        item_names.check(AnalysisOptions(instructions=f"{name}, term: how long it runs, at 12:30"))

    assert "text, number, money, date, yes/no, list" in refused.value.hint


def test_an_item_has_one_type() -> None:
    item_names.check(AnalysisOptions(items=("fee: money", "fee:Money", "signed: date")))
    with pytest.raises(UsageError, match="declared twice: signed: date, and signed: money"):
        item_names.check(AnalysisOptions(items=("signed: date", "fee", "signed: money")))
    with pytest.raises(UsageError, match="declared twice: Fee, and fee"):
        item_names.check(AnalysisOptions(items=("Fee", "signed: date", "fee")))


def asked_for(options: AnalysisOptions) -> str:
    template = PromptTemplate(name="x", system="$items\n", user="")
    return render(template, a_task(AnalysisType.EXTRACTION, options=options), {}).system


def test_an_extraction_needs_an_entry_for_every_item() -> None:
    task = a_task(AnalysisType.EXTRACTION, options=AnalysisOptions(instructions="price, date"))
    answer: JsonObject = {"fields": [a_field("price", "5", quote="")]}

    problems = EXTRACTION.problems(answer, task)

    assert len(problems) == 2
    assert "'date'" in problems[0]
    assert problems[1].startswith("/fields/0")


def test_a_value_of_an_item_that_several_chunks_have_stands_once() -> None:
    """It keeps its first quote. “Not mentioned” remains only if no chunk has a value."""
    options = AnalysisOptions(instructions="parties, date")
    parts: list[JsonObject] = [
        {"fields": [a_field("parties", None), a_field("date", None)]},
        {
            "fields": [
                a_field("parties", "Acme  Inc.", 4, quote="by Acme  Inc."),
                a_field("date", None),
            ]
        },
        {
            "fields": [
                a_field("parties", "ACME Inc. ", 9),
                a_field("parties", "Beta"),
                a_field("date", None),
            ]
        },
        {"fields": [a_field("parties", "Beta"), a_field("date", "ACME Inc.")]},
    ]

    merged = EXTRACTION.merge(parts, options)
    counts = EXTRACTION.row_counts(parts, options)

    fields = json_values.objects(merged["fields"])
    assert [(field["item"], field["value"], field["quote"]) for field in fields] == [
        ("parties", "Acme  Inc.", "by Acme  Inc."),
        ("parties", "Beta", "Beta"),
        ("date", "ACME Inc.", "ACME Inc."),
    ]
    assert counts["/fields/parties"].number == 2


def test_numbers_of_a_list_at_different_places_are_kept() -> None:
    """They may be several entries, as may repetitions in one chunk; mentions of one are counted."""
    options = AnalysisOptions(instructions="prices, fee")
    here, there, fee, later = (
        {**a_field(item, "5 USD"), "start_char": start, "end_char": start + 5}
        for item, start in (("prices", 10), ("prices", 40), ("fee", 50), ("fee", 80))
    )
    parts: list[JsonObject] = [
        {"fields": [here, here, fee]},
        {"fields": [here, there, later]},
    ]

    joining = EXTRACTION.join(parts, options)

    assert joining.output["fields"] == [here, here, there, {**fee, "mentions": 2}]
    assert joining.parts == ()


def test_the_confidence_of_an_extraction_is_that_of_its_values() -> None:
    assert EXTRACTION.confidence({"fields": [a_field("a", "x", 8), a_field("b", None, 2)]}) == 0.8
    assert EXTRACTION.confidence({"fields": [a_field("b", None, 2)]}) == 0.2
    assert EXTRACTION.confidence({"fields": []}) == 0


def an_order(data: JsonValue, **evidence: str) -> JsonObject:
    """Return the answer about a chunk under the schema of an order; evidence is quote = path."""
    entries: list[JsonValue] = [
        {"path": path, "quote": quote, "confidence": 5} for quote, path in evidence.items()
    ]
    return {"data": data, "evidence": entries}


def merged_orders(*parts: JsonObject) -> tuple[JsonValue, dict[JsonValue, JsonValue]]:
    options = AnalysisOptions(schema=ORDER)
    merged = EXTRACTION.merge(parts, options)
    entries = json_values.objects(merged["evidence"])
    return merged["data"], {entry["quote"]: entry["path"] for entry in entries}


ANN, BEN, CID = (json_values.as_object({"name": name}) for name in ("Ann", "Ben", "Cid"))
MERGES: dict[str, tuple[list[JsonObject], JsonObject, dict[str, str]]] = {
    "equal rows of two chunks without a place are both kept": (
        [
            an_order({"parties": [ANN, BEN]}, q1="/parties/1/name"),
            an_order({"parties": [CID, ANN]}, q2="/parties/0/name", q3="/parties/1"),
        ],
        {"parties": [ANN, BEN, CID, ANN]},
        {"q1": "/parties/1/name", "q2": "/parties/2/name", "q3": "/parties/3"},
    ),
    "the first single value is kept with the evidence for it": (
        [
            an_order({"total": 5, "paid": None}, five="/total", nothing="/paid"),
            an_order({"total": 7, "paid": True}, seven="/total", yes="/paid"),
            an_order({"total": 5}, again="/total"),
        ],
        {"total": 5, "paid": True},
        {"five": "/total", "yes": "/paid", "again": "/total"},
    ),
    "a path without a value is unchanged": (
        [an_order({"total": 5}, q1="total", q2="/missing/0", q3="", q4="/parties/x")],
        {"total": 5},
        {"q1": "total", "q2": "/missing/0", "q3": "", "q4": "/parties/x"},
    ),
    "true is not 1": (
        [an_order({"flags": [1, True]}), an_order({"flags": [True, 0, False]})],
        {"flags": [1, True, 0, False]},
        {},
    ),
    "a list with uniqueItems drops repetitions": (
        [
            an_order({"flags": ["a", "b"]}, q1="/flags/1"),
            an_order({"flags": ["b", "c"]}, q2="/flags/0", q3="/flags/1"),
        ],
        {"flags": ["a", "b", "c"]},
        {"q1": "/flags/1", "q2": "/flags/1", "q3": "/flags/2"},
    ),
    "a list with maxItems takes turns between the chunks": (
        [
            an_order({"best": ["a", "b", "c"]}, q1="/best/0", q2="/best/2"),
            an_order({"best": ["d", "e"]}, q3="/best/0"),
        ],
        {"best": ["a", "b", "d"]},
        {"q1": "/best/0", "q3": "/best/2"},
    ),
    "a tuple is one value": (
        [
            an_order({"place": [47.5, 9.7]}, q1="/place/0"),
            an_order({"place": [48.1, 11.6]}, q2="/place/1"),
        ],
        {"place": [47.5, 9.7]},
        {"q1": "/place/0"},
    ),
    "without values, null and empty lists are kept": (
        [an_order({"total": None, "parties": []}), an_order({"parties": []}), an_order({})],
        {"total": None, "parties": []},
        {},
    ),
}


@pytest.mark.parametrize(("parts", "data", "evidence"), MERGES.values(), ids=MERGES)
def test_evidence_follows_its_value_into_the_merged_data(
    parts: list[JsonObject], data: JsonObject, evidence: dict[str, str]
) -> None:
    merged = merged_orders(*parts)

    assert json.dumps(merged) == json.dumps((data, evidence))


def entries_of(answer: JsonObject) -> list[JsonObject]:
    return json_values.objects(answer["evidence"])


def placed(answer: JsonObject, *starts: int) -> JsonObject:
    placed: list[JsonValue] = [
        {**entry, "start_char": start, "end_char": start + 3}
        for entry, start in zip(entries_of(answer), starts, strict=True)
    ]
    return {**answer, "evidence": placed}


@pytest.mark.parametrize(
    ("value", "count"),
    [("3M Company", 1), ("7-Eleven", 1), ("12.50", 2), ("EUR 5", 2), ("5 May 2020", 2)],
)
def test_a_name_with_a_digit_stands_once_and_an_equal_number_twice(value: str, count: int) -> None:
    """Equal prices at different places may be different entries."""
    options = AnalysisOptions(instructions="parties")
    parts: list[JsonObject] = [
        {"fields": [a_field("parties", value, start_char=place, end_char=place + len(value))]}
        for place in (0, 500)
    ]

    merged = EXTRACTION.merge(parts, options)

    assert len(json_values.objects(merged["fields"])) == count


def test_a_row_found_by_two_chunks_at_the_same_place_counts_once() -> None:
    ann, ben = json_values.as_object({"name": "Ann"}), json_values.as_object({"name": "Ben"})
    parts = [
        placed(an_order({"parties": [ann, ben]}, a="/parties/0", b="/parties/1/name"), 0, 10),
        placed(an_order({"parties": [ben, ann, ann]}, b="/parties/0/name", a="/parties/1"), 10, 50),
    ]
    options = AnalysisOptions(schema=ORDER)

    merged = EXTRACTION.merge(parts, options)

    assert merged["data"] == {"parties": [ann, ben, ann, ann]}
    paths = [(entry["path"], entry["start_char"]) for entry in entries_of(merged)]
    assert paths == [("/parties/0", 0), ("/parties/1/name", 10), ("/parties/2", 50)]
    assert EXTRACTION.row_counts(parts, options)["/data/parties"].number == 4
    assert EXTRACTION.row_places(merged, options) == {
        "/data/parties": [[(0, 3)], [(10, 13)], [(50, 53)]]
    }


def test_a_row_without_a_place_repeats_an_equal_row_of_another_chunk() -> None:
    """A model has read on into the next chunk; of two equal rows there, both are kept."""
    nail, nut, bolt = (
        json_values.as_object({"name": name, "price": 5}) for name in ("nail", "nut", "bolt")
    )
    parts = [
        placed(an_order({"parties": [nail, nut, nut, bolt, nut]}, a="/parties/0"), 0),
        placed(
            an_order({"parties": [nut, nut, bolt]}, b="/parties/0", c="/parties/1", d="/parties/2"),
            *(10, 20, 30),
        ),
        an_order({"parties": [nail, nail]}),
    ]
    options = AnalysisOptions(schema=ORDER)

    merged = EXTRACTION.merge(parts, options)

    assert merged["data"] == {"parties": [nail, nut, nut, nut, bolt, nail]}
    assert EXTRACTION.row_counts(parts, options)["/data/parties"].number == 6


def test_a_row_that_continues_in_the_next_chunk_is_one() -> None:
    """The continuation has only lists, and its evidence points to the row that began before."""
    names: JsonObject = {"type": "array", "items": {"type": "string"}}
    party: JsonObject = {"properties": {"name": {"type": "string"}, "tags": names}}
    schema: JsonObject = {"properties": {"parties": {"type": "array", "items": party}}}
    parts = [
        an_order({"parties": [{"name": "Ann"}, {"name": "Ben", "tags": ["a"]}]}, a="/parties/1"),
        an_order({"parties": [{"name": None, "tags": ["b"]}]}, b="/parties/0/tags/0"),
        an_order({"parties": [{"tags": ["c"]}, {"name": "Cid"}]}, c="/parties/1"),
        an_order({"parties": [{"name": "Dan", "tags": ["d"]}]}),
    ]
    options = AnalysisOptions(schema=schema)

    merged, counts = EXTRACTION.merge(parts, options), EXTRACTION.row_counts(parts, options)

    parties: list[JsonValue] = [
        {"name": "Ann"},
        {"name": "Ben", "tags": ["a", "b", "c"]},
        {"name": "Cid"},
        {"name": "Dan", "tags": ["d"]},
    ]
    assert merged["data"] == {"parties": parties}
    paths = {entry["quote"]: entry["path"] for entry in entries_of(merged)}
    assert paths == {"a": "/parties/1", "b": "/parties/1/tags/1", "c": "/parties/2"}
    assert counts["/data/parties"].number == counts["/data/parties/*/tags"].number == 4


def test_a_model_decides_only_contradictions_between_chunks() -> None:
    """The prompt has only single values, and lists in the answer are ignored."""
    options = AnalysisOptions(schema=ORDER)
    parts = [
        an_order({"total": 5, "paid": True, "parties": [{"name": "Ann"}]}, five="/total"),
        an_order({"total": 7.0, "paid": True, "parties": [{"name": "Ben"}]}, seven="/total"),
        an_order({"total": 7, "paid": None, "parties": []}, again="/total"),
    ]

    joining = EXTRACTION.join(parts, options)
    decided = EXTRACTION.apply_reconciliation(
        joining, an_order({"total": 7, "paid": False, "parties": []})
    )

    assert joining.contested == ["/total"]
    shown = [json_values.as_object(part["data"])["parties"] for part in joining.parts]
    assert shown == [[], [], []]
    names = [{"name": "Ann"}, {"name": "Ben"}]
    assert decided["data"] == {"total": 7, "paid": True, "parties": names}
    assert [entry["quote"] for entry in entries_of(decided)] == ["seven"]


def test_equal_values_of_chunks_need_no_model() -> None:
    options = AnalysisOptions(schema=ORDER)
    parts = [
        an_order({"total": 7, "name": "Ann  Lee"}),
        an_order({"total": 7.0, "name": "ann lee"}),
    ]

    assert EXTRACTION.join(parts, options).parts == ()
    assert EXTRACTION.needs_model_to_join(options)
    assert not EXTRACTION.needs_model_to_join(AnalysisOptions(instructions="price"))


def test_rows_are_counted_by_list() -> None:
    """Nested rows are summed over all rows, distinct values count once; tuples are not lists."""
    parts = [
        an_order({"parties": [{"tags": ["x"]}, {"tags": ["x", "y"]}], "flags": ["a", "b"]}),
        an_order({"parties": [{"tags": ["x"]}], "flags": ["b"], "place": [1, 2], "best": ["k"]}),
    ]

    counts = EXTRACTION.row_counts(parts, AnalysisOptions(schema=ORDER))

    assert {path: (count.number, count.max_items) for path, count in counts.items()} == {
        "/data/parties": (3, None),
        "/data/parties/*/tags": (4, None),
        "/data/flags": (2, None),
        "/data/best": (1, 3),
    }


def test_rows_under_a_recursive_schema_are_counted() -> None:
    node: JsonObject = {
        "type": "object",
        "properties": {"parts": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
    }
    schema: JsonObject = {**node, "$defs": {"node": node}}
    tree: JsonValue = {"parts": [{"parts": [{}, {}]}, {"parts": []}]}

    counts = EXTRACTION.row_counts([an_order(tree)], AnalysisOptions(schema=schema))

    assert {path: count.number for path, count in counts.items()} == {
        "/data/parts": 2,
        "/data/parts/*/parts": 2,
    }
