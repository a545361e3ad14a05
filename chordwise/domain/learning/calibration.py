"""What a claimed confidence is worth, learnt from judgments of what was claimed.

The curve is made of points, claim and worth, straight in between and level beyond them, so that SQL
can follow it as well. Which curve, or none at all, is decided by cross-validation.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import TypeAlias

from chordwise.domain.learning.measures import calibration_error, wilson

FEWEST = 30
"""How many judgments a calibration needs."""
FEWEST_OF_EACH = 5
"""How many of them have to be right, and how many wrong."""
_FOLDS = 5
_LEAST_DOUBT = 1e-12
_STEPS = 20
_ITERATIONS = 100
_RIDGE = 1e-9
_NEAR_ENOUGH = 1e-6

Points: TypeAlias = tuple[tuple[float, float], ...]


class Method(StrEnum):
    """How a curve was made; the values stand in `calibrations.method`."""

    CLAIMED = "claimed"
    PLATT = "platt"
    ISOTONIC = "isotonic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A confidence that was claimed, and whether that held; `group` is the document's id.

    Claims about one document are never apart in cross-validation, for they are alike.
    """

    confidence: float
    is_right: bool
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What claims are worth, and the calibration error before and after, by cross-validation.

    Both errors are over the same bins, those of the claims.
    """

    method: Method
    points: Points
    judged: int
    judged_right: int
    error_before: float
    error_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """From which claim on answers may be accepted unseen, and the share of answers that is."""

    accept_from: float
    share: float


def is_enough(claims: Sequence[Claim]) -> bool:
    """Tell whether there are enough judgments to learn from."""
    right = sum(claim.is_right for claim in claims)
    return len(claims) >= FEWEST and min(right, len(claims) - right) >= FEWEST_OF_EACH


def learn(claims: Sequence[Claim]) -> Curve:
    """Return the curve that foresees judgments best that it has not seen; by the Brier score.

    Brier, “Verification of forecasts expressed in terms of probability”, 1950. What cannot do
    better than the claims themselves leaves them as they are.
    """
    foreseen = {method: _foreseen(claims, fit) for method, fit in FITS.items()}
    best = min(FITS, key=lambda method: _brier(foreseen[method]))
    held = [(each.worth, each.claim.is_right) for each in foreseen[best]]
    claimed = [each.claim.confidence for each in foreseen[best]]
    return Curve(
        method=best,
        points=FITS[best](claims),
        judged=len(claims),
        judged_right=sum(claim.is_right for claim in claims),
        error_before=calibration_error([(c.confidence, c.is_right) for c in claims]),
        error_after=calibration_error(held, claimed),
    )


def worth(points: Points, confidence: float) -> float:
    """Return what a claim is worth on a curve."""
    place = bisect_right(points, confidence, key=lambda point: point[0])
    if place == 0:
        return points[0][1]
    if place == len(points):
        return points[-1][1]
    (left, low), (right, high) = points[place - 1], points[place]
    return low + (high - low) * (confidence - left) / (right - left)


def acceptance(claims: Sequence[Claim], max_error_rate: float) -> Acceptance | None:
    """Return the lowest claim from which on errors are at most that share, `None` if there is none.

    The upper end of Wilson's interval has to keep the bound, so that few judgments promise little:
    selective classification, after Geifman and El-Yaniv, 2017.
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


def as_claimed(claims: Sequence[Claim]) -> Points:  # noqa: ARG001 - one of the ways to fit
    """Leave claims as they are."""
    return ((0.0, 0.0), (1.0, 1.0))


def isotonic(claims: Sequence[Claim]) -> Points:
    """Return the rising curve that is closest to the judgments: pool adjacent violators.

    Ayer et al., “An empirical distribution function for sampling with incomplete information”,
    1955; for probabilities Zadrozny and Elkan, 2002.
    """
    blocks: list[_Block] = []
    ranked = sorted(claims, key=lambda claim: claim.confidence)
    for confidence, alike in groupby(ranked, key=lambda claim: claim.confidence):
        judged = [claim.is_right for claim in alike]
        block = _Block(confidence, confidence, sum(judged), len(judged))
        while blocks and blocks[-1].worth >= block.worth:
            block = blocks.pop().joined(block)
        blocks.append(block)
    return tuple(point for block in blocks for point in block.points)


