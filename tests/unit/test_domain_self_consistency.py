"""Tests of votes: the elected answer of several samples, and their agreement."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.domain import json_values
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.answers import Answer, quality_of
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.self_consistency import adjusted_confidence, combined, elected
from chordwise.domain.validation import problems
from tests.fakes.completion_requests import a_task
from tests.fakes.generated_answers import a_field

CLASSIFICATION, SENTIMENT = AnalysisType.CLASSIFICATION, AnalysisType.SENTIMENT
EXTRACTION, SUMMARY = AnalysisType.EXTRACTION, AnalysisType.SUMMARY
NO_OPTIONS = AnalysisOptions()
ITEMS = AnalysisOptions(instructions="price, seller")
OWN_SCHEMA = AnalysisOptions(schema={"type": "object"})


def a_sample(kind: AnalysisType, output: JsonObject) -> Answer:
    return Answer(
        output=output,
        confidence=analysis_for(kind).confidence(output),
        quality=quality_of(output, repaired=False),
        repaired=False,
        provider="openai",
        model="m",
        prompt_version=f"{kind}.analyze@2",
    )


def a_label(label: str, confidence: float = 0.8, *, grounded: bool = True) -> Answer:
    return a_sample(
        CLASSIFICATION,
        {
            "primary_label": label,
            "secondary_label": None,
            "confidence": confidence,
            "features": [{"feature": "a word", "quote": "word", "grounded": grounded}],
            "uncertainty_factors": [],
        },
    )


def an_entry(item: str, value: str, start: int = 0, confidence: int = 7) -> JsonObject:
    span: JsonObject = {"start_char": start, "end_char": start + len(value), "grounded": True}
    return a_field(item, value, confidence, **span)


def denied(item: str) -> JsonObject:
    return a_field(item, None, 9, start_char=None, end_char=None, grounded=False)


def an_extraction(*entries: JsonObject) -> Answer:
    return a_sample(EXTRACTION, {"fields": list(entries)})


def a_summary(topic: str, *findings: str) -> Answer:
    return a_sample(
        SUMMARY,
        {
            "main_topic": topic,
            "key_findings": [{"finding": finding, "quote": finding} for finding in findings],
            "conclusions": [],
            "confidence": 7,
        },
    )


def values(answer: Answer) -> list[tuple[str, str | None]]:
    fields = json_values.objects(answer.output["fields"])
    return [(str(f["item"]), json_values.text(f["value"]) or None) for f in fields]


WORDS = st.sampled_from(["harbour", "Lindau", "1856", "costs", "town", "built", "lake"])
TEXTS = st.lists(WORDS, min_size=1, max_size=6).map(" ".join)


def entries(item: str) -> st.SearchStrategy[list[JsonObject]]:
    entry = st.builds(an_entry, st.just(item), WORDS, st.integers(0, 9), st.integers(1, 10))
    return st.lists(entry, max_size=2).map(lambda several: several or [denied(item)])


SAMPLES: dict[AnalysisType, st.SearchStrategy[Answer]] = {
    CLASSIFICATION: st.builds(
        a_label, st.sampled_from(["a", "b", "B "]), st.floats(0, 1), grounded=st.booleans()
    ),
    SENTIMENT: st.builds(
        lambda label, confidence: a_sample(
            SENTIMENT, {"label": label, "score": 0, "confidence": confidence, "sentences": []}
        ),
        st.sampled_from(["positive", "negative", "mixed"]),
        st.floats(0, 1),
    ),
    EXTRACTION: st.builds(
        lambda one, other: an_extraction(*one, *other), entries("price"), entries("seller")
    ),
    SUMMARY: st.builds(lambda topic, rest: a_summary(topic, *rest), TEXTS, st.lists(TEXTS)),
}


@st.composite
def votes(
    draw: st.DrawFn, kinds: Sequence[AnalysisType] = tuple(sorted(SAMPLES))
) -> tuple[AnalysisType, list[Answer]]:
    kind = draw(st.sampled_from(kinds))
    return kind, draw(st.lists(SAMPLES[kind], min_size=2, max_size=8))


@given(votes(), st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(
    vote: tuple[AnalysisType, list[Answer]], random: Random
) -> None:
    kind, samples = vote
    shuffled = random.sample(samples, len(samples))

    assert elected(shuffled, kind, ITEMS) == elected(samples, kind, ITEMS)


@given(votes())
def test_agreement_is_between_zero_and_one_and_the_answer_keeps_its_form(
    vote: tuple[AnalysisType, list[Answer]],
) -> None:
    kind, samples = vote

    winner = elected(samples, kind, ITEMS)

    assert winner.agreement is not None
    assert 0 < winner.agreement <= 1
    assert 0 <= winner.confidence <= 1
    if kind is EXTRACTION:
        task = a_task(kind, options=ITEMS)
        given_entries = [e for s in samples for e in json_values.objects(s.output["fields"])]
        entries = json_values.objects(winner.output["fields"])
        plain = [{k: v for k, v in entry.items() if k != "agreement"} for entry in entries]
        assert all(entry in given_entries for entry in plain)
        assert analysis_for(kind).problems(winner.output, task) == []
    else:
        assert winner.output in [sample.output for sample in samples]


@given(st.data())
def test_equal_samples_have_full_agreement(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(SAMPLES)))
    sample = data.draw(SAMPLES[kind])

    winner = elected([sample] * data.draw(st.integers(2, 7)), kind, ITEMS)

    assert winner.agreement == 1
    if kind is not EXTRACTION:
        assert winner.output == sample.output
        assert adjusted_confidence(winner.confidence, 1.0, kind) == pytest.approx(
            sample.confidence, abs=1e-5
        )


@given(votes((CLASSIFICATION, SENTIMENT)))
def test_the_label_with_the_most_votes_wins(vote: tuple[AnalysisType, list[Answer]]) -> None:
    kind, samples = vote
    name = "primary_label" if kind == CLASSIFICATION else "label"
    labels = [str(sample.output[name]).strip().casefold() for sample in samples]

    winner = elected(samples, kind, NO_OPTIONS)

    count = labels.count(str(winner.output[name]).strip().casefold())
    assert count == max(map(labels.count, labels))
    assert winner.agreement == pytest.approx(count / len(labels), abs=1e-6)


def test_tied_labels_are_decided_by_confidence_and_grounding() -> None:
    samples = [a_label("a", 0.6), a_label("a", 0.5), a_label("b", 0.9, grounded=False)]

    winner = elected([*samples, a_label("b", 0.7)], CLASSIFICATION, NO_OPTIONS)

    assert (winner.output["primary_label"], winner.agreement) == ("b", 0.5)
    assert winner.quality == 1
    assert winner.confidence == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("prices", "kept", "agreement"),
    [
        (["10", "10", "12"], ["10"], 2 / 3),
        (["10", "12", ""], ["10"], 1 / 3),
        (["10", "", ""], [None], 2 / 3),
        (["10", ""], [None], 1 / 2),
        (["10", "12"], ["10"], 1 / 2),
    ],
)
def test_each_item_is_voted_on(
    prices: Sequence[str], kept: list[str | None], agreement: float
) -> None:
    """The majority or else the plurality wins; an item that half deny is not mentioned."""
    samples = [
        an_extraction(
            an_entry("price", price, confidence=9 - place) if price else denied("price"),
            an_entry("seller", "Ada", 5),
        )
        for place, price in enumerate(prices)
    ]

    winner = elected(samples, EXTRACTION, ITEMS)

    assert values(winner) == [*(("price", price) for price in kept), ("seller", "Ada")]
    assert winner.agreement == pytest.approx((agreement + 1) / 2, abs=1e-5)


def test_several_values_of_an_item_are_in_document_order() -> None:
    both = an_extraction(an_entry("price", "9", 40), an_entry("price", "8", 3), denied("seller"))
    more = an_extraction(
        an_entry("price", "8.", 3, confidence=6),
        an_entry("price", "9", 40),
        an_entry("price", "1", 9),
        denied("seller"),
    )

    winner = elected([both, more, both], EXTRACTION, ITEMS)

    assert values(winner) == [("price", "8"), ("price", "9"), ("seller", None)]
    assert winner.agreement == 1


def test_the_summary_most_similar_to_the_others_wins() -> None:
    lindau = a_summary("The harbour of Lindau", "It was rebuilt in 1856", "It cost much")
    close = a_summary("Lindau's harbour", "It was rebuilt in 1856")
    strange = a_summary("A recipe for soup", "Take three onions")

    winner = elected([strange, lindau, close], SUMMARY, NO_OPTIONS)

    assert winner.output in (lindau.output, close.output)
    assert winner.agreement is not None
    assert 1 / 3 < winner.agreement < 1


def test_data_of_a_users_schema_is_elected_as_a_whole() -> None:
    a = a_sample(EXTRACTION, {"data": {"total": 5, "lines": ["x", "y"]}, "evidence": []})
    b = a_sample(EXTRACTION, {"data": {"total": 5, "lines": ["y", "x"]}, "evidence": []})
    c = a_sample(EXTRACTION, {"data": {"total": 7, "lines": ["z"]}, "evidence": []})

    winner = elected([c, a, b], EXTRACTION, OWN_SCHEMA)

    assert json_values.as_object(winner.output["data"])["total"] == 5
    assert winner.agreement == pytest.approx(2 / 3, abs=1e-5)
    assert problems(winner.output, {"type": "object", "required": ["data"]}) == []


def test_equal_rows_of_a_users_schema_count_individually() -> None:
    few: JsonObject = {"data": {"lines": ["x"]}, "evidence": []}
    many: JsonObject = {"data": {"lines": ["x", "x", "x"]}, "evidence": []}

    winner = elected(
        [a_sample(EXTRACTION, output) for output in (few, many)], EXTRACTION, OWN_SCHEMA
    )

    assert winner.output == many
    assert winner.agreement == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("one", "other", "agreement"),
    [(7, 7.0, 1), ("ACME Inc.", "acme inc", 1), ("7", 7, 0.5), (True, 1, 0.5), (7, 7.5, 0.5)],
)
def test_values_of_a_users_schema_are_compared_regardless_of_form(
    one: JsonValue, other: JsonValue, agreement: float
) -> None:
    samples = [
        a_sample(EXTRACTION, {"data": {"total": value}, "evidence": []}) for value in (one, other)
    ]

    assert elected(samples, EXTRACTION, OWN_SCHEMA).agreement == agreement


@pytest.mark.parametrize(
    ("kind", "worth"), [(CLASSIFICATION, 0.48), (EXTRACTION, 0.48), (SUMMARY, 0.64)]
)
def test_disagreement_lowers_the_confidence(kind: AnalysisType, worth: float) -> None:
    """It counts fully for labels and values and half for texts; without votes nothing changes."""
    assert adjusted_confidence(0.8, 0.6, kind) == pytest.approx(worth)
    assert adjusted_confidence(0.8, None, kind) == 0.8


def test_the_agreement_of_a_document_is_that_of_its_weaker_stage() -> None:
    """The stages are the mean of the chunks and the synthesis; without votes there is none."""
    assert combined([0.5, 1.0, None], joined=1.0) == 0.75
    assert combined([1.0, 1.0], joined=0.6) == 0.6
    assert combined([0.5, 1.0]) == 0.75
    assert combined([None, None]) is None
