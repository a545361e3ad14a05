"""Estimates of the work of a run: the output of models, and the number of questions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisType

COVERAGE = 0.9
"""The coverage of an interval that is based on observations."""

MIN_OBSERVATIONS = 5
_SPREAD = 3.0
_NORMAL = statistics.NormalDist().inv_cdf((1 + COVERAGE) / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An unknown number: its expected value, and bounds that it most likely lies within."""

    low: float
    typical: float
    high: float

    def __add__(self, other: Interval) -> Interval:
        """Add the bounds, as if both errors had the same direction, which is conservative."""
        low, high = self.low + other.low, self.high + other.high
        return Interval(low=low, typical=self.typical + other.typical, high=high)

    def multiplied_by(self, other: Interval) -> Interval:
        """Return the product of a count and the interval of each counted item."""
        low, high = self.low * other.low, self.high * other.high
        return Interval(low=low, typical=self.typical * other.typical, high=high)

    def times(self, factor: float) -> Interval:
        """Return the interval multiplied by a factor."""
        return self.multiplied_by(Interval(low=factor, typical=factor, high=factor))


NOTHING = Interval(low=0, typical=0, high=0)
ASSUMED_REPEATS = Interval(low=0, typical=0.03, high=0.2)
"""The share of questions that are repeated, without observations."""
ASSUMED_REVISIONS = Interval(low=0, typical=0.25, high=1)
"""The assumed share of answers with an objection, which are revised."""
ASSUMED_CRITIQUE = Interval(low=10, typical=60, high=500)
"""The length of a critique in tokens; most of them find nothing."""
ASSUMED_FIELD = Interval(low=6, typical=18, high=54)
"""The length of a field of a wide schema in tokens: from null to a value with its quote."""
ASSUMED_PAGE = Interval(low=100, typical=500, high=1_200)
"""The length of the text of a scanned page in tokens."""
ASSUMED_PICTURE = Interval(low=0.5, typical=1, high=2)
"""The ratio of the counted to the estimated tokens of a picture."""


def assumed_answer_length(kind: AnalysisType, text_tokens: float, max_tokens: float) -> Interval:
    """Return the assumed length of one answer by its type: from a third to three times as much."""
    fixed, share_of_text = analysis_for(kind).assumed_length
    typical = min(max_tokens, fixed + share_of_text * text_tokens)
    return Interval(low=typical / _SPREAD, typical=typical, high=min(max_tokens, typical * _SPREAD))


def predicted(observed: Sequence[float], count: int) -> Interval:
    """Return the total of `count` further answers like the observed ones, as an interval.

    Both are uncertain (Hahn and Meeker, Statistical Intervals, 1991).

    Raises:
        ValueError: There are fewer than two observations.
    """
    mean, deviation = statistics.fmean(observed), statistics.stdev(observed)
    if not count:
        return NOTHING
    width = _quantile(len(observed) - 1) * deviation * math.sqrt(1 / count + 1 / len(observed))
    one = Interval(low=max(min(observed), mean - width), typical=mean, high=mean + width)
    return one.times(count)


def repeats(questions: int, repeated: int) -> Interval:
    """Return the share of questions that will be repeated, from the observed numbers."""
    if not questions:
        return ASSUMED_REPEATS
    share = repeated / questions
    error = _NORMAL * math.sqrt(max(share * (1 - share), 1 / questions) / questions)
    return Interval(low=max(0.0, share - error), typical=share, high=min(1.0, share + error))


def _quantile(freedom: int) -> float:
    z = _NORMAL
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Syntheses:
    """The number of questions that join the answers of chunks, and the length of their material."""

    questions: int
    material_tokens: float


def syntheses(chunks: int, answer_tokens: float, joined_tokens: float, room: float) -> Syntheses:
    """Return the questions that join answers level by level, as many answers at once as fit `room`.

    `answer_tokens` is the length of the answer of a chunk, `joined_tokens` that of a joined answer.
    """
    questions, material = 0, 0.0
    count, size = chunks, answer_tokens
    while count > 1:
        width = max(2, int(room // max(size, 1)))
        whole, rest = divmod(count, width)
        joins = whole + (rest > 1)
        questions += joins
        material += (count - (rest == 1)) * size
        count, size = whole + (rest > 0), joined_tokens
    return Syntheses(questions=questions, material_tokens=material)