def platt(claims: Sequence[Claim]) -> Points:
    """Return the logistic curve of the greatest likelihood, sampled.

    Platt, “Probabilistic outputs for support vector machines”, 1999, with the targets that it
    smooths; by Newton's method. A falling curve is made level: more confidence is never worth less.
    """
    right = sum(claim.is_right for claim in claims)
    high, low = (right + 1) / (right + 2), 1 / (len(claims) - right + 2)
    targets = [(claim.confidence, high if claim.is_right else low) for claim in claims]
    slope, offset = _logistic(targets)
    if slope < 0:
        level = sum(target for _, target in targets) / len(targets)
        return ((0.0, level), (1.0, level))
    steps = [step / _STEPS for step in range(_STEPS + 1)]
    return tuple((step, _sigmoid(slope * step + offset)) for step in steps)


FITS: Mapping[Method, Callable[[Sequence[Claim]], Points]] = {
    Method.CLAIMED: as_claimed,
    Method.PLATT: platt,
    Method.ISOTONIC: isotonic,
}


@dataclass(frozen=True, slots=True)
class _Block:
    """Claims from `first` to `last` that are worth the same."""

    first: float
    last: float
    right: int
    total: int

    @property
    def worth(self) -> float:
        return self.right / self.total

    @property
    def points(self) -> Points:
        ends = (self.first,) if self.first == self.last else (self.first, self.last)
        return tuple((end, self.worth) for end in ends)

    def joined(self, after: _Block) -> _Block:
        return _Block(self.first, after.last, self.right + after.right, self.total + after.total)


@dataclass(frozen=True, slots=True)
class _Foreseen:
    """What a claim is worth on the curve of others."""

    claim: Claim
    worth: float


def _foreseen(claims: Sequence[Claim], fit: Callable[[Sequence[Claim]], Points]) -> list[_Foreseen]:
    """Return what each claim is worth on the curve of the other documents' claims."""
    order = {group: place for place, group in enumerate(sorted({c.group for c in claims}))}
    found: list[_Foreseen] = []
    for fold in range(_FOLDS):
        others = [claim for claim in claims if order[claim.group] % _FOLDS != fold]
        own = [claim for claim in claims if order[claim.group] % _FOLDS == fold]
        points = fit(others) if others else as_claimed(own)
        found += [_Foreseen(claim, worth(points, claim.confidence)) for claim in own]
    return found


def _brier(forecasts: Sequence[_Foreseen]) -> float:
    return sum((each.worth - each.claim.is_right) ** 2 for each in forecasts) / len(forecasts)


def _sigmoid(value: float) -> float:
    """Return the logistic function; rounding makes no certainty of it, 0 or 1."""
    return min(max(0.5 * (1 + math.tanh(value / 2)), _LEAST_DOUBT), 1 - _LEAST_DOUBT)


def _logistic(targets: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return slope and offset; the ridge keeps them finite where claims hardly differ."""
    mean = sum(target for _, target in targets) / len(targets)
    slope, offset = 0.0, math.log(mean / (1 - mean))
    for _ in range(_ITERATIONS):
        steps = _newton_step(targets, slope, offset)
        if max(map(abs, steps)) < _NEAR_ENOUGH:
            break
        scale = _downhill(targets, (slope, offset), steps)
        slope, offset = slope - scale * steps[0], offset - scale * steps[1]
    return slope, offset


def _downhill(
    targets: Sequence[tuple[float, float]], start: tuple[float, float], steps: tuple[float, float]
) -> float:
    """Return how much of a step leads downhill: all of it, a half, a quarter, …."""
    # Close to the end the loss changes by less than its own rounding.
    before, scale = _loss(targets, *start) + _RIDGE, 1.0
    while scale > _NEAR_ENOUGH:
        if _loss(targets, start[0] - scale * steps[0], start[1] - scale * steps[1]) <= before:
            return scale
        scale /= 2
    return 0.0


def _loss(targets: Sequence[tuple[float, float]], slope: float, offset: float) -> float:
    """Return the cross entropy, written so that it does not overflow."""
    values = ((slope * confidence + offset, target) for confidence, target in targets)
    return sum(
        max(value, 0) - value * target + math.log1p(math.exp(-abs(value)))
        for value, target in values
    )


def _newton_step(
    targets: Sequence[tuple[float, float]], slope: float, offset: float
) -> tuple[float, float]:
    gradient = [0.0, 0.0]
    squares, mixed, ones = _RIDGE, 0.0, _RIDGE
    for confidence, target in targets:
        expected = _sigmoid(slope * confidence + offset)
        weight = expected * (1 - expected)
        gradient[0] += (expected - target) * confidence
        gradient[1] += expected - target
        squares += weight * confidence * confidence
        mixed += weight * confidence
        ones += weight
    determinant = squares * ones - mixed * mixed
    return (
        (ones * gradient[0] - mixed * gradient[1]) / determinant,
        (squares * gradient[1] - mixed * gradient[0]) / determinant,
    )
