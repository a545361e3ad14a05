"""The analysis types: what they ask for, what they refuse, and how they merge."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chordwise.domain import grounding, json_values, validation
from chordwise.domain.analyses import analysis as analyses
from chordwise.domain.analyses.catalog import analysis_for
from chordwise.domain.analyses.sentiment import label_for
from chordwise.domain.grounding import Source
from chordwise.domain.json_values import JsonObject
from chordwise.domain.tasks import AnalysisOptions, AnalysisTask, AnalysisType, Stage
from tests.fakes.generated_answers import TEXT, answers, grounded_answers, options_for, task_for

EVERY_TYPE = pytest.mark.parametrize("analysis_type", list(AnalysisType))
# Answers are drawn from schemas and then sorted out: that takes its time.
patiently = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))


def task_of(analysis_type: AnalysisType, options: AnalysisOptions | None = None) -> AnalysisTask:
    """Return a question under these options."""
    return AnalysisTask(
        analysis_type=analysis_type, stage=Stage.ANALYZE, options=options or AnalysisOptions()
    )


@EVERY_TYPE
def test_every_schema_is_valid_and_closed(analysis_type: AnalysisType) -> None:
    """Each object allows and requires exactly its properties, as providers ask for."""
    schema = validation.check_schema(analysis_for(analysis_type).schema(AnalysisOptions()))

    for _, value in json_values.walk(schema):
        if isinstance(value, dict) and value.get("type") == "object":
            assert value["additionalProperties"] is False
            assert value["required"] == list(json_values.as_object(value["properties"]))


@EVERY_TYPE
@patiently
@given(data=st.data())
def test_merged_answers_are_valid_answers(analysis_type: AnalysisType, data: st.DataObject) -> None:
    """What the chunks gave, joined by rule, has the form that a model's answer has."""
    analysis, options = analysis_for(analysis_type), options_for(analysis_type)
    parts = data.draw(grounded_answers(analysis_type))

    merged = analysis.merge(parts, options)

    answer = json_values.as_object(grounding.without_spans(merged))
    assert validation.problems(answer, analysis.schema(options)) == []
    assert analysis.problems(answer, task_for(analysis_type)) == []
    assert 0 <= analysis.confidence(merged) <= 1


@EVERY_TYPE
@patiently
@given(data=st.data())
def test_merging_carries_the_evidence_along(
    analysis_type: AnalysisType, data: st.DataObject
) -> None:
    """Every quote of the merged answer is one of the chunks' quotes, with its very span."""
    analysis = analysis_for(analysis_type)
    parts = data.draw(grounded_answers(analysis_type))

    merged = analysis.merge(parts, options_for(analysis_type))

    given_quotes = [found for part in parts for found in grounding.quotes(part)]
    assert all(found in given_quotes for found in grounding.quotes(merged))


@EVERY_TYPE
@patiently
@given(data=st.data())
def test_completing_keeps_the_answer(analysis_type: AnalysisType, data: st.DataObject) -> None:
    """What follows from an answer is added to it; nothing in it changes."""
    (part,) = data.draw(grounded_answers(analysis_type, at_most=1))

    output = analysis_for(analysis_type).complete(part, options_for(analysis_type))

    assert part.items() <= output.items() or all(output[name] == part[name] for name in part)


@EVERY_TYPE
@patiently
@given(data=st.data())
def test_confidence_is_on_the_scale_of_the_columns(
    analysis_type: AnalysisType, data: st.DataObject
) -> None:
    """Whatever scale an analysis uses, the column holds 0 to 1."""
    answer = data.draw(answers(analysis_type))

    assert 0 <= analysis_for(analysis_type).confidence(answer) <= 1


def a_finding(name: str, quote: str) -> JsonObject:
    """Return a finding with its quote."""
    return {"finding": name, "quote": quote}


def a_summary(*findings: JsonObject, confidence: int = 5, topic: str = "t") -> JsonObject:
    """Return a summary's answer."""
    return {
        "main_topic": topic,
        "key_findings": list(findings),
        "conclusions": [],
        "confidence": confidence,
    }


def test_a_merged_summary_takes_from_the_whole_document() -> None:
    """With more chunks than findings, the last chunk has its say as well as the first."""
    parts = [a_summary(a_finding(f"f{n}", f"q{n}"), a_finding("g", "r")) for n in range(12)]

    merged = analysis_for(AnalysisType.SUMMARY).merge(parts, AnalysisOptions())

    names = [found["finding"] for found in json_values.objects(merged["key_findings"])]
    assert len(names) == 5
    assert names[0] == "f0"
    assert names[-1] == "f11"


