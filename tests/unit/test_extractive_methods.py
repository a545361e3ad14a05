"""What summary, classification, sentiment and reasoning of the built-in model say, and why."""

from __future__ import annotations

import pytest

from chordwise.domain import grounding, json_values
from chordwise.domain.extractive.sentiment import polarity
from chordwise.domain.json_values import JsonObject
from chordwise.domain.tasks import AnalysisOptions, AnalysisTask, AnalysisType, Stage
from chordwise.llm.providers.extractive import answer

ESSAY = """Trains should replace short flights. Trains emit far less carbon than planes because
their energy comes from the grid. According to a 2019 survey, a train emits 14 percent of what a
plane emits. Some say that trains are slow. However, a flight of one hour costs three hours with
its airport. If trains were cheaper, then more people would take trains. In conclusion, trains are
the better choice for short distances."""


def analyze(analysis_type: AnalysisType, text: str, labels: tuple[str, ...] = ()) -> JsonObject:
    """Answer for one chunk."""
    options = AnalysisOptions(labels=labels)
    task = AnalysisTask(
        analysis_type=analysis_type, stage=Stage.ANALYZE, options=options, text=text
    )
    return answer(task)


def synthesize(analysis_type: AnalysisType, texts: list[str]) -> JsonObject:
    """Answer for a document of several chunks."""
    answers = tuple(
        grounding.ground(analyze(analysis_type, text), grounding.Source(text)) for text in texts
    )
    return answer(
        AnalysisTask(analysis_type=analysis_type, stage=Stage.SYNTHESIZE, answers=answers)
    )


def test_a_summary_quotes_and_admits_that_it_counts_words() -> None:
    """Findings are sentences; the topic is a list of words and says so; the claim is modest."""
    found = analyze(AnalysisType.SUMMARY, ESSAY)

    findings = json_values.objects(found["key_findings"])
    assert len(findings) == 3
    assert all(item["finding"] == item["quote"] for item in findings)
    assert json_values.text(found["main_topic"]).startswith("Words that stand out: trains")
    assert found["conclusions"] == [
        "In conclusion, trains are\nthe better choice for short distances."
    ]
    assert (json_values.number(found["confidence"]) or 9) <= 4


def test_repeated_lines_are_quoted_once() -> None:
    """A page header is no finding twice."""
    found = analyze(AnalysisType.SUMMARY, "Annual report of the river authority.\n\n" * 9)

    assert len(json_values.objects(found["key_findings"])) == 1


def test_a_summary_of_many_chunks_has_five_findings_from_all_over() -> None:
    """The findings of chunks are ranked among each other and keep the document's order."""
    subjects = ["rivers", "mountains", "forests", "deserts", "oceans", "islands", "glaciers"]
    texts = [
        f"The {one} of the country hold many animals and plants. People visit the {one} every "
        f"summer with their families. Our {one} need protection from careless visitors."
        for one in subjects
    ]

    found = synthesize(AnalysisType.SUMMARY, texts)

    quotes = [
        json_values.text(item["quote"]) for item in json_values.objects(found["key_findings"])
    ]
    named = [next(place for place, one in enumerate(subjects) if one in quote) for quote in quotes]
    assert len(quotes) == 5
    assert named == sorted(named)
    assert len(set(named)) >= 4
    assert "evidence" not in found


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("A wonderful film with a brilliant cast. I loved it.", "positive"),
        ("A terrible film with a boring plot. I hated it.", "negative"),
        ("The film runs for two hours and was shot in 1999.", "neutral"),
        ("It is not good.", "negative"),
        ("It was never boring.", "positive"),
        ("The cast is great, but the plot is awful.", "negative"),
    ],
)
def test_sentiment_follows_the_words_and_what_bends_them(text: str, label: str) -> None:
    """Praise, blame, negation and the turn at “but” decide."""
    assert analyze(AnalysisType.SENTIMENT, text)["label"] == label


def test_emphasis_counts() -> None:
    """An adverb before the word makes it stronger or weaker."""
    plain, strong, weak = (
        polarity(f"The food was {adverb}good.") for adverb in ("", "extremely ", "somewhat ")
    )

    assert strong > plain > weak > 0


