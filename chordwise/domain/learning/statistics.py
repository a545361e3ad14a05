"""Statistics: intervals of shares and means, calibration, and bounds that hold at any time.

Wrong answers in a finite population are bounded from checks in random order without replacement, by
an exact likelihood ratio that is a test martingale (Waudby-Smith and Ramdas, “Confidence sequences
for sampling without replacement”, 2020; Ville's inequality).

The interval of a mean is a confidence sequence: with a probability of at least 1 - `risk` it
contains the mean at all times simultaneously. For shares it is the predictable plug-in
empirical-Bernstein sequence (Waudby-Smith and Ramdas, “Estimating means of bounded random variables
by betting”, JRSS B 2024, theorem 2), which holds for any number of cases. Amounts such as costs are
unbounded; theirs is the asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy and
Ramdas, “Time-uniform central limit theory and asymptotic confidence sequences”, Annals of
Statistics 2024, theorem 2.2), which holds approximately from some number of cases on.

The interval of a share from its moments inverts the mixture of all likelihood ratios of a coin,
which is also a test supermartingale for numbers between 0 and 1 (the beta-binomial mixture of
Howard, Ramdas, McAuliffe and Sekhon, “Time-uniform, nonparametric, nonasymptotic confidence
sequences”, Annals of Statistics 2021).

Calibration learns the accuracy of claimed confidences from judgments. A curve is piecewise linear
between its points (claim, worth) and constant beyond them, so that SQL can evaluate it as well.
Cross-validation selects the curve, or none. scikit-learn, which belongs to the extra `learning`,
fits the curves; it is imported when a curve is fitted.
"""

from __future__ import annotations

import importlib.util
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import groupby
from random import Random
from statistics import NormalDist, fmean
from typing import TypeAlias, TypeVar

from chordwise.errors import ConfigurationError

Item = TypeVar("Item")
Points: TypeAlias = tuple[tuple[float, float], ...]
"""The points of a calibration curve, ascending."""
Z = NormalDist().inv_cdf(0.975)
"""The 97.5 % quantile of the standard normal distribution."""
MIN_BOOTSTRAP_ITEMS = 10
"""The number of items that the bootstrap needs: with fewer its interval is too narrow."""
_FEWEST_RESAMPLES, _MAX_RESAMPLES = 100, 400
_DRAWS = 1_000_000
"""The approximate number of items drawn in total: many items need fewer resamples."""
_STEEPEST = 6
"""Error rates from 2 to 2⁶ times the bound are the alternatives in `is_above`."""
MIN_AMOUNTS = 30
"""The number of amounts from which on their asymptotic interval is accurate enough."""
_MAX_BET = 0.5
_SHARPEST_AT = 100
"""The number of amounts for which the width of their interval is optimized."""
_BISECTIONS = 40
MIN_JUDGMENTS = 30
"""The number of judgments that a calibration needs."""
MIN_JUDGMENTS_OF_EACH = 5
"""The number of right and of wrong judgments that a calibration needs, each."""
_BINS = 10
_FOLDS = 5
_LEAST_DOUBT = 1e-12
_STEPS = 20
_TOLERANCE = 1e-8


