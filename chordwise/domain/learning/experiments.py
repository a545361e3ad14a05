"""Comparing variants: assignment of documents, and intervals that are valid at any time.

The interval of a mean is a confidence sequence: with a probability of at least 1 - `risk` it
contains the mean at all times simultaneously, so an experiment may be evaluated after each document
and ended at any time. For shares it is the predictable plug-in empirical-Bernstein sequence
(Waudby-Smith and Ramdas, “Estimating means of bounded random variables by betting”, JRSS B 2024,
theorem 2), which holds for any number of documents. Amounts such as costs are unbounded; theirs is
the asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, “Time-uniform
central limit theory and asymptotic confidence sequences”, Annals of Statistics 2024, theorem 2.2),
which holds approximately from some number of documents on.

Guardrails need only the moments of the outcomes, which a database can sum up. Their interval of a
share inverts the mixture of all likelihood ratios of a coin, which is also a test supermartingale
for numbers between 0 and 1 (the beta-binomial mixture of Howard, Ramdas, McAuliffe and Sekhon,
“Time-uniform, nonparametric, nonasymptotic confidence sequences”, Annals of Statistics 2021).
"""

from __future__ import annotations

import hashlib
import math
import uuid
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from statistics import fmean

CONTROL = "control"
"""The variant name of the unchanged profile."""
MIN_AMOUNTS = 30
"""The number of amounts from which on their asymptotic interval is accurate enough."""
_MAX_BET = 0.5
_SHARPEST_AT = 100
"""The number of amounts for which the width of their interval is optimized."""
_BISECTIONS = 40
_MAX_TIMES = 64
_MAX_REPEATED = 100_000


class Outcome(StrEnum):
    """The outcome by which variants are compared; stored in `experiments.outcome`."""

    RIGHT = "right"
    VALID = "valid"
    GROUNDED = "grounded"
    QUALITY = "quality"
    COST = "cost"
    LATENCY = "latency"

    @property
    def is_share(self) -> bool:
        """Whether it is a share from 0 to 1 (more is better) and not an amount (less is better)."""
        return self not in {Outcome.COST, Outcome.LATENCY}


class VariantVerdict(StrEnum):
    """What the data shows about a variant compared with the control."""

    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The outcome of one document; `known_at` is the time when it became known."""

    document_id: uuid.UUID
    value: float
    known_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The outcomes of control and variant, in order; `pairs` are those on the same documents."""

    control: Sequence[float]
    variant: Sequence[float]
    pairs: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """The count, mean and variance of some numbers."""

    count: int = 0
    mean: float = 0.0
    variance: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardrailOutcomes:
    """The outcomes of control and variant, summarized for a guardrail.

    For a share, `gains` and `losses` of the variant are those on documents that both have answered.
    For an amount, `gains` is the variant's excess over what the bound allows.
    """

    control: Moments
    variant: Moments
    gains: Moments
    losses: Moments


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """The variant whose answer becomes the document's result; if `is_paired`, all are asked."""

    variant: str
    is_paired: bool


def assign(
    experiment: str, text: str, variants: Sequence[str], share: float, paired: float
) -> Assignment:
    """Return which variant answers a text; all of them answer the share `paired`.

    The control's answer is the result of a paired text. Of the rest each variant gets `share`, and
    the control the remainder. The assignment depends only on the experiment and the text.
    """
    digest = hashlib.sha256(f"{experiment}\n{text}".encode()).digest()
    if int.from_bytes(digest[:8]) < paired * 2**64:
        return Assignment(variant=CONTROL, is_paired=True)
    place = int.from_bytes(digest[8:16]) / 2**64
    chosen = math.floor(place / share) if share else len(variants)
    variant = variants[chosen] if chosen < len(variants) else CONTROL
    return Assignment(variant=variant, is_paired=False)


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


def amount_interval(found: Moments, risk: float) -> MeanInterval:
    """Return the interval of a mean of unbounded numbers; infinite below `MIN_AMOUNTS` numbers."""
    count, mean = found.count, found.mean
    if count < MIN_AMOUNTS:
        return MeanInterval(count=count, mean=mean, low=-math.inf, high=math.inf)
    log = -2 * math.log(risk)
    rho2 = (log + math.log(log + 1)) / _SHARPEST_AT
    scaled = count * rho2 + 1
    margin = math.sqrt(2 * scaled * math.log(math.sqrt(scaled) / risk) / (count**2 * rho2))
    reach = margin * math.sqrt(found.variance)
    return MeanInterval(count=count, mean=mean, low=mean - reach, high=mean + reach)


def share_interval(found: Moments, risk: float) -> MeanInterval:
    """Return the interval of a mean of numbers from 0 to 1, computed from their count and mean."""
    ones = found.count * found.mean
    noughts = max(0.0, found.count - ones)
    low, high = _min_rate(ones, noughts, risk), 1 - _min_rate(noughts, ones, risk)
    return MeanInterval(count=found.count, mean=found.mean, low=low, high=high)


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


