"""Comparing variants: the assignment of documents, and verdicts that are valid at any time.

The intervals are confidence sequences, so an experiment may be evaluated after each document and
ended at any time. Guardrails need only the moments of the outcomes, which a database can sum up.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from chordwise.domain.learning.statistics import (
    MeanInterval,
    Moments,
    ShareSequence,
    amount_interval,
    moments,
    share_interval,
)

CONTROL = "control"
"""The variant name of the unchanged profile."""
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


Known: TypeAlias = tuple[float, datetime]
"""An outcome, and the time when it became known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The outcomes of control and variant, in order; `pairs` are those on the same documents."""

    control: Sequence[float]
    variant: Sequence[float]
    pairs: Sequence[tuple[float, float]]


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


def evidence(control: Mapping[uuid.UUID, Known], variant: Mapping[uuid.UUID, Known]) -> Evidence:
    """Return the outcomes of both by document, ordered by the time when they became known."""
    pairs = [
        (max(control[document_id][1], known_at), document_id, control[document_id][0], value)
        for document_id, (value, known_at) in variant.items()
        if document_id in control
    ]

    def in_order(known: Mapping[uuid.UUID, Known]) -> list[float]:
        ordered = sorted(known.items(), key=lambda item: (item[1][1], item[0]))
        return [value for _, (value, _) in ordered]

    by_document = [(one, other) for *_, one, other in sorted(pairs)]
    return Evidence(control=in_order(control), variant=in_order(variant), pairs=by_document)


def difference(sample: Evidence, outcome: Outcome, risk: float, *, is_paired: bool) -> MeanInterval:
    """Return the interval of the difference, variant minus control.

    If the experiment `is_paired`, the differences on documents of both share the risk with it.
    """
    apart_risk = risk / 2 if is_paired else risk
    control = _mean(sample.control, outcome, apart_risk / 2)
    variant = _mean(sample.variant, outcome, apart_risk / 2)
    apart = MeanInterval(
        count=min(control.count, variant.count),
        mean=variant.mean - control.mean if control.count and variant.count else 0.0,
        low=variant.low - control.high,
        high=variant.high - control.low,
    )
    if not is_paired or not sample.pairs:
        return apart
    paired = _paired(sample.pairs, outcome, risk / 2)
    low, high = max(apart.low, paired.low), min(apart.high, paired.high)
    closer = min((apart, paired), key=lambda interval: interval.high - interval.low)
    return replace(closer, low=low, high=high) if low <= high else paired


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
    interval = _mean([(other - one + 1) / 2 for one, other in pairs], outcome, risk)
    mean, low, high = (2 * number - 1 for number in (interval.mean, interval.low, interval.high))
    return MeanInterval(count=interval.count, mean=mean, low=low, high=high)


def verdict(difference: MeanInterval, outcome: Outcome) -> VariantVerdict:
    """Return the verdict that an interval of the difference to the control implies."""
    if not difference.excludes_zero:
        return VariantVerdict.UNDECIDED
    is_better = (difference.low > 0) == outcome.is_share
    return VariantVerdict.BETTER if is_better else VariantVerdict.WORSE


def remaining_documents(
    sample: Evidence, outcome: Outcome, risk: float, *, is_paired: bool
) -> int | None:
    """Return about how many documents of the variant lead to a decision; None if too many."""
    count = len(sample.variant)
    limit = min(_MAX_TIMES, _MAX_REPEATED // max(1, len(sample.control) + count))

    def decides(times: int) -> bool:
        control, variant = [*sample.control] * times, [*sample.variant] * times
        repeated = Evidence(control=control, variant=variant, pairs=[*sample.pairs] * times)
        return difference(repeated, outcome, risk, is_paired=is_paired).excludes_zero

    if not sample.control or not count or limit < 1 or not decides(limit):
        return None
    return bisect_left(range(1, limit), True, key=decides) * count


def exceeds(
    sums: GuardrailOutcomes, outcome: Outcome, bound: float, risk: float, *, is_paired: bool
) -> bool:
    """Return whether the data proves the variant worse than the control by more than a bound.

    For a share the bound is a difference, for an amount a fraction: 0.5 allows 50 % more.
    """
    apart_risk = risk / 4 if is_paired else risk / 2
    if outcome.is_share:
        pairs = [(sums.variant, sums.control)] + [(sums.gains, sums.losses)] * is_paired
        highest = (
            share_interval(more, apart_risk).high - share_interval(less, apart_risk).low
            for more, less in pairs
        )
        return min(highest) < -bound
    control, factor = sums.control, 1 + bound
    allowed = replace(control, mean=control.mean * factor, variance=control.variance * factor**2)
    low = amount_interval(sums.variant, apart_risk).low - amount_interval(allowed, apart_risk).high
    if is_paired:
        low = max(low, amount_interval(sums.gains, risk / 2).low)
    return low > 0
