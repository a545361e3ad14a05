"""Tests of the built-in model's quality on real documents, with minimum scores.

docs/quality.md has the measured numbers. A minimum is a few points lower, so that a test fails if a
change reduces quality and not if a single sentence differs.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypedDict

import pytest

from chordwise.domain import grounding, json_values, validation, words
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask, AnalysisType, Stage
from chordwise.domain.extractive.sentences import sentences
from chordwise.domain.json_values import JsonObject
from chordwise.llm.providers.extractive import answer
from tests.fakes.corpora import CORPORA

CHUNK_CHARACTERS = 12_000
ANSWERED = tuple(kind for kind in AnalysisType if kind != AnalysisType.REASONING)

pytestmark = [pytest.mark.nightly, pytest.mark.corpus, pytest.mark.usefixtures("corpora")]


class Row(TypedDict, total=False):
    """The members of labels.jsonl that these tests read."""

    path: str
    text: str
    label: str
    contract_type: str
    source: str
    summary: str
    tldrs: list[str]
    lang: str
    qas: list[dict[str, str]]
    clauses: dict[str, dict[str, list[dict[str, str]]]]
    encoding: str


def rows(corpus: str) -> list[Row]:
    lines = (CORPORA / corpus / "labels.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def text_of(corpus: str, row: Row) -> str:
    return (CORPORA / corpus / row["path"]).read_text(encoding="utf-8", errors="replace")


def analyze(
    analysis_type: AnalysisType, text: str, options: AnalysisOptions | None = None
) -> JsonObject:
    return answer(
        AnalysisTask(
            analysis_type=analysis_type,
            stage=Stage.ANALYZE,
            options=options or AnalysisOptions(),
            text=text,
        )
    )


def quoted(output: JsonObject) -> str:
    return " ".join(json_values.text(item["quote"]) for item in grounding.quotes(output))


def recall(selected: str, references: Sequence[str]) -> float:
    selected_terms = Counter(words.terms(selected))
    shares = []
    for reference in references:
        reference_terms = Counter(words.terms(reference))
        shares.append((selected_terms & reference_terms).total() / max(1, reference_terms.total()))
    return max(shares)


def accuracy(pairs: Sequence[tuple[str, str]]) -> float:
    return sum(one == other for one, other in pairs) / len(pairs)


def summaries(corpus: str) -> Iterator[tuple[str, list[str]]]:
    for row in rows(corpus):
        if "tldrs" in row:
            yield row["text"], row["tldrs"]
        else:
            yield text_of(corpus, row), [row["summary"]]


@pytest.mark.parametrize(
    ("corpus", "min_recall", "gain"),
    [("scitldr_abstracts", 0.62, 0.03), ("qmsum_meetings", 0.17, 0.1)],
)
def test_summaries_beat_the_first_sentences(corpus: str, min_recall: float, gain: float) -> None:
    ours, lead = [], []
    for text, references in summaries(corpus):
        output = analyze(AnalysisType.SUMMARY, text)
        count = len(json_values.objects(output["key_findings"]))
        first = " ".join(one.text for one in sentences(text)[:count])
        ours.append(recall(quoted(output), references))
        lead.append(recall(first, references))

    mean, baseline = sum(ours) / len(ours), sum(lead) / len(lead)
    assert mean >= min_recall
    assert mean >= baseline + gain


def polarities(texts: Sequence[tuple[str, str]]) -> float:
    """Return the accuracy of the score's sign for two classes; a zero counts as half right."""
    right = 0.0
    for text, label in texts:
        score = json_values.number(analyze(AnalysisType.SENTIMENT, text)["score"]) or 0.0
        right += 0.5 if score == 0 else float((score > 0) == (label == "positive"))
    return right / len(texts)


def test_sentiment_of_reviews() -> None:
    texts = [(text_of("movie_reviews", row), row["label"]) for row in rows("movie_reviews")]
    answers = [(analyze(AnalysisType.SENTIMENT, text), label) for text, label in texts]

    ranked = sorted(answers, key=lambda pair: json_values.number(pair[0]["confidence"]) or 0)
    pairs = [(json_values.text(output["label"]), label) for output, label in ranked]
    half = len(pairs) // 2
    assert polarities(texts) >= 0.75
    assert accuracy(pairs[half:]) >= accuracy(pairs[:half]) + 0.1


@pytest.mark.parametrize(
    ("source", "min_accuracy"), [("sentence_polarity", 0.67), ("product_reviews", 0.72)]
)
def test_sentiment_of_sentences(source: str, min_accuracy: float) -> None:
    texts = [
        (row["text"], row["label"])
        for row in rows("sentence_sentiment")
        if row["source"].startswith(source) and row["label"] in ("positive", "negative")
    ]

    assert polarities(texts) >= min_accuracy


