"""Tests of estimates of a run: intervals have the stated coverage."""

from __future__ import annotations

import statistics
from random import Random

import pytest

from chordwise.domain import estimates
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.estimates import Interval


def test_prediction_intervals_hold_in_nine_of_ten_cases() -> None:
    random = Random(7)  # noqa: S311 - the same draws in every run

    def draw(count: int) -> list[float]:
        return [random.gauss(400, 120) for _ in range(count)]

    inside = 0
    for _ in range(2_000):
        predicted = estimates.predicted(draw(8), 30)
        inside += predicted.low <= sum(draw(30)) <= predicted.high

    assert 0.88 <= inside / 2_000 <= 0.93


def test_more_observations_narrow_the_interval() -> None:
    few = estimates.predicted([100, 200, 300, 400, 500], 50)
    many = estimates.predicted([100, 200, 300, 400, 500] * 20, 50)

    assert few.typical == many.typical == 300 * 50
    assert many.high - many.low < few.high - few.low


def test_a_prediction_is_never_below_the_observed_minimum() -> None:
    assert estimates.predicted([10, 1_000, 20, 900, 15], 3).low >= 3 * 10


@pytest.mark.parametrize("kind", AnalysisType)
def test_default_intervals_are_wide_and_within_the_output_limit(kind: AnalysisType) -> None:
    assumed = estimates.assumed_answer_length(kind, 3_000, 512)

    assert 0 < assumed.low < assumed.typical <= assumed.high <= 512
    assert assumed.typical / assumed.low == pytest.approx(3)


def test_the_interval_of_repeats_narrows_with_the_history() -> None:
    some, many = estimates.repeats(20, 1), estimates.repeats(2_000, 100)

    assert estimates.repeats(0, 0) == estimates.ASSUMED_REPEATS
    assert some.typical == many.typical == 0.05
    assert some.low <= many.low < 0.05 < many.high < some.high
    assert estimates.repeats(50, 0).high > 0


@pytest.mark.parametrize(
    ("chunks", "room", "questions", "material"),
    [
        (1, 1_000, 0, 0),  # nothing to merge
        (5, 1_000, 1, 500),  # all in one question
        (20, 1_000, 3, 2_000 + 2 * 300),  # ten each, then both
        (21, 1_000, 3, 2_000 + 3 * 300),  # the last one is merged on the second level
        (4, 10, 3, 400 + 2 * 300),  # never fewer than two at a time
    ],
)
def test_syntheses_are_counted_by_level(
    chunks: int, room: float, questions: int, material: float
) -> None:
    """Each question merges as many answers as fit, until one answer is left."""
    found = estimates.syntheses(chunks, 100, 300, room)

    assert (found.questions, found.material_tokens) == (questions, material)


def test_errors_of_a_sum_are_added() -> None:
    """Errors are treated as if they had the same sign."""
    one = Interval(low=1, typical=2, high=4)

    assert one + one == one.times(2) == Interval(low=2, typical=4, high=8)


def test_the_quantile_is_that_of_students_t_distribution() -> None:
    """Tables give 2.132 for four degrees of freedom and 1.660 for a hundred, at 90 %."""
    widths = []
    for count in (5, 101):
        observed = [float(n) for n in range(count)]
        predicted = estimates.predicted([x + 1e6 for x in observed], 1)
        scale = statistics.stdev(observed) * (1 + 1 / count) ** 0.5
        widths.append((predicted.high - predicted.typical) / scale)

    assert widths == pytest.approx([2.132, 1.660], abs=0.005)
