"""Tests of the complexity of questions, the choice of a tier, and the best weak answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.domain import chunking
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType, Stage
from chordwise.domain.answers import Answer
from chordwise.domain.json_values import JsonObject
from chordwise.domain.routing import WEIGHTS, Complexity, complexity, steps, tier_for
from chordwise.domain.tiers import Tier
from tests.fakes.completion_requests import NO_OPTIONS, a_task

EASY = "The cat sat on the mat. It was a warm day and it slept. Then it went home to eat. "
HARD = (
    "Notwithstanding contractual representations concerning indemnification obligations, the "
    "counterparty's subsidiaries irrevocably relinquish territorial jurisdictional objections. "
)
GERMAN = (
    "Der Hafen von Lindau wurde im Jahre 1856 neu gebaut und kostete die Stadt weit mehr, als man "
    "geplant hatte, weshalb die Steuern stiegen und viele Bürger klagten."
)
TYPES = tuple(AnalysisType)
WIDE: JsonObject = {
    "type": "object",
    "properties": {
        "seller": {"type": "object", "properties": {"name": {}, "address": {}}},
        "lines": {"type": "array", "items": {"type": "object", "properties": {"total": {}}}},
    },
}


def of(
    text: str,
    analysis_type: AnalysisType = AnalysisType.SUMMARY,
    options: AnalysisOptions = NO_OPTIONS,
    answers: tuple[JsonObject, ...] = (),
) -> Complexity:
    stage = Stage.SYNTHESIZE if answers else Stage.ANALYZE
    return complexity(replace(a_task(analysis_type, text, options), stage=stage, answers=answers))


def test_the_weights_sum_to_one() -> None:
    assert sum(WEIGHTS.values()) == pytest.approx(1)
    assert set(WEIGHTS) == set(Complexity.__slots__)


@given(
    text=st.text(max_size=300),
    analysis_type=st.sampled_from(TYPES),
    instructions=st.text(max_size=50),
)
def test_every_part_is_between_zero_and_one(
    text: str, analysis_type: AnalysisType, instructions: str
) -> None:
    score = of(text, analysis_type, AnalysisOptions(instructions=instructions))

    assert all(0 <= float(getattr(score, name)) <= 1 for name in WEIGHTS)
    assert 0 <= score.score <= 1


def test_long_texts_with_long_words_are_harder() -> None:
    """LIX rates a children's book below a contract and ignores scripts without spaces."""
    assert of(EASY).length < of(EASY * 10).length < of(EASY * 100).length
    assert of(EASY * 1_000).length == 1
    assert of(EASY * 5).readability == 0
    assert of(HARD * 5).readability > 0.9
    assert of("会議は五月に開かれた。費用は予定を超えた。").readability == 0.5


@pytest.mark.parametrize(
    "text",
    [
        "In 1856 it had 1,200 people, 340 houses, 12 mills, 3 schools and 48 boats.",
        "name\tprice\nbread\tcheap\nsalt\tdear",
        "| name | price |\n|---|---|\n| bread | cheap |",
        "Revenue    rising    steady\nCosts    falling    steady",
    ],
)
def test_numbers_and_tables_are_harder(text: str) -> None:
    assert of(text).figures > 0.9
    assert of(EASY).figures == 0


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (EASY, 0.0),
        ("Invoice", 0.0),
        ("1856 – 1857", 0.0),
        (GERMAN, 0.5),
        ("Гавань была построена заново.", 1.0),
        ("会議は五月に開かれた。費用は予定を超えた。", 1.0),
    ],
)
def test_other_languages_and_scripts_are_harder(text: str, language: float) -> None:
    """Small models are best at English and worst at other scripts."""
    assert of(text).language == language


def test_reasoning_weighs_more_than_classification() -> None:
    scores = [of(EASY, analysis_type).score for analysis_type in TYPES]
    by_type = dict(zip(TYPES, scores, strict=True))

    assert by_type[AnalysisType.REASONING] == max(scores)
    assert by_type[AnalysisType.CLASSIFICATION] < by_type[AnalysisType.SUMMARY]


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        (AnalysisOptions(schema=WIDE), 5),
        (AnalysisOptions(labels=("news", "law", "report")), 3),
        (AnalysisOptions(instructions=" ".join(["word"] * 15)), 3),
    ],
)
def test_fields_labels_and_instructions_increase_the_complexity(
    options: AnalysisOptions, fields: int
) -> None:
    assert of(EASY, AnalysisType.SUMMARY, options).demand == pytest.approx(fields / 30)


def test_the_items_of_an_extraction_increase_the_complexity() -> None:
    two = of(EASY, AnalysisType.EXTRACTION, AnalysisOptions(instructions="date, place"))
    four = of(EASY, AnalysisType.EXTRACTION, AnalysisOptions(instructions="a, b, c, d"))

    assert 0 < two.demand < four.demand


def test_the_complexity_of_a_synthesis_depends_on_the_answers() -> None:
    part: JsonObject = {"main_topic": HARD, "confidence": 7}

    two, many = of("", answers=(part, part)), of("", answers=(part,) * 24)

    assert two.readability > 0.9
    assert two.parts == pytest.approx(2 / 12)
    assert many.parts == 1
    assert two.score < many.score


@pytest.mark.corpus
def test_real_documents_are_ranked_plausibly(corpora: Path) -> None:
    """Web chat ranks below speeches, and speeches below contracts and filings (docs/models.md)."""
    medians = [
        median(_scores(corpora / name / "docs"))
        for name in ("ud_ewt_sentences", "speeches", "cuad_contracts", "sec_filings")
    ]

    assert medians == sorted(set(medians))


def _scores(folder: Path) -> list[float]:
    texts = [path.read_text("utf-8", "replace") for path in sorted(folder.glob("*.txt"))[:12]]
    parts = [text[p.start_char : p.end_char] for text in texts for p in chunking.split(text, 3_000)]
    return [of(part).score for part in parts[:40]]


SMALL, MEDIUM, LARGE = Tier
ANSWER = Answer(
    output={},
    confidence=0.5,
    quality=0.5,
    repaired=False,
    provider="scripted",
    model="small",
    prompt_version="summary.analyze@1",
)


@pytest.mark.parametrize(
    ("score", "tier"), [(0, SMALL), (0.29, SMALL), (0.3, MEDIUM), (0.44, MEDIUM), (0.45, LARGE)]
)
def test_a_score_at_a_threshold_selects_the_larger_tier(score: float, tier: Tier) -> None:
    """Medium starts at 0.3 and large at 0.45."""
    assert tier_for(score, 0.3, 0.45) is tier


@pytest.mark.parametrize(
    ("lowest", "available", "tiers"),
    [
        (SMALL, {LARGE, SMALL, MEDIUM}, (SMALL, MEDIUM, LARGE)),
        (MEDIUM, {LARGE, SMALL, MEDIUM}, (MEDIUM, LARGE)),
        (SMALL, {LARGE}, (LARGE,)),
        (MEDIUM, {SMALL, LARGE}, (LARGE,)),
        (LARGE, {SMALL, MEDIUM}, (MEDIUM,)),
        (LARGE, {SMALL}, (SMALL,)),
    ],
)
def test_a_missing_tier_is_replaced_by_the_next_larger_or_the_largest_below(
    lowest: Tier, available: set[Tier], tiers: tuple[Tier, ...]
) -> None:
    assert steps(lowest, available) == tiers
