"""Tests of certification: the error bound holds however often it is evaluated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from random import Random
from typing import NamedTuple

import pytest

from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.json_values import JsonObject
from chordwise.domain.learning import certification, judgments
from chordwise.domain.learning.certification import (
    CertificationVerdict,
    advice,
    certify,
    outlook,
    scored,
    trust,
)
from chordwise.domain.learning.statistics import (
    expected_checks,
    further_checks,
    is_above,
    max_wrong,
    min_wrong,
)
from tests.fakes.generated_answers import a_field

# ruff: noqa: S311 - statistics, not secrets

MAX_ERROR = 0.05
RISK = 0.05


class ScoredAnswer(NamedTuple):
    """An answer, and the outcome of its check if it has one."""

    score: float
    is_right: bool | None = None


def population(random: Random, size: int, wrong: int, *, is_informed: bool) -> list[ScoredAnswer]:
    """Return answers in random order; informed scores are lower for wrong answers."""
    truths = [False] * wrong + [True] * (size - wrong)
    random.shuffle(truths)
    return [
        ScoredAnswer(random.random() * (1 if is_right or not is_informed else 0.5), is_right)
        for is_right in truths
    ]


def seen(answers: Sequence[ScoredAnswer], checks: int) -> list[ScoredAnswer]:
    return [
        answer if place < checks else ScoredAnswer(answer.score)
        for place, answer in enumerate(answers)
    ]


def exceeds_the_bound(answers: Sequence[ScoredAnswer], risk: float, step: int) -> bool:
    """Check until answers are accepted; return whether their error rate exceeds the bound."""
    for checks in range(step, len(answers) + 1, step):
        certificate = certify(seen(answers, checks), MAX_ERROR, risk)
        if certificate.accept_from is not None:
            accepted = [answer for answer in answers if answer.score >= certificate.accept_from]
            assert len(accepted) == certificate.accepted
            wrong = sum(answer.is_right is False for answer in accepted)
            return wrong > MAX_ERROR * len(accepted)
    return False


def at_most(rate: float, seeds: int) -> float:
    """Return the 99.9 % bound for the number of seeds with an event of this rate."""
    return rate * seeds + 3.1 * math.sqrt(rate * (1 - rate) * seeds)


@pytest.mark.parametrize("is_informed", [False, True])
def test_the_bound_is_exceeded_no_more_often_than_the_risk(*, is_informed: bool) -> None:
    """One answer too many is wrong; 500 seeds, evaluated after every twentieth check."""
    broken = sum(
        exceeds_the_bound(population(Random(seed), 100, 6, is_informed=is_informed), RISK, 20)
        for seed in range(500)
    )

    assert broken <= at_most(RISK, 500)


@pytest.mark.parametrize("seeds", [20, pytest.param(1000, marks=pytest.mark.nightly)])
def test_the_risk_holds_for_forty_fields_together(seeds: int) -> None:
    broken = sum(
        any(
            exceeds_the_bound(population(random, 100, 6, is_informed=False), RISK / 40, 20)
            for _ in range(40)
        )
        for random in map(Random, range(seeds))
    )

    assert broken <= at_most(RISK, seeds)


def test_the_bound_of_one_set_is_tight() -> None:
    """Evaluated after every check with one wrong answer too many, it nearly reaches the risk."""
    refuted = 11
    certified = 0
    for seed in range(500):
        answers = population(Random(seed), 200, refuted, is_informed=False)
        wrong = 0
        for checks, answer in enumerate(answers, start=1):
            wrong += answer.is_right is False
            if further_checks(200, checks, wrong, MAX_ERROR, RISK) == 0:
                certified += 1
                break

    assert 10 <= certified <= at_most(RISK, 500)


@pytest.mark.parametrize(
    ("size", "wrong", "expected"),
    [(480, 0, 142), (480, 1, 237), (100_000, 0, 160), (480, 10, None)],
)
def test_missing_checks_are_counted(size: int, wrong: int, expected: int | None) -> None:
    """The bound is 2 % at 95 %; `None` means that too many answers are already wrong."""
    assert further_checks(size, 0, wrong, 0.02, 0.05) == expected


def test_good_answers_are_accepted_in_order_of_their_scores() -> None:
    random = Random(7)
    good = [ScoredAnswer(0.6 + random.random() * 0.4, is_right=True) for _ in range(800)]
    bad = [ScoredAnswer(random.random() * 0.5, is_right=random.random() < 0.6) for _ in range(200)]
    answers = good + bad
    random.shuffle(answers)

    certificate = certify(seen(answers, 600), MAX_ERROR, RISK)

    assert certificate.verdict is CertificationVerdict.CERTIFIED
    assert certificate.accepted == 800
    assert certificate.error_bound <= MAX_ERROR
    checked = sum(answer.score >= (certificate.accept_from or 0) for answer in answers[:600])
    assert (certificate.checks, certificate.population) == (checked, 1000)


def test_a_set_that_cannot_be_certified_reports_the_required_reviews() -> None:
    """11 % are wrong at any score, so at least (11 - 2) / (100 - 2) need review."""
    answers = [ScoredAnswer(0.5, is_right=place % 9 != 0) for place in range(450)]

    certificate = certify(seen(answers, 450), 0.02, RISK)

    assert (certificate.verdict, certificate.more_checks) == (CertificationVerdict.IMPOSSIBLE, None)
    assert certificate.error_bound == pytest.approx(1 / 9)
    assert certificate.must_review == pytest.approx((1 / 9 - 0.02) / 0.98)


def test_only_checks_before_the_first_missing_one_count() -> None:
    """Users check later answers selectively, so those say nothing about the others."""
    answers = [
        ScoredAnswer(0.5, is_right=True),
        ScoredAnswer(0.5),
        *[ScoredAnswer(0.5, is_right=True)] * 498,
    ]

    certificate = certify(answers, MAX_ERROR, RISK)

    assert (certificate.verdict, certificate.checks) == (CertificationVerdict.OPEN, 1)
    assert certificate.more_checks == further_checks(
        500, 1, 0, MAX_ERROR, RISK / certification.SETS
    )


@pytest.mark.parametrize(
    ("size", "max_error", "checks", "expected"),
    [
        (
            *(58, 0.05, 0),
            "22 more checks without an error, then 2 others are accepted; 34 are left to check",
        ),
        (58, 0.05, 53, "certified, 5 without a check"),
        (58, 0.01, 0, "too few to save checks: all 58 have to be checked"),
        (58, 0.01, 9, "too few to save checks: all 58 have to be checked, 49 more"),
        (1, 0.05, 0, "too few to save checks: the only one has to be checked"),
        (58, 0.01, 58, "all 58 accepted are checked"),
        (
            *(480, 0.05, 0),
            "61 more checks without an error, then 35 others are accepted; 384 are left to check",
        ),
    ],
)
def test_a_certificate_says_which_answers_need_no_check(
    size: int, max_error: float, checks: int, expected: str
) -> None:
    """Checking all answers of a set is not presented as a certificate that saves checks."""
    random = Random(3)
    answers = [ScoredAnswer(random.random(), is_right=True) for _ in range(size)]

    made = certify(seen(answers, checks), max_error, RISK)

    assert outlook(**asdict(made)) == expected


@pytest.mark.parametrize(
    ("size", "expected"), [(1, "the only one is checked"), (2, "all 2 are checked")]
)
def test_a_certificate_asks_for_no_check_of_what_is_checked(size: int, expected: str) -> None:
    answers = [ScoredAnswer(0.5, is_right=False) for _ in range(size)]

    assert outlook(**asdict(certify(seen(answers, size), MAX_ERROR, RISK))) == expected


@pytest.mark.parametrize("checks", range(40, 200, 20))
def test_the_next_answers_to_check_are_not_all_certified(checks: int) -> None:
    """They are of a larger set, or there are none."""
    certificates = []
    for seed in range(20):
        random = Random(seed)
        answers = [
            ScoredAnswer(random.random(), is_right=random.random() > 0.01) for _ in range(200)
        ]
        certificates.append(certify(seen(answers, checks), MAX_ERROR, RISK))

    borders = [(one.check_from, one.accept_from) for one in certificates if one.accepted]
    assert borders or checks < 80
    assert all(check is None or (accept and check < accept) for check, accept in borders)


def test_the_bounds_enclose_the_observed_rate() -> None:
    """After all checks they are exact; without checks they are zero and the size of the set."""
    assert (max_wrong(50, 50, 3, RISK), min_wrong(50, 50, 3, RISK)) == (3, 3)
    assert (max_wrong(50, 0, 0, RISK), min_wrong(50, 0, 0, RISK)) == (50, 0)
    assert min_wrong(480, 92, 10, RISK) < 10 / 92 * 480 < max_wrong(480, 92, 10, RISK)


def test_a_drift_is_detected_without_false_alarms() -> None:
    def alarms(rate: float) -> int:
        alarmed = 0
        for seed in range(300):
            random, wrong = Random(seed), 0
            for checks in range(1, 201):
                wrong += random.random() < rate
                if is_above(checks, wrong, MAX_ERROR, RISK):
                    alarmed += 1
                    break
        return alarmed

    assert alarms(MAX_ERROR) <= at_most(RISK, 300)
    assert alarms(4 * MAX_ERROR) > 285


def test_a_field_is_ranked_by_its_calibrated_claim_and_its_evidence() -> None:
    """Its least confident value counts; a field without a claim has that of the answer."""
    fields: JsonObject = {
        "fields": [
            a_field("party", "ACME", 9, grounding="exact"),
            a_field("party", "ACME", 7, grounding="exact"),
            a_field("term", "ACME", 10, grounding="none"),
            a_field("law", "ACME", None, grounding="exact"),
            a_field("place", None, 4),
        ]
    }
    answer = judgments.AnswerWithConfidence(
        analysis_type=AnalysisType.EXTRACTION, output=fields, confidence=0.6
    )
    units = list(scored(answer, None, lambda part, claim: claim / (2 if part == "field" else 3)))

    assert [(part.unit, part.path) for part in units] == [
        ("party", "/fields/0"),
        ("term", "/fields/2"),
        ("law", "/fields/3"),
        ("place, not mentioned", "/fields/4"),
    ]
    assert [part.score for part in units] == pytest.approx([0.35, -1.5, 0.2, 0.2])
    assert units[0].paths == ["/fields/0", "/fields/1"]
    assert next(scored(replace(answer, needs_review=True), 0.3)).score == pytest.approx(-1.7)
    # An ungrounded quote outweighs the confidence, and disagreement of samples lowers it.
    assert trust(1.0, None, 1) < trust(0.0, None, 0)
    assert trust(0.9, 0.6, 0) == 0.6


@pytest.mark.parametrize(
    ("size", "rate", "checks", "expected"),
    [
        (58, 0.0, 0, "stop here: about 53 more checks are expected to free only 5"),
        (2000, 0.03, 50, "about 326 more checks are expected to free 1,624"),
        (2000, 0.03, 150, "stop here: about 357 more checks are expected to free only 8"),
        (
            2000,
            0.03,
            600,
            "stop here: more checks are not expected to free answers",
        ),
        (2000, 0.005, 100, "about 135 more checks are expected to free 1,765"),
        (2000, 0.0, 600, ""),
    ],
)
def test_the_expected_checks_and_their_gain_are_said(
    size: int, rate: float, checks: int, expected: str
) -> None:
    """With 3 % errors and an uninformative confidence, it is soon advised to stop."""
    random = Random(3)
    answers = [ScoredAnswer(random.random(), random.random() >= rate) for _ in range(size)]

    made = certify(seen(answers, checks), 0.02, RISK)

    assert advice(made.verdict, made.expected_checks, made.expected_free) == expected


def test_the_expected_checks_are_those_that_suffice() -> None:
    """The mean of simulated orders with an average number of errors is near the expectation."""
    needed = []
    for seed in range(40):
        answers, wrong = population(Random(seed), 1000, 5, is_informed=False), 0
        for checks, answer in enumerate(answers, start=1):
            wrong += answer.is_right is False
            if further_checks(1000, checks, wrong, 0.02, RISK) == 0:
                needed.append(checks)
                break

    assert expected_checks(1000, 200, 1, 0.02, RISK) == pytest.approx(
        sum(needed) / len(needed) - 200, abs=60
    )
