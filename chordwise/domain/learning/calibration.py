"""Calibration: the empirical accuracy of claimed confidences, learned from judgments.

A curve is piecewise linear between its points (claim, worth) and constant beyond them, so that SQL
can evaluate it as well. Cross-validation selects the curve, or none. scikit-learn, which belongs to
the extra `learning`, fits the curves; it is imported when a curve is fitted.
"""

from __future__ import annotations

import importlib.util
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import TypeAlias

from chordwise.domain.learning.measures import calibration_error
from chordwise.domain.learning.statistics import wilson
from chordwise.errors import ConfigurationError

MIN_JUDGMENTS = 30
"""The number of judgments that a calibration needs."""
MIN_JUDGMENTS_OF_EACH = 5
"""The number of right and of wrong judgments that a calibration needs, each."""
_FOLDS = 5
_LEAST_DOUBT = 1e-12
_STEPS = 20
_TOLERANCE = 1e-8

Points: TypeAlias = tuple[tuple[float, float], ...]


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


def require() -> None:
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

    If no curve is better than the claims themselves, they stay unchanged. Call `require` first.
    """
    forecasts = {method: _cross_validated(claims, fit) for method, fit in FITS.items()}
    best = min(FITS, key=lambda method: _brier(claims, forecasts[method]))
    judgments = [claim.is_right for claim in claims]
    claimed = [claim.confidence for claim in claims]
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


def as_claimed(claims: Sequence[ConfidenceClaim]) -> Points:  # noqa: ARG001 - one of the ways to fit
    """Return the identity, which leaves claims unchanged."""
    return ((0.0, 0.0), (1.0, 1.0))


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
    Method.CLAIMED: as_claimed,
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


def _brier(claims: Sequence[ConfidenceClaim], forecasts: Sequence[float]) -> float:
    pairs = zip(claims, forecasts, strict=True)
    return sum((forecast - claim.is_right) ** 2 for claim, forecast in pairs) / len(claims)
