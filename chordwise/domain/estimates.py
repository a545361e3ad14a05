"""How much work a run will be: intervals for what models will write, and the questions it takes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from chordwise.domain.tasks import AnalysisType

COVERAGE = 0.9
"""How often an interval that rests on observations is to hold."""

LEAST_OBSERVATIONS = 5
_SPREAD = 3.0
_NORMAL = statistics.NormalDist().inv_cdf((1 + COVERAGE) / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A number that is not known yet: what is expected, and between what it will most likely be."""

    low: float
    typical: float
    high: float

    def __add__(self, other: Interval) -> Interval:
        """Add as if both erred in the same direction, which is the cautious view."""
        return Interval(
            low=self.low + other.low,
            typical=self.typical + other.typical,
            high=self.high + other.high,
        )

    def of_each(self, other: Interval) -> Interval:
        """Return the product of a number of things and what is true of each of them."""
        return Interval(
            low=self.low * other.low,
            typical=self.typical * other.typical,
            high=self.high * other.high,
        )

    def times(self, factor: float) -> Interval:
        """Return the interval of so many times the number."""
        return self.of_each(Interval(low=factor, typical=factor, high=factor))


NOTHING = Interval(low=0, typical=0, high=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Habit:
    """What is assumed of an answer where nothing was observed, in tokens.

    A part of its length is the same for every text, a part grows with the text that is read.
    """

    fixed: float
    share_of_text: float


HABITS: Mapping[AnalysisType, Habit] = MappingProxyType(
    {
        AnalysisType.SUMMARY: Habit(fixed=200, share_of_text=0.08),
        AnalysisType.EXTRACTION: Habit(fixed=120, share_of_text=0.15),
        AnalysisType.REASONING: Habit(fixed=250, share_of_text=0.12),
        AnalysisType.CLASSIFICATION: Habit(fixed=120, share_of_text=0.01),
        AnalysisType.SENTIMENT: Habit(fixed=150, share_of_text=0.04),
    }
)
ASSUMED_REPEATS = Interval(low=0, typical=0.03, high=0.2)
"""The share of questions that have to be asked once more, where nothing was observed."""


ASSUMED_REVISIONS = Interval(low=0, typical=0.25, high=1)
"""The share of the answers that a critique objects to."""
ASSUMED_CRITIQUE = Interval(low=10, typical=60, high=500)
"""What a critique takes to write, in tokens: most of them find nothing."""


ASSUMED_PAGE = Interval(low=100, typical=500, high=1_200)
"""What the text of a scanned page takes to write, in tokens."""
ASSUMED_PICTURE = Interval(low=0.5, typical=1, high=2)
"""What models count for a picture, of what is estimated."""


def assumed(kind: AnalysisType, text_tokens: float, max_tokens: float) -> Interval:
    """Return the length of one answer by the habit of its type, wide: a third to three times."""
    habit = HABITS[kind]
    typical = min(max_tokens, habit.fixed + habit.share_of_text * text_tokens)
    return Interval(low=typical / _SPREAD, typical=typical, high=min(max_tokens, typical * _SPREAD))


def predicted(observed: Sequence[float], count: int) -> Interval:
    """Return the sum of `count` further answers like those observed.

    The prediction interval for the mean of future observations (Hahn and Meeker, Statistical
    Intervals, 1991): both what is drawn next and the mean observed are uncertain.

    Raises:
        ValueError: Fewer than two observations.
    """
    mean, deviation = statistics.fmean(observed), statistics.stdev(observed)
    if not count:
        return NOTHING
    width = _quantile(len(observed) - 1) * deviation * math.sqrt(1 / count + 1 / len(observed))
    return Interval(low=max(min(observed), mean - width), typical=mean, high=mean + width).times(
        count
    )


def repeats(asked: int, repeated: int) -> Interval:
    """Return the share of questions that will be asked once more, from so many that were."""
    if not asked:
        return ASSUMED_REPEATS
    share = repeated / asked
    error = _NORMAL * math.sqrt(max(share * (1 - share), 1 / asked) / asked)
    return Interval(low=max(0.0, share - error), typical=share, high=min(1.0, share + error))


def _quantile(freedom: int) -> float:
    """Return the quantile of Student's t, by its expansion (Abramowitz and Stegun, 26.7.5)."""
    z = _NORMAL
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Syntheses:
    """How many questions join the answers of a document's chunks, and how much they read."""

    questions: int
    material_tokens: float


def syntheses(chunks: int, answer_tokens: float, joined_tokens: float, room: float) -> Syntheses:
    """Return what it takes to join answers, level by level, as many at once as fit `room`.

    `answer_tokens` is the length of a chunk's answer, `joined_tokens` of one that joins several.
    """
    questions, material = 0, 0.0
    count, size = chunks, answer_tokens
    while count > 1:
        width = max(2, int(room // max(size, 1)))
        whole, rest = divmod(count, width)
        asked = whole + (rest > 1)
        questions += asked
        material += (count - (rest == 1)) * size
        count, size = whole + (rest > 0), joined_tokens
    return Syntheses(questions=questions, material_tokens=material)