def test_classification_by_the_title_and_the_words_of_the_labels() -> None:
    labelled = [
        (text_of("cuad_contracts", row)[:CHUNK_CHARACTERS], row["contract_type"])
        for row in rows("cuad_contracts")
    ]
    options = AnalysisOptions(labels=tuple(sorted({label for _, label in labelled})))

    answers = [analyze(AnalysisType.CLASSIFICATION, text, options) for text, _ in labelled]

    chosen = [json_values.text(output["primary_label"]) for output in answers]
    assert accuracy(list(zip(chosen, (label for _, label in labelled), strict=True))) >= 0.78


def test_requests_that_fit_no_label_get_less_confidence() -> None:
    labelled = [(row["text"], row["label"]) for row in rows("clinc_oos")]
    labels = sorted({label for _, label in labelled} - {"out_of_scope"})
    options = AnalysisOptions(labels=tuple(labels))

    claims: dict[bool, list[float]] = {True: [], False: []}
    for text, label in labelled:
        output = analyze(AnalysisType.CLASSIFICATION, text, options)
        claims[label in labels].append(json_values.number(output["confidence"]) or 0.0)

    inside, outside = (sum(listed) / len(listed) for listed in (claims[True], claims[False]))
    assert inside >= outside * 1.5


def normalized(text: str) -> str:
    return " ".join(words.words(text))


@pytest.mark.parametrize(
    ("item", "min_recall", "min_precision"),
    [
        ("Document Name", 0.8, 0.8),
        ("Parties", 0.7, 0.62),
        ("Agreement Date", 0.6, 0.75),
        ("Effective Date", 0.6, 0.7),
        ("Governing Law", 0.85, 0.92),
    ],
)
def test_extraction_from_contracts(item: str, min_recall: float, min_precision: float) -> None:
    """Values overlap with the clauses that lawyers marked; unmarked contracts have no value."""
    recalled, precise = [], []
    for row in rows("cuad_contracts"):
        spans = [normalized(span["text"]) for span in row["clauses"].get(item, {}).get("spans", [])]
        text = text_of("cuad_contracts", row)
        output = analyze(AnalysisType.EXTRACTION, text, AnalysisOptions(instructions=item))
        values = [
            normalized(json_values.text(field["value"]))
            for field in json_values.objects(output["fields"])
            if field["value"]
        ]
        hits = [any(span in value or value in span for span in spans) for value in values]
        precise += hits
        if spans:
            recalled.append(any(hits))

    assert len(recalled) > 20
    assert sum(recalled) / len(recalled) >= min_recall
    assert sum(precise) / len(precise) >= min_precision


def test_extraction_finds_the_sentence_with_the_answer() -> None:
    hits = []
    for row in rows("xquad"):
        if row["lang"] != "en":
            continue
        text = text_of("xquad", row)
        for question in row["qas"]:
            items = question["question"].replace(",", " ").replace(";", " ")
            output = analyze(AnalysisType.EXTRACTION, text, AnalysisOptions(instructions=items))
            hits.append(question["answer"] in quoted(output))

    assert sum(hits) / len(hits) >= 0.45


@pytest.mark.parametrize("corpus", ["xquad", "udhr"])
def test_every_language_gets_valid_grounded_answers(corpus: str) -> None:
    for row in rows(corpus):
        text = text_of(corpus, row)[:CHUNK_CHARACTERS]
        for analysis_type in ANSWERED:
            output = analyze(analysis_type, text)

            analysis = analysis_for(analysis_type)
            assert validation.problems(output, analysis.schema(AnalysisOptions())) == []
            grounded = grounding.ground(output, grounding.Source(text))
            assert grounding.grounded_share(grounded) == 1.0


def test_a_long_document_is_analyzed_quickly() -> None:
    """A chunk takes milliseconds, and joining 300 chunks takes a fraction of a second."""
    text = text_of("large_text", rows("large_text")[0])
    chunks = [text[start : start + CHUNK_CHARACTERS] for start in range(0, 3_000_000, 10_000)]
    for analysis_type in ANSWERED:
        started = time.process_time()
        stored = tuple(
            grounding.ground(analyze(analysis_type, chunk), grounding.Source(chunk))
            for chunk in chunks
        )
        middle = time.process_time()
        answer(AnalysisTask(analysis_type=analysis_type, stage=Stage.SYNTHESIZE, answers=stored))
        ended = time.process_time()

        assert len(stored) == 300
        assert (middle - started) / len(chunks) < 0.12
        assert ended - middle < 0.6


def test_the_name_of_every_contract_is_extracted_quickly() -> None:
    slow = []
    for row in rows("cuad_contracts"):
        started = time.process_time()
        output = answer(
            AnalysisTask(
                analysis_type=AnalysisType.EXTRACTION,
                stage=Stage.ANALYZE,
                options=AnalysisOptions(instructions="document name"),
                text=text_of("cuad_contracts", row)[:CHUNK_CHARACTERS],
            )
        )
        assert output["fields"]
        if time.process_time() - started > 5:
            slow.append(row["path"])

    assert slow == []