def evidence(control: Sequence[Observation], variant: Sequence[Observation]) -> Evidence:
    """Return the outcomes of both, ordered by the time when they became known."""
    of_control = {each.document_id: each for each in control}
    pairs = [
        (max(known.known_at, each.known_at), each.document_id, known.value, each.value)
        for each in variant
        if (known := of_control.get(each.document_id)) is not None
    ]
    return Evidence(
        control=_in_order(control),
        variant=_in_order(variant),
        pairs=[(one, other) for _, _, one, other in sorted(pairs)],
    )


def _in_order(observations: Sequence[Observation]) -> list[float]:
    ordered = sorted(observations, key=lambda each: (each.known_at, each.document_id))
    return [each.value for each in ordered]


def difference(found: Evidence, outcome: Outcome, risk: float, *, is_paired: bool) -> MeanInterval:
    """Return the interval of the difference, variant minus control.

    If the experiment `is_paired`, the differences on documents of both share the risk with it.
    """
    apart_risk = risk / 2 if is_paired else risk
    control = _mean(found.control, outcome, apart_risk / 2)
    variant = _mean(found.variant, outcome, apart_risk / 2)
    apart = MeanInterval(
        count=min(control.count, variant.count),
        mean=variant.mean - control.mean if control.count and variant.count else 0.0,
        low=variant.low - control.high,
        high=variant.high - control.low,
    )
    if not is_paired or not found.pairs:
        return apart
    paired = _paired(found.pairs, outcome, risk / 2)
    low, high = max(apart.low, paired.low), min(apart.high, paired.high)
    closer = min((apart, paired), key=lambda each: each.high - each.low)
    return replace(closer, low=low, high=high) if low <= high else paired


def moments(values: Sequence[float]) -> Moments:
    """Return the moments of some numbers, which may be none."""
    if not values:
        return Moments()
    mean = fmean(values)
    variance = fmean((value - mean) ** 2 for value in values)
    return Moments(count=len(values), mean=mean, variance=variance)


def _mean(values: Sequence[float], outcome: Outcome, risk: float) -> MeanInterval:
    if not outcome.is_share:
        return amount_interval(moments(values), risk)
    sequence = ShareSequence(risk)
    for value in values:
        sequence.add(value)
    return sequence.interval()


def _paired(pairs: Sequence[tuple[float, float]], outcome: Outcome, risk: float) -> MeanInterval:
    if not outcome.is_share:
        return _mean([other - one for one, other in pairs], outcome, risk)
    found = _mean([(other - one + 1) / 2 for one, other in pairs], outcome, risk)
    mean, low, high = (2 * each - 1 for each in (found.mean, found.low, found.high))
    return MeanInterval(count=found.count, mean=mean, low=low, high=high)


def verdict(difference: MeanInterval, outcome: Outcome) -> VariantVerdict:
    """Return the verdict that an interval of the difference to the control implies."""
    if not difference.excludes_zero:
        return VariantVerdict.UNDECIDED
    return (
        VariantVerdict.BETTER if (difference.low > 0) == outcome.is_share else VariantVerdict.WORSE
    )


def remaining_documents(
    found: Evidence, outcome: Outcome, risk: float, *, is_paired: bool
) -> int | None:
    """Return about how many documents of the variant lead to a decision; None if too many."""
    count = len(found.variant)
    limit = min(_MAX_TIMES, _MAX_REPEATED // max(1, len(found.control) + count))

    def decides(times: int) -> bool:
        repeated = Evidence(
            control=[*found.control] * times,
            variant=[*found.variant] * times,
            pairs=[*found.pairs] * times,
        )
        return difference(repeated, outcome, risk, is_paired=is_paired).excludes_zero

    if not found.control or not count or limit < 1 or not decides(limit):
        return None
    return bisect_left(range(1, limit), True, key=decides) * count


def exceeds(
    found: GuardrailOutcomes, outcome: Outcome, bound: float, risk: float, *, is_paired: bool
) -> bool:
    """Return whether the data proves the variant worse than the control by more than a bound.

    For a share the bound is a difference, for an amount a fraction: 0.5 allows 50 % more.
    """
    apart_risk = risk / 4 if is_paired else risk / 2
    if outcome.is_share:
        high = (
            share_interval(found.variant, apart_risk).high
            - share_interval(found.control, apart_risk).low
        )
        if is_paired:
            paired = (
                share_interval(found.gains, risk / 4).high
                - share_interval(found.losses, risk / 4).low
            )
            high = min(high, paired)
        return high < -bound
    control, factor = found.control, 1 + bound
    allowed = replace(control, mean=control.mean * factor, variance=control.variance * factor**2)
    low = amount_interval(found.variant, apart_risk).low - amount_interval(allowed, apart_risk).high
    if is_paired:
        low = max(low, amount_interval(found.gains, risk / 2).low)
    return low > 0
