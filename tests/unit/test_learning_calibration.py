"""Tests of calibration: fitting curves, choosing one, and the threshold for acceptance."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chordwise.domain.learning.calibration import (
    MIN_JUDGMENTS,
    ConfidenceClaim,
    Method,
    Points,
    acceptance,
    calibrate,
    is_enough,
    isotonic,
    learn,
    platt,
    require,
)
from chordwise.domain.learning.measures import calibration_error
from chordwise.domain.learning.statistics import wilson
from chordwise.errors import ConfigurationError, ExitCode

CLAIMS = st.lists(
    st.builds(
        ConfidenceClaim,
        confidence=st.one_of(
            st.floats(0, 1).map(lambda claimed: round(claimed, 9)),  # closer ones count as equal
            st.sampled_from([0.0, 0.5, 0.7, 0.9, 1.0]),
        ),
        is_right=st.booleans(),
        group=st.text("0123456789", min_size=1, max_size=2),
    ),
    min_size=1,
    max_size=60,
)


def claims(*judged: tuple[float, int, int]) -> list[ConfidenceClaim]:
    """Return claims with this confidence, of which `right` are right and `wrong` wrong."""
    pairs = [(c, place < right) for c, right, wrong in judged for place in range(right + wrong)]
    return [
        ConfidenceClaim(confidence=confidence, is_right=is_right, group=f"{place:04}")
        for place, (confidence, is_right) in enumerate(pairs)
    ]


def drawn(count: int, seed: int, power: float) -> list[ConfidenceClaim]:
    random = Random(seed)  # noqa: S311 - the same sample each time
    confidences = [random.uniform(0.2, 1) for _ in range(count)]
    return [
        ConfidenceClaim(
            confidence=confidence,
            is_right=random.uniform(0, 1) < confidence**power,
            group=str(place),
        )
        for place, confidence in enumerate(confidences)
    ]


def error(points: Points, judged: list[ConfidenceClaim]) -> float:
    return calibration_error(
        [(calibrate(points, claim.confidence), claim.is_right) for claim in judged]
    )


def test_neighbors_that_violate_the_order_are_pooled() -> None:
    """Computed by hand: 0.2 and 0.3 are pooled; the last block pools all blocks above it."""
    early = isotonic(claims((0.2, 1, 1), (0.3, 0, 1), (0.6, 3, 1)))
    late = isotonic(claims((0.1, 1, 1), (0.2, 2, 1), (0.3, 3, 1), (0.4, 0, 2)))

    assert early == ((0.2, 1 / 3), (0.3, 1 / 3), (0.6, 0.75))
    assert late == ((0.1, 0.5), (0.2, 5 / 9), (0.4, 5 / 9))


@pytest.mark.parametrize("fit", [isotonic, platt])
def test_nearly_equal_claims_have_a_curve(fit: Callable[[list[ConfidenceClaim]], Points]) -> None:
    for step in (0.0, 1e-16, 1e-12, 1e-6):
        judged = [a_claim(0.7 + step * n, is_right=n % 2 == 0) for n in range(40)]

        worths = [calibrate(fit(judged), claim.confidence) for claim in judged]

        assert sum(worths) / len(judged) == pytest.approx(0.5, abs=0.03)


def a_claim(confidence: float, *, is_right: bool) -> ConfidenceClaim:
    return ConfidenceClaim(confidence=confidence, is_right=is_right, group="0")


@given(CLAIMS)
def test_an_isotonic_curve_is_monotonic_and_keeps_the_mean(judged: list[ConfidenceClaim]) -> None:
    points = isotonic(judged)

    worths = [calibrate(points, claim.confidence) for claim in judged]
    assert [y for _, y in points] == sorted(y for _, y in points)
    assert all(left < right for (left, _), (right, _) in pairwise(points))
    assert sum(worths) == pytest.approx(sum(claim.is_right for claim in judged))


@given(CLAIMS)
def test_an_isotonic_curve_is_no_worse_than_mean_and_claims(judged: list[ConfidenceClaim]) -> None:
    points = isotonic(judged)
    mean = sum(claim.is_right for claim in judged) / len(judged)

    def distance(of: Points) -> float:
        return sum((calibrate(of, claim.confidence) - claim.is_right) ** 2 for claim in judged)

    assert distance(points) <= distance(((0.0, mean),)) + 1e-9
    assert distance(points) <= distance(((0.0, 0.0), (1.0, 1.0))) + 1e-9


@given(CLAIMS)
@example([a_claim(0.875, is_right=False), a_claim(0.90625, is_right=True)])
@example([a_claim(0.09375, is_right=False), a_claim(0.125, is_right=True)])
def test_a_logistic_curve_is_monotonic_between_0_and_1(judged: list[ConfidenceClaim]) -> None:
    points = platt(judged)

    worths = [y for _, y in points]
    assert worths == sorted(worths)
    assert all(0 < y < 1 for y in worths)
    assert all(math.isfinite(y) for y in worths)


def test_a_logistic_curve_fits_logistic_data() -> None:
    points = platt(claims((0.25, 300, 700), (0.75, 800, 200)))

    assert calibrate(points, 0.25) == pytest.approx(0.3, abs=0.005)
    assert calibrate(points, 0.75) == pytest.approx(0.8, abs=0.005)


def test_a_curve_is_constant_beyond_its_ends_and_linear_between_points() -> None:
    points = ((0.2, 0.1), (0.6, 0.5))

    assert [calibrate(points, c) for c in (0.0, 0.2, 0.3, 0.6, 1.0)] == pytest.approx(
        [0.1, 0.1, 0.2, 0.5, 0.5]
    )


def test_learning_requires_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)

    with pytest.raises(ConfigurationError, match="needs scikit-learn") as caught:
        require()

    assert caught.value.exit_code == ExitCode.CONFIGURATION
    assert 'pip install "chordwise[learning]"' in caught.value.hint


@pytest.mark.parametrize(
    ("judged", "enough"),
    [
        (claims((0.5, 25, 5)), True),
        (claims((0.5, 26, 4)), False),
        (claims((0.5, 4, 26)), False),
        (claims((0.5, 15, MIN_JUDGMENTS - 16)), False),
    ],
)
def test_a_curve_needs_enough_judgments_of_both_kinds(
    judged: list[ConfidenceClaim],
    enough: bool,  # noqa: FBT001 - the expectation
) -> None:
    assert is_enough(judged) is enough


def test_accurate_claims_are_not_changed() -> None:
    """No curve predicts better than claims that are already calibrated."""
    curve = learn(claims((0.1, 10, 90), (0.5, 50, 50), (0.9, 90, 10)))

    assert curve.method in (Method.CLAIMED, Method.ISOTONIC)
    assert curve.error_before == pytest.approx(0, abs=1e-9)
    assert calibrate(curve.points, 0.5) == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(5))
def test_a_learned_curve_calibrates_other_claims(seed: int) -> None:
    learned, others = drawn(400, seed, 3), drawn(400, seed + 100, 3)

    curve = learn(learned)

    assert curve.method is not Method.CLAIMED
    assert curve.error_after < curve.error_before / 2
    assert error(curve.points, others) < error(((0.0, 0.0), (1.0, 1.0)), others) / 2


def test_claims_about_one_document_are_in_one_fold() -> None:
    one = [ConfidenceClaim(confidence=0.5, is_right=True, group="a")] * 20
    other = [ConfidenceClaim(confidence=0.5, is_right=False, group="b")] * 20

    curve = learn([*one, *other])

    assert curve.method is Method.CLAIMED
    assert curve.error_after == pytest.approx(0)


def test_claims_about_a_single_document_are_not_calibrated() -> None:
    curve = learn([a_claim(0.9, is_right=n < 10) for n in range(40)])

    assert curve.method is Method.CLAIMED
    assert curve.points == ((0.0, 0.0), (1.0, 1.0))
    assert curve.error_after == curve.error_before


def test_the_error_rate_of_accepted_claims_is_bounded() -> None:
    judged = claims((0.9, 90, 0), (0.6, 30, 12))

    accepted = acceptance(judged, 0.05)

    assert accepted is not None
    assert accepted.accept_from == 0.9
    assert accepted.share == pytest.approx(90 / 132)
    assert acceptance(claims((0.9, 72, 0)), 0.05) is None
    assert acceptance(claims((0.9, 73, 0)), 0.05) is not None


@given(CLAIMS, st.sampled_from([0.05, 0.2, 0.5]))
def test_no_lower_threshold_satisfies_the_bound(
    judged: list[ConfidenceClaim], max_error_rate: float
) -> None:
    accepted = acceptance(judged, max_error_rate)

    def bound(claim: float) -> float:
        above = [entry for entry in judged if entry.confidence >= claim]
        return wilson(sum(not entry.is_right for entry in above), len(above))[1]

    if accepted is not None:
        assert bound(accepted.accept_from) <= max_error_rate
    lower = {c.confidence for c in judged if not accepted or c.confidence < accepted.accept_from}
    assert all(bound(claim) > max_error_rate for claim in lower)