def test_much_praise_and_much_blame_is_mixed() -> None:
    """A balance of strong sentences is not neutral."""
    text = (
        "The food was horrible. The room was beautiful. The noise was awful. "
        "The staff was lovely. The garden was charming. A delight."
    )

    assert analyze(AnalysisType.SENTIMENT, text)["label"] == "mixed"


def test_emotions_are_named_by_frequency() -> None:
    """The feeling with the most sentences comes first."""
    found = analyze(AnalysisType.SENTIMENT, "I am afraid. We feared it. He was scared. What joy!")

    assert found["emotions"] == ["fear", "joy"]


def test_sentiment_without_feeling_claims_next_to_nothing() -> None:
    """No word of the lexicon, no confidence."""
    found = analyze(AnalysisType.SENTIMENT, "Der Zug hält am Bahnhof.")

    assert (found["label"], found["confidence"], found["sentences"]) == ("neutral", 0.05, [])


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Our team won the match with two late goals.", "sports"),
        ("The invoice total is due within 30 days. Please remit payment.", "invoice"),
        ("The court dismissed the appeal of the plaintiff.", "legal"),
        ("The senate will vote on the bill before the election.", "politics"),
    ],
)
def test_labels_match_by_their_words_and_what_goes_with_them(text: str, label: str) -> None:
    """A label wins by its own words and by a small vocabulary around it."""
    found = analyze(AnalysisType.CLASSIFICATION, text, ("politics", "sports", "legal", "invoice"))

    assert found["primary_label"] == label
    assert 0.05 < (json_values.number(found["confidence"]) or 0.0) <= 0.6
    assert found["features"]
    assert "The built-in extractive model compares words; it does not read." in (
        json_values.strings(found["uncertainty_factors"])
    )


def test_a_text_that_fits_no_label_goes_to_the_label_for_the_rest() -> None:
    """“other” is chosen where nothing speaks for the others, with hardly any confidence."""
    found = analyze(AnalysisType.CLASSIFICATION, "Lorem ipsum dolor.", ("sports", "other"))

    assert (found["primary_label"], found["secondary_label"]) == ("other", None)
    assert found["confidence"] == 0.05


def test_labels_of_feeling_are_left_to_the_lexicon() -> None:
    """Positive and negative are no topics."""
    found = analyze(AnalysisType.CLASSIFICATION, "What a dreadful mess.", ("Positive", "Negative"))

    assert found["primary_label"] == "Negative"


def test_without_labels_the_words_that_stand_out_are_the_label() -> None:
    """The answer says that the labels are its own."""
    found = analyze(AnalysisType.CLASSIFICATION, ESSAY)

    assert found["primary_label"] == "trains"
    assert any(
        "No labels were given" in str(one)
        for one in json_values.strings(found["uncertainty_factors"])
    )


def test_unsure_second_choices_do_not_outvote_the_first() -> None:
    """Chunks that agree on a label with little confidence keep it in the synthesis."""
    found = synthesize(AnalysisType.CLASSIFICATION, [ESSAY, ESSAY])

    assert found["primary_label"] == analyze(AnalysisType.CLASSIFICATION, ESSAY)["primary_label"]


def test_reasoning_marks_roles_in_the_order_of_the_text() -> None:
    """Connectives tell the roles; steps keep their order and their quotes."""
    found = analyze(AnalysisType.REASONING, ESSAY)

    steps = [
        (item["role"], json_values.text(item["quote"])[:9])
        for item in json_values.objects(found["logical_flow"])
    ]
    assert steps == [
        ("premise", "Trains em"),
        ("evidence", "According"),
        ("counterargument", "Some say "),
        ("counterargument", "However, "),
        ("inference", "If trains"),
        ("conclusion", "In conclu"),
    ]
    assert found["gaps"] == []
    assert "was not judged" in json_values.text(found["overall_assessment"])


def test_reasoning_says_what_no_word_marks() -> None:
    """What is missing is told as a remark on words, and the scores are low."""
    found = analyze(AnalysisType.REASONING, "The sky is blue. The grass is green.")

    assert "No counterargument is marked by its words." in json_values.strings(found["gaps"])
    assert found["argument_strength"] == 1
    assert found["confidence"] == 1


def test_a_gap_of_one_chunk_that_another_fills_is_none() -> None:
    """The synthesis keeps only what no chunk disproves."""
    found = synthesize(AnalysisType.REASONING, ["The sky is blue.", ESSAY])

    assert found["gaps"] == []