def test_the_surest_chunk_names_the_topic() -> None:
    """And the confidence is the mean."""
    parts = [
        a_summary(a_finding("a", "a"), confidence=3, topic="vague"),
        a_summary(a_finding("b", "b"), confidence=9, topic="clear"),
    ]

    merged = analysis_for(AnalysisType.SUMMARY).merge(parts, AnalysisOptions())

    assert merged["main_topic"] == "clear"
    assert merged["confidence"] == 6


def test_a_completed_summary_lists_its_evidence() -> None:
    """Each quote once more, with a pointer to the finding that it supports."""
    analysis = analysis_for(AnalysisType.SUMMARY)
    answer = a_summary(a_finding("a", "It"), a_finding("b", ""), a_finding("c", "nowhere at all"))

    output = analysis.complete(grounding.ground(answer, Source(TEXT)), AnalysisOptions())

    evidence = json_values.objects(output["evidence"])
    assert [entry["supports"] for entry in evidence] == ["/key_findings/0", "/key_findings/2"]
    assert [entry["grounded"] for entry in evidence] == [True, False]


def a_vote(primary: str, confidence: float, secondary: str | None = None) -> JsonObject:
    """Return a classification's answer."""
    return {
        "primary_label": primary,
        "secondary_label": secondary,
        "confidence": confidence,
        "features": [{"feature": f"says {primary}", "quote": primary}],
        "uncertainty_factors": [],
    }


def test_the_chunks_vote_with_their_confidence() -> None:
    """Two hesitant chunks do not outvote a sure one, and the dissent is named."""
    parts = [a_vote("news", 0.3), a_vote("news", 0.2), a_vote("law", 0.9)]

    merged = analysis_for(AnalysisType.CLASSIFICATION).merge(parts, AnalysisOptions())

    assert (merged["primary_label"], merged["secondary_label"]) == ("law", "news")
    assert merged["confidence"] == round(0.9 / 1.4 * 0.9, 3)
    assert json_values.strings(merged["uncertainty_factors"])[0].startswith("36%")
    features = json_values.objects(merged["features"])
    assert [found["quote"] for found in features] == ["law"]


def test_chunks_without_any_confidence_still_give_a_label() -> None:
    """Zero votes are no division by zero."""
    merged = analysis_for(AnalysisType.CLASSIFICATION).merge(
        [a_vote("a", 0.0), a_vote("b", 0.0, "c")], AnalysisOptions()
    )

    assert merged["primary_label"] in ("a", "b")
    assert merged["confidence"] == 0


def test_the_labels_of_the_user_close_the_set() -> None:
    """The second label may be missing, the first may not, and they have to differ."""
    options = AnalysisOptions(labels=("news", "law"))
    analysis = analysis_for(AnalysisType.CLASSIFICATION)
    schema = analysis.schema(options)

    assert validation.problems(a_vote("news", 0.5), schema) == []
    assert validation.problems(a_vote("sports", 0.5), schema)
    assert validation.problems(a_vote("news", 0.5, "sports"), schema)
    assert analysis.problems(a_vote("a", 0.5, "a"), task_of(AnalysisType.CLASSIFICATION))


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
def test_label_and_score_point_the_same_way(
    label: str, score: float, *, contradiction: bool
) -> None:
    """Only the plain contradiction is sent back to the model."""
    answer: JsonObject = {"label": label, "score": score}

    found = analysis_for(AnalysisType.SENTIMENT).problems(answer, task_of(AnalysisType.SENTIMENT))

    assert bool(found) is contradiction


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
    """Strong chunks of both signs are mixed, whatever their mean."""
    assert label_for(score, parts) == label


@given(st.lists(st.lists(st.integers(), max_size=5), max_size=8), st.integers(0, 20))
def test_turns_are_fair(lists: list[list[int]], limit: int) -> None:
    """No second of a list before every first that fits, the order of the lists is kept."""
    tagged = [[(place, rank) for rank in range(len(items))] for place, items in enumerate(lists)]

    chosen = analyses.take_turns(tagged, limit)

    assert len(chosen) == min(limit, sum(map(len, lists)))
    assert chosen == sorted(set(chosen))
    deepest = max((rank for _, rank in chosen), default=0)
    for place, items in enumerate(tagged):
        taken = [rank for where, rank in chosen if where == place]
        assert taken == list(range(len(taken)))
        assert len(taken) >= min(deepest, len(items))