def wilson(successes: float, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, without cases 0 to 1 (Wilson, 1927)."""
    if not total:
        return 0.0, 1.0
    share, square = successes / total, Z * Z / total
    center = (share + square / 2) / (1 + square)
    half = Z / (1 + square) * math.sqrt(share * (1 - share) / total + square / (4 * total))
    # The exact bounds at 0 and 1 would otherwise suffer from rounding.
    low = 0.0 if successes == 0 else max(0.0, center - half)
    return low, 1.0 if successes == total else min(1.0, center + half)


def bootstrap(
    items: Sequence[Item], measured: Callable[[Sequence[Item]], float], random: Random
) -> tuple[float, float] | tuple[None, None]:
    """Return the 95 % interval of a metric that has no formula, by resampling the items.

    The bounds are percentiles (Efron, 1979); fewer than `MIN_BOOTSTRAP_ITEMS` have no interval.
    """
    if len(items) < MIN_BOOTSTRAP_ITEMS:
        return None, None
    resamples = min(_MAX_RESAMPLES, max(_FEWEST_RESAMPLES, _DRAWS // len(items)))
    drawn = sorted(measured(random.choices(items, k=len(items))) for _ in range(resamples))
    edge = round(resamples * 0.025)
    return drawn[edge], drawn[-1 - edge]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """The count, mean and variance of some numbers."""

    count: int = 0
    mean: float = 0.0
    variance: float = 0.0


def moments(values: Sequence[float]) -> Moments:
    """Return the moments of some numbers, which may be none."""
    if not values:
        return Moments()
    mean = fmean(values)
    variance = fmean((value - mean) ** 2 for value in values)
    return Moments(count=len(values), mean=mean, variance=variance)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanInterval:
    """A mean of `count` numbers and its bounds."""

    count: int
    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the sign of the mean is certain."""
        return self.low > 0 or self.high < 0


class ShareSequence:
    """The confidence sequence of the mean of numbers from 0 to 1."""

    def __init__(self, risk: float) -> None:
        self._reach = math.log(2 / risk)
        self._count = 0
        self._total = self._weight = self._weighted = self._deviation = 0.0
        self._estimate, self._spread, self._variance = 0.5, 0.25, 0.25

    def add(self, value: float) -> None:
        """Add the next number."""
        self._count += 1
        scale = self._variance * self._count * math.log(1 + self._count)
        bet = min(math.sqrt(2 * self._reach / scale), _MAX_BET)
        self._weight += bet
        self._weighted += bet * value
        self._deviation += (value - self._estimate) ** 2 * (-math.log(1 - bet) - bet)
        self._total += value
        self._estimate = (0.5 + self._total) / (self._count + 1)
        self._spread += (value - self._estimate) ** 2
        self._variance = self._spread / (self._count + 1)

    def interval(self) -> MeanInterval:
        """Return the current interval; without numbers it is 0 to 1."""
        if not self._count:
            return MeanInterval(count=0, mean=0.5, low=0.0, high=1.0)
        middle = self._weighted / self._weight
        reach = (self._reach + self._deviation) / self._weight
        low, high = max(0.0, middle - reach), min(1.0, middle + reach)
        return MeanInterval(count=self._count, mean=self._total / self._count, low=low, high=high)


def amount_interval(sample: Moments, risk: float) -> MeanInterval:
    """Return the interval of a mean of unbounded numbers; infinite below `MIN_AMOUNTS` numbers."""
    count, mean = sample.count, sample.mean
    if count < MIN_AMOUNTS:
        return MeanInterval(count=count, mean=mean, low=-math.inf, high=math.inf)
    log = -2 * math.log(risk)
    rho2 = (log + math.log(log + 1)) / _SHARPEST_AT
    scaled = count * rho2 + 1
    margin = math.sqrt(2 * scaled * math.log(math.sqrt(scaled) / risk) / (count**2 * rho2))
    reach = margin * math.sqrt(sample.variance)
    return MeanInterval(count=count, mean=mean, low=mean - reach, high=mean + reach)


def share_interval(sample: Moments, risk: float) -> MeanInterval:
    """Return the interval of a mean of numbers from 0 to 1, computed from their count and mean."""
    ones = sample.count * sample.mean
    noughts = max(0.0, sample.count - ones)
    low, high = _min_rate(ones, noughts, risk), 1 - _min_rate(noughts, ones, risk)
    return MeanInterval(count=sample.count, mean=sample.mean, low=low, high=high)


def _min_rate(ones: float, noughts: float, risk: float) -> float:
    """Return the smallest rate of ones that the numbers of ones and zeros do not refute."""
    if not ones:
        return 0.0
    mixture = math.lgamma(ones + 1) + math.lgamma(noughts + 1) - math.lgamma(ones + noughts + 2)
    low, high = 0.0, ones / (ones + noughts)
    for _ in range(_BISECTIONS):
        rate = (low + high) / 2
        likelihood = ones * math.log(rate) + noughts * math.log1p(-rate)
        low, high = (rate, high) if mixture - likelihood >= -math.log(risk) else (low, rate)
    return low


def further_checks(
    population: int, checks: int, wrong: int, max_error: float, risk: float, share: float = 0.0
) -> int | None:
    """Return how many more checks prove `max_error`, None if `wrong` exceeds it.

    Of these, `share` is wrong: by default none.
    """
    refuted = math.floor(max_error * population) + 1
    if wrong >= refuted:
        return None
    return bisect_left(
        range(checks, population),
        True,
        key=lambda total: _is_fewer(
            refuted, population, total, wrong + round(share * (total - checks)), risk
        ),
    )


def expected_checks(population: int, checks: int, wrong: int, max_error: float, risk: float) -> int:
    """Return how many more checks are expected to prove `max_error`; all others if none do.

    Assumed is the share of wrong checks, after 1 / `max_error` more with a quarter of a wrong one.
    """
    share = (wrong + 0.25) * max_error / (checks * max_error + 1)
    further = further_checks(population, checks, wrong, max_error, risk, share)
    return population - checks if further is None else further


def max_wrong(population: int, checks: int, wrong: int, risk: float) -> int:
    """Return the upper bound on wrong answers in a population, with probability 1 - `risk`."""
    return wrong + bisect_left(
        range(wrong, population - checks + wrong),
        True,
        key=lambda number: _is_fewer(number + 1, population, checks, wrong, risk),
    )


def min_wrong(population: int, checks: int, wrong: int, risk: float) -> int:
    """Return the lower bound on wrong answers in a population, with probability 1 - `risk`."""
    if not checks:
        return 0
    # The marginal probability of the checks under a uniform prior on the number of wrong answers.
    mixture = -math.log(checks + 1) - _log_choose(checks, wrong)
    mode = (population + 1) * wrong // checks
    highest = min(max(mode, wrong), population - checks + wrong)
    return wrong + bisect_left(
        range(wrong, highest),
        True,
        key=lambda number: (
            mixture - _log_likelihood(number, population, checks, wrong) < -math.log(risk)
        ),
    )


def is_above(checks: int, wrong: int, max_error: float, risk: float) -> bool:
    """Return whether checks of further answers prove that more than `max_error` of them are wrong.

    It may be evaluated after every check; the probability of a false alarm is at most `risk`.
    """
    rates = [rate for k in range(1, _STEEPEST + 1) if (rate := max_error * 2**k) < 1] or [
        (1 + max_error) / 2
    ]
    ratios = [
        wrong * math.log(rate / max_error)
        + (checks - wrong) * math.log((1 - rate) / (1 - max_error))
        for rate in rates
    ]
    return _log_sum(ratios) - math.log(len(ratios)) >= -math.log(risk)


@lru_cache(maxsize=4096)
def _is_fewer(refuted: int, population: int, checks: int, wrong: int, risk: float) -> bool:
    """Return whether the checks refute that `refuted` or more answers are wrong.

    The alternatives are smaller numbers k, weighted by 1/(k + 1): few checks suffice if few fail.
    """
    if refuted > population - checks + wrong:
        return True
    likelihoods = [_log_likelihood(k, population, checks, wrong) for k in range(wrong, refuted)]
    if not likelihoods:
        return False
    weighted = [
        likelihood - math.log(k) for k, likelihood in enumerate(likelihoods, start=wrong + 1)
    ]
    mixture = _log_sum(weighted) - math.log(math.fsum(1 / k for k in range(1, refuted + 1)))
    mode = (population + 1) * wrong // checks if checks else population
    likeliest = min(max(refuted, mode), population - checks + wrong)
    return mixture - _log_likelihood(likeliest, population, checks, wrong) >= -math.log(risk)


def _log_likelihood(all_wrong: int, population: int, checks: int, wrong: int) -> float:
    return _log_choose(population - checks, all_wrong - wrong) - _log_choose(population, all_wrong)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _log_sum(logarithms: Sequence[float]) -> float:
    largest = max(logarithms)
    if largest == -math.inf:
        return largest
    return largest + math.log(math.fsum(math.exp(one - largest) for one in logarithms))


def calibration_error(
    claims: Sequence[tuple[float, bool]], binned_by: Sequence[float] = ()
) -> float:
    """Return the expected calibration error of claims and whether they were right; 0 for none.

    Naeini et al., “Obtaining well calibrated probabilities using Bayesian binning”, 2015. The bins
    are those of the claims, unless they are `binned_by` other numbers from 0 to 1.
    """
    gaps = [0.0] * _BINS
    keys = binned_by or [confidence for confidence, _ in claims]
    for key, (confidence, is_right) in zip(keys, claims, strict=True):
        gaps[min(int(key * _BINS), _BINS - 1)] += confidence - is_right
    return sum(map(abs, gaps)) / len(claims) if claims else 0.0


class Method(StrEnum):
    """The method that fitted a curve; stored in `calibrations.method`."""

    CLAIMED = "claimed"
    PLATT = "platt"
    ISOTONIC = "isotonic"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceClaim:
    """A claimed confidence, and whether the claim was right; `group` is the document's id.

    Cross-validation keeps the claims about one document in one fold, because they are correlated.
    """

    confidence: float
    is_right: bool
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A calibration curve with its errors before and after, cross-validated in the same bins."""

    method: Method
    points: Points
    judged: int
    judged_right: int
    error_before: float
    error_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """The lowest confidence that may be accepted without review, and the share of such answers."""

    accept_from: float
    share: float


def require_scikit_learn() -> None:
    """Check that curves can be fitted.

    Raises:
        ConfigurationError: scikit-learn is not installed.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise ConfigurationError(
            "Recalibrating needs scikit-learn, which is not installed.",
            'Install it with: pip install "chordwise[learning]"',
        )


def is_enough(claims: Sequence[ConfidenceClaim]) -> bool:
    """Return whether there are enough judgments to learn from."""
    right = sum(claim.is_right for claim in claims)
    return len(claims) >= MIN_JUDGMENTS and min(right, len(claims) - right) >= MIN_JUDGMENTS_OF_EACH


def learn(claims: Sequence[ConfidenceClaim]) -> Curve:
    """Return the curve that predicts unseen judgments best, by the Brier score (1950).

    If no curve is better than the claims themselves, they stay unchanged. It needs scikit-learn
    (`require_scikit_learn`).
    """
    forecasts = {method: _cross_validated(claims, fit) for method, fit in FITS.items()}
    judgments = [claim.is_right for claim in claims]
    claimed = [claim.confidence for claim in claims]

    def brier(method: Method) -> float:
        pairs = zip(forecasts[method], judgments, strict=True)
        return sum((forecast - is_right) ** 2 for forecast, is_right in pairs)

    best = min(FITS, key=brier)
    return Curve(
        method=best,
        points=FITS[best](claims),
        judged=len(claims),
        judged_right=sum(judgments),
        error_before=calibration_error(list(zip(claimed, judgments, strict=True))),
        error_after=calibration_error(list(zip(forecasts[best], judgments, strict=True)), claimed),
    )


def calibrate(points: Points, confidence: float) -> float:
    """Return the calibrated value of a claim on a curve."""
    place = bisect_right(points, confidence, key=lambda point: point[0])
    if place == 0:
        return points[0][1]
    if place == len(points):
        return points[-1][1]
    (left, low), (right, high) = points[place - 1], points[place]
    return low + (high - low) * (confidence - left) / (right - left)


def acceptance(claims: Sequence[ConfidenceClaim], max_error_rate: float) -> Acceptance | None:
    """Return the lowest claim from which on the error rate is at most `max_error_rate`, or `None`.

    The upper end of Wilson's interval has to stay within the bound, so a few judgments are not
    sufficient. This is selective classification, after Geifman and El-Yaniv, 2017.
    """
    ranked = sorted(claims, key=lambda claim: -claim.confidence)
    best: Acceptance | None = None
    seen = errors = 0
    for confidence, alike in groupby(ranked, key=lambda claim: claim.confidence):
        judged = [claim.is_right for claim in alike]
        seen, errors = seen + len(judged), errors + judged.count(False)
        if wilson(errors, seen)[1] <= max_error_rate:
            best = Acceptance(accept_from=confidence, share=seen / len(claims))
    return best


def isotonic(claims: Sequence[ConfidenceClaim]) -> Points:
    """Return the isotonic regression of the judgments on the claims: pool adjacent violators.

    Ayer et al., “An empirical distribution function for sampling with incomplete information”,
    1955; for probabilities Zadrozny and Elkan, 2002. Claims closer than 1e-15 count as equal.
    """
    from sklearn.isotonic import IsotonicRegression  # noqa: PLC0415 - of an extra

    claimed = [claim.confidence for claim in claims]
    curve = IsotonicRegression().fit(claimed, [float(claim.is_right) for claim in claims])
    return tuple(zip(curve.X_thresholds_.tolist(), curve.y_thresholds_.tolist(), strict=True))


def platt(claims: Sequence[ConfidenceClaim]) -> Points:
    """Return the logistic curve of maximum likelihood, sampled.

    Platt, “Probabilistic outputs for support vector machines”, 1999, with smoothed targets. A
    falling curve is replaced by a constant, so that a higher confidence is never worth less.
    """
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - of an extra
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415 - of an extra
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415 - of an extra

    right = sum(claim.is_right for claim in claims)
    high, low = (right + 1) / (right + 2), 1 / (len(claims) - right + 2)
    targets = [high if claim.is_right else low for claim in claims]
    claimed = [[claim.confidence] for claim in claims]
    fit = LogisticRegression(C=math.inf, solver="newton-cg", tol=_TOLERANCE)
    curve = make_pipeline(StandardScaler(), fit)  # claims may differ by very little
    curve.fit(
        claimed * 2,
        [True] * len(claims) + [False] * len(claims),
        logisticregression__sample_weight=targets + [1 - target for target in targets],
    )
    if fit.coef_[0][0] < 0:
        level = sum(targets) / len(targets)
        return ((0.0, level), (1.0, level))
    steps = [step / _STEPS for step in range(_STEPS + 1)]
    worths = curve.predict_proba([[step] for step in steps])[:, 1]
    return tuple(zip(steps, worths.clip(_LEAST_DOUBT, 1 - _LEAST_DOUBT).tolist(), strict=True))


FITS: Mapping[Method, Callable[[Sequence[ConfidenceClaim]], Points]] = {
    Method.CLAIMED: lambda _: ((0.0, 0.0), (1.0, 1.0)),
    Method.PLATT: platt,
    Method.ISOTONIC: isotonic,
}


def _cross_validated(
    claims: Sequence[ConfidenceClaim], fit: Callable[[Sequence[ConfidenceClaim]], Points]
) -> Sequence[float]:
    """Return the value of each claim on the curve that was fitted to the other folds."""
    from sklearn.model_selection import GroupKFold  # noqa: PLC0415 - of an extra

    groups = [claim.group for claim in claims]
    calibrated = [claim.confidence for claim in claims]
    if (folds := min(_FOLDS, len(set(groups)))) > 1:
        for others, fold in GroupKFold(folds).split(groups, groups=groups):
            points = fit([claims[place] for place in others])
            for place in fold:
                calibrated[place] = calibrate(points, claims[place].confidence)
    return calibrated
