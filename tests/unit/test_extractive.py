"""Tests of the built-in model: its words and ranking, and answers for every analysis type."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chordwise.domain import grounding, json_values, validation, words
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask, AnalysisType, Stage
from chordwise.domain.extractive import ranking
from chordwise.domain.extractive.sentences import MAX_QUOTE_CHARACTERS, sentences
from chordwise.domain.json_values import JsonObject
from chordwise.errors import AnswerTimeoutError, RefusedError
from chordwise.llm.model import CompletionRequest, FinishReason
from chordwise.llm.providers.extractive import ExtractiveModel, answer
from tests.fakes.completion_requests import a_request, a_task
from tests.fakes.generated_answers import answer_from_chunks

LETTER = """Dear Ms. Miller,

thank you for your order of March 3, 2026. The total of $1,250.00 is due by April 2, 2026.
However, we were disappointed by the terrible packaging, and we regret the delay.
According to our records, 12 percent of the parcels arrived damaged. Therefore we conclude that
the carrier must be replaced. Please write to billing@example.com or call +1 555 010 9999.

Sincerely,
John Smith, Acme Corporation, Berlin
"""
SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "total": {"type": "number", "description": "The total amount"},
        "due_date": {"type": ["string", "null"], "format": "date"},
        "emails": {"type": "array", "items": {"type": "string", "format": "email"}},
        "carrier": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "sender": {"type": "object", "properties": {"name": {"type": "string"}}},
    },
    "required": ["emails"],
}
ANSWERED = tuple(kind for kind in AnalysisType if kind != AnalysisType.REASONING)
OPTIONS = (
    AnalysisOptions(),
    AnalysisOptions(instructions="total amount due, due date, e-mail address, weather; people"),
    AnalysisOptions(labels=("invoice", "letter", "news")),
    AnalysisOptions(labels=("positive", "negative")),
    AnalysisOptions(schema=SCHEMA),
)
EDGES = (
    "word",
    "...!?",
    "12345",
    " \n\t ",
    "",
    "。",
    "สวัสดี",
    "\x00\x01",
    "\U0001d4b3\U0001d4b4 🙂",
    "a\u0301b" * 9,
)
TEXTS = st.one_of(
    st.text(max_size=300),
    st.lists(st.sampled_from(LETTER.split(" ") + list(EDGES)), min_size=25, max_size=60).map(
        " ".join
    ),
)


def tasks(text: str) -> Iterator[AnalysisTask]:
    for analysis_type in ANSWERED:
        for options in OPTIONS:
            if options.schema is None or analysis_type == AnalysisType.EXTRACTION:
                yield a_task(analysis_type, text, options)


def request(task: AnalysisTask) -> CompletionRequest:
    return replace(a_request(), task=task)


def analyze(analysis_type: AnalysisType, text: str, labels: tuple[str, ...] = ()) -> JsonObject:
    return answer(a_task(analysis_type, text, AnalysisOptions(labels=labels)))


def problems(output: JsonObject, task: AnalysisTask) -> list[str]:
    analysis = analysis_for(task.analysis_type)
    return validation.problems(output, analysis.schema(task.options)) + analysis.problems(
        output, task
    )


def quotes(output: JsonObject) -> list[str]:
    return [json_values.text(item["quote"]) for item in grounding.quotes(output)]


@given(TEXTS)
@settings(deadline=None, max_examples=40)
def test_any_text_gets_a_valid_answer_with_verbatim_quotes(text: str) -> None:
    for task in tasks(text):
        output = answer(task)

        assert problems(output, task) == []
        assert [quote for quote in quotes(output) if quote not in text or len(quote) > 400] == []


@pytest.mark.parametrize("text", EDGES)
def test_edge_texts_get_valid_answers(text: str) -> None:
    for task in tasks(text):
        assert problems(answer(task), task) == []


@given(st.lists(TEXTS, min_size=1, max_size=3))
@settings(deadline=None, max_examples=12)
def test_a_synthesis_is_valid_and_keeps_quotes(texts: list[str]) -> None:
    for position in range(len(list(tasks("")))):
        chunk_tasks = [list(tasks(text))[position] for text in texts]
        stored = [
            grounding.ground(answer(task), grounding.Source(task.text)) for task in chunk_tasks
        ]
        task = replace(chunk_tasks[0], stage=Stage.SYNTHESIZE, text="", answers=tuple(stored))

        output = answer(task)

        assert problems(output, task) == []
        assert set(quotes(output)) <= {quote for chunk in stored for quote in quotes(chunk)}


@pytest.mark.parametrize("task", list(tasks(LETTER)), ids=lambda task: str(task.analysis_type))
def test_the_same_task_gets_the_same_answer(task: AnalysisTask) -> None:
    one = ExtractiveModel().complete(request(task))

    assert one == ExtractiveModel().complete(request(task))
    assert json.loads(one.text) == answer(task) == answer(replace(task, stage=Stage.REPAIR))


def test_a_completion_names_the_built_in_model_and_its_usage() -> None:
    """The results must show that no language model answered."""
    completion = ExtractiveModel().complete(request(a_task(AnalysisType.SUMMARY, LETTER)))

    assert (completion.provider, completion.model) == ("extractive", "textrank-1")
    assert completion.finish_reason is FinishReason.STOP
    assert (completion.usage.input_tokens or 0) > 100
    assert (completion.usage.output_tokens or 0) > 50
    assert not ExtractiveModel().profile.understands_language


UNITS = ("word ", "x", ". ", "1 ", "Aa Bb\n", "(the “", "中", "\n \n", "a@b.", "if ", "$1,", "A. ")


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("analysis_type", ANSWERED)
def test_time_is_linear_in_the_length(unit: str, analysis_type: AnalysisType) -> None:
    options = AnalysisOptions(instructions="total due, date, phone, parties; risks")
    task = a_task(analysis_type, (unit * 40_000)[:40_000], options)

    started = time.process_time()
    output = answer(task)
    seconds = time.process_time() - started

    assert problems(output, task) == []
    assert seconds < 1.2


def test_a_megabyte_without_a_sentence_end_is_summarized() -> None:
    text = "some words without an end " * 40_000
    task = a_task(AnalysisType.SUMMARY, text)

    output = answer(task)

    assert problems(output, task) == []
    assert all(300 < len(quote) <= 400 for quote in quotes(output))


@pytest.mark.parametrize("task", list(tasks(LETTER)), ids=lambda task: str(task.analysis_type))
def test_an_answer_is_aborted_after_the_timeout(task: AnalysisTask) -> None:
    minutes = itertools.count(step=60.0)
    model = ExtractiveModel(timeout_seconds=90, clock=lambda: next(minutes))

    with pytest.raises(AnswerTimeoutError, match="within 90 s") as raised:
        model.complete(request(task))

    assert "timeout_seconds" in raised.value.hint


def test_the_timeout_of_a_request_shortens_that_of_the_model() -> None:
    minutes = itertools.count(step=60.0)
    model = ExtractiveModel(timeout_seconds=100_000, clock=lambda: next(minutes))
    question = request(next(tasks(LETTER)))

    with pytest.raises(AnswerTimeoutError, match="within 30 s"):
        model.complete(replace(question, timeout_seconds=30))

    assert model.complete(question).finish_reason is FinishReason.STOP
    assert answer(question.task)


ESSAY = """Trains should replace short flights. Trains emit far less carbon than planes because
their energy comes from the grid. According to a 2019 survey, a train emits 14 percent of what a
plane emits. Some say that trains are slow. However, a flight of one hour costs three hours with
its airport. If trains were cheaper, then more people would take trains. In conclusion, trains are
the better choice for short distances."""


def synthesize(analysis_type: AnalysisType, texts: list[str]) -> JsonObject:
    answers = tuple(
        grounding.ground(analyze(analysis_type, text), grounding.Source(text)) for text in texts
    )
    return answer(
        AnalysisTask(analysis_type=analysis_type, stage=Stage.SYNTHESIZE, answers=answers)
    )


def test_a_summary_quotes_sentences_and_has_low_confidence() -> None:
    output = analyze(AnalysisType.SUMMARY, ESSAY)

    findings = json_values.objects(output["key_findings"])
    assert len(findings) == 3
    assert all(item["finding"] == item["quote"] for item in findings)
    assert json_values.text(output["main_topic"]) in ESSAY
    assert output["conclusions"] == [
        "In conclusion, trains are\nthe better choice for short distances."
    ]
    assert (json_values.number(output["confidence"]) or 9) <= 4


@pytest.mark.parametrize(
    "fields",
    [
        "Severity: 2 · trains · planes · carbon · grid · flight · airport · survey · people",
        "**Date:** the trains, planes and flights emit carbon and take energy from the grid.",
        "Trains and planes and carbon and energy and flights and the grid",
    ],
)
def test_the_topic_of_a_summary_is_a_sentence_of_the_text(fields: str) -> None:
    """Form fields and headings are not topics, however central their words are."""
    output = analyze(AnalysisType.SUMMARY, f"{fields}\n\n{ESSAY}\n\n{fields}")

    topic = json_values.text(output["main_topic"])
    assert topic in ESSAY
    assert topic.endswith(".")
    assert analyze(AnalysisType.SUMMARY, fields)["main_topic"] == fields


def test_repeated_lines_are_quoted_once() -> None:
    output = analyze(AnalysisType.SUMMARY, "Annual report of the river authority.\n\n" * 9)

    assert len(json_values.objects(output["key_findings"])) == 1


def test_a_summary_of_many_chunks_has_five_findings_from_all_of_them() -> None:
    subjects = ["rivers", "mountains", "forests", "deserts", "oceans", "islands", "glaciers"]
    texts = [
        f"The {subject} of the country hold many animals and plants. People visit the {subject} "
        f"every summer with their families. Our {subject} need protection from careless visitors."
        for subject in subjects
    ]

    output = synthesize(AnalysisType.SUMMARY, texts)

    quotes = [
        json_values.text(item["quote"]) for item in json_values.objects(output["key_findings"])
    ]
    places = [
        next(place for place, subject in enumerate(subjects) if subject in quote)
        for quote in quotes
    ]
    assert len(quotes) == 5
    assert places == sorted(places)
    assert len(set(places)) >= 4
    assert "evidence" not in output


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("A wonderful film with a brilliant cast. I loved it.", "positive"),
        ("A terrible film with a boring plot. I hated it.", "negative"),
        ("The film runs for two hours and was shot in 1999.", "neutral"),
        ("It is not good.", "negative"),
        ("It was never boring.", "positive"),
        ("The cast is great, but the plot is awful.", "negative"),
        (
            "Horrible food. A beautiful room. Awful music. Lovely staff. A charming garden. Great.",
            "mixed",
        ),
    ],
)
def test_sentiment_depends_on_words_negation_and_contrast(text: str, label: str) -> None:
    """Praise and blame of equal weight are not neutral."""
    output = analyze(AnalysisType.SENTIMENT, text)

    assert output["label"] == label
    if label == "neutral":
        assert (output["confidence"], output["sentences"]) == (0.05, [])


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Our team won the match with two late goals.", "sports"),
        ("The invoice total is due within 30 days. Please remit payment.", "invoice"),
        ("The court dismissed the appeal of the plaintiff.", "legal"),
        ("The senate will vote on the bill before the election.", "politics"),
    ],
)
def test_labels_match_by_their_words_and_related_words(text: str, label: str) -> None:
    output = analyze(AnalysisType.CLASSIFICATION, text, ("politics", "sports", "legal", "invoice"))

    assert output["primary_label"] == label
    assert 0.05 < (json_values.number(output["confidence"]) or 0.0) <= 0.6
    assert output["features"]
    assert "The built-in extractive model compares words; it does not read." in (
        json_values.strings(output["uncertainty_factors"])
    )


LEASE = """OFFICE LEASE AGREEMENT

This Agreement is made between the parties. The service of heating, the supply of water and the
maintenance of the lift are included; every service is described below.
"""


SPOKEN = "The customer called on Monday; we telephoned twice."
KINDS = ("written", "oral")


@pytest.mark.parametrize(
    ("text", "label", "options"),
    [
        (
            LEASE,
            "Lease_Agreements",
            AnalysisOptions(labels=("Service", "Supply", "Maintenance", "Lease_Agreements")),
        ),
        (
            LEASE,
            "kitchen_and_heating",
            AnalysisOptions(labels=("kitchen_and_heating", "office_supply_chain")),
        ),
        (
            SPOKEN,
            "oral",
            AnalysisOptions(labels=KINDS, instructions="written: mail\noral: a call, telephone"),
        ),
        (
            SPOKEN,
            "oral",
            AnalysisOptions(
                labels=KINDS, label_descriptions={"written": "letters", "oral": "a call, telephone"}
            ),
        ),
        (
            "I want to report a loss.",
            "cards",
            AnalysisOptions(
                labels=("cards", "cars"),
                label_descriptions={
                    "cards": "credit limit, report loss",
                    "cars": "report limit, oil loss",
                },
            ),
        ),
        ("What a dreadful mess.", "Negative", AnalysisOptions(labels=("Positive", "Negative"))),
    ],
)
def test_a_label_is_selected_by_its_words_and_its_description(
    text: str, label: str, options: AnalysisOptions
) -> None:
    assert answer(a_task(AnalysisType.CLASSIFICATION, text, options))["primary_label"] == label


def test_the_first_chunks_of_a_document_have_the_most_weight() -> None:
    """The title is in the first chunk, whatever the others mention."""
    texts = [LEASE, *["The invoice total is due. The invoice lists a quantity and the tax."] * 2]
    options = AnalysisOptions(labels=("lease", "invoice"))

    output = answer_from_chunks(AnalysisType.CLASSIFICATION, texts, options)

    assert output["primary_label"] == "lease"


@pytest.mark.parametrize(
    ("labels", "label", "why"),
    [
        (("sports", "other"), "other", "No label fits"),
        (("sports", "politics"), None, "No label fits"),
        ((), None, "No labels were given"),
    ],
)
def test_a_text_that_fits_no_label_has_none_or_the_label_other(
    labels: tuple[str, ...], label: str | None, why: str
) -> None:
    output = analyze(AnalysisType.CLASSIFICATION, "Lorem ipsum dolor.", labels)

    assert (output["primary_label"], output["secondary_label"]) == (label, None)
    assert (output["features"], output["confidence"]) == ([], 0.05)
    assert why in str(output["uncertainty_factors"])


def test_uncertain_secondary_labels_do_not_outvote_the_primary_label() -> None:
    output = synthesize(AnalysisType.CLASSIFICATION, [ESSAY, ESSAY])

    assert output["primary_label"] == analyze(AnalysisType.CLASSIFICATION, ESSAY)["primary_label"]


def test_an_analysis_of_reasoning_needs_a_language_model() -> None:
    """The built-in model rejects it with a hint, as it cannot judge arguments."""
    with pytest.raises(RefusedError, match="does not support reasoning") as raised:
        analyze(AnalysisType.REASONING, ESSAY)

    assert "--model" in raised.value.hint


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("terminated", "termination", True),
        ("parties", "party", True),
        ("running", "runs", True),
        ("assignment", "assigned", True),
        ("governed", "governing", True),
        ("managed", "manage", True),
        ("classes", "class", True),
        ("company's", "companies", True),
        ("bus", "but", False),
        ("thing", "the", False),
        ("use", "us", False),
    ],
)
def test_only_forms_of_a_word_have_one_stem(one: str, other: str, *, meet: bool) -> None:
    assert (words.stem(one) == words.stem(other)) is meet


def test_terms_exclude_function_words() -> None:
    assert words.terms("The committees of this House have agreed") == ["committe", "hous", "agr"]
    assert words.terms("华沙大学 AI") == ["华沙", "沙大", "大学", "ai"]
    assert words.words("वारसॉ की सैक्सन") == ["वारसॉ", "की", "सैक्सन"]


@given(st.text(max_size=2_000))
def test_sentences_are_parts_of_the_text_in_order(text: str) -> None:
    """They cover everything but white space."""
    parts = sentences(text)

    starts = [part.start_char for part in parts]
    assert starts == sorted(set(starts))
    for part in parts:
        assert text[part.start_char : part.start_char + len(part.text)] == part.text
        assert part.text == part.text.strip()
        assert 0 < len(part.text) <= MAX_QUOTE_CHARACTERS
    assert "".join("".join(part.text.split()) for part in parts) == "".join(text.split())


FOX = "The quick brown fox jumps over the lazy dog. "
WRAPPED = """When a text is wrapped by hand at some width then a sentence
runs over several lines of the file and a line end within it
says nothing about where the sentence comes to its very end.
|A heading
|Another sentence begins here and it again goes on over lines
until it ends.
"""
CLAUSES = ("word " * 70 + "end; ", "more " * 40)
CATS = """Cats chase mice at night. Dogs chase cats around houses.
Cats and dogs chase mice around houses at night. Quantum theory puzzles physicists."""


@pytest.mark.parametrize(
    "parts",
    [WRAPPED.split("|"), ("Name: Ann\n", "Age: 7\n", "City: Rome"), CLAUSES, (FOX,) * 1_000],
    ids=["wrapped by hand", "a list", "too long, cut at a clause", "windows of a long text"],
)
def test_lines_are_joined_or_sentences_of_their_own(parts: Sequence[str]) -> None:
    texts = [part.text for part in sentences("".join(parts))]

    assert texts == [part.strip() for part in parts]


@pytest.mark.parametrize(
    ("text", "topic", "best", "worst"),
    [
        (CATS, "", 2, 3),
        ("Apples grow on tall trees here. Fishes swim in deep rivers there.", "fishes", 1, 0),
    ],
)
def test_the_most_central_sentence_about_the_topic_has_the_highest_rank(
    text: str, topic: str, best: int, worst: int
) -> None:
    parts = sentences(text)
    weights = ranking.inverse_document_frequencies([part.terms for part in parts])
    vectors = [ranking.vector(part.terms, weights) for part in parts]

    scores = ranking.sentence_scores(parts, vectors, ranking.vector(words.terms(topic), weights))

    assert max(scores) == scores[best]
    assert scores[worst] < scores[best]


def test_selected_sentences_differ() -> None:
    vectors = [{"a": 1.0}, {"a": 1.0}, {"b": 1.0}]

    assert ranking.pick([1.0, 0.95, 0.6], vectors, 2) == [0, 2]
