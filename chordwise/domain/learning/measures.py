"""Metrics of answers with their intervals; docs/evaluation.md has the formulas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from random import Random
from typing import TypeVar

from chordwise.domain import json_values, words
from chordwise.domain.analysis import mean
from chordwise.domain.json_values import JsonObject
from chordwise.domain.learning.fields import normalized
from chordwise.domain.learning.judgments import Choice, FieldScore, Judgment
from chordwise.domain.learning.statistics import bootstrap, wilson

Item = TypeVar("Item")
_BINS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A metric over `count` cases; `low` and `high` are its 95 % interval, if it has one.

    In a confusion matrix, `label` is the right label, and `found` is the chosen one.
    """

    metric: str
    value: float
    count: int
    label: str = ""
    found: str = ""
    low: float | None = None
    high: float | None = None


def measure_choices(choices: Sequence[Choice], random: Random) -> Iterator[Measure]:
    """Measure the chosen labels: all together, per label, and the confusion matrix."""
    if not choices:
        return
    choices = _spelled_alike(choices)
    right = [choice for choice in choices if choice.expected == choice.chosen]
    yield share("accuracy", len(right), len(choices))
    yield _averaged("macro_f1", choices, _macro_f1, random)
    sure = [choice for choice in choices if not choice.is_abstaining]
    yield share("abstained", len(choices) - len(sure), len(choices))
    if len(sure) not in {0, len(choices)}:
        yield share("accuracy_when_sure", sum(c.expected == c.chosen for c in sure), len(sure))
    for label in sorted({c.chosen for c in choices} | {c.expected for c in choices if c.expected}):
        yield from _of_label(label, choices)
    pairs = Counter((choice.expected or "", choice.chosen) for choice in choices)
    for (expected, chosen), times in sorted(pairs.items()):
        yield Measure(
            metric="confusion", label=expected, found=chosen, value=times, count=len(choices)
        )


def measure_fields(scores: Sequence[FieldScore], random: Random) -> Iterator[Measure]:
    """Measure the values of fields: all together, and per field over the documents."""
    if not scores:
        return
    yield from _of_scores("", scores, random)
    by_name: dict[str, list[FieldScore]] = {}
    for score in scores:
        by_name.setdefault(score.name, []).append(score)
    if len(by_name) > 1:
        for name, field_scores in by_name.items():
            yield from _of_scores(name, field_scores, random)


def measure_means(values: Mapping[str, Sequence[float]], random: Random) -> Iterator[Measure]:
    """Measure means by metric; `values` has one number per document."""
    for metric, numbers in values.items():
        if numbers:
            yield _averaged(metric, numbers, mean, random)


def measure_confidence(judgments: Iterable[Judgment], label: str = "") -> Iterator[Measure]:
    """Measure the calibration error of the claimed confidences."""
    claims = [(j.confidence, j.is_right) for j in judgments if j.confidence is not None]
    if claims:
        yield Measure(
            metric="calibration_error",
            label=label,
            value=calibration_error(claims),
            count=len(claims),
        )


def share(metric: str, part: int, total: int, label: str = "") -> Measure:
    """Return a share with its interval."""
    low, high = wilson(part, total)
    value = part / total if total else 0.0
    return Measure(metric=metric, label=label, value=value, count=total, low=low, high=high)


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


def _spelled_alike(choices: Sequence[Choice]) -> list[Choice]:
    spelled: dict[str, str] = {}
    for label in (*(c.chosen for c in choices), *(c.expected or "" for c in choices)):
        spelled.setdefault(normalized(label), label)
    return [
        replace(
            choice,
            chosen=spelled[normalized(choice.chosen)],
            expected=None if choice.expected is None else spelled[normalized(choice.expected)],
        )
        for choice in choices
    ]


def _of_label(label: str, choices: Sequence[Choice]) -> Iterator[Measure]:
    shared = sum(c.expected == c.chosen == label for c in choices)
    chosen = sum(c.chosen == label for c in choices)
    expected = sum(c.expected == label for c in choices)
    yield from _precision_recall(label, shared, chosen, expected)
    yield Measure(metric="f1", label=label, value=_f1(shared, chosen, expected), count=expected)


def _precision_recall(label: str, shared: int, predicted: int, expected: int) -> Iterator[Measure]:
    if predicted:
        yield share("precision", shared, predicted, label)
    if expected:
        yield share("recall", shared, expected, label)


def _macro_f1(choices: Sequence[Choice]) -> float:
    """Return the mean over all right or chosen labels of 2·shared / (chosen + right)."""
    shared = Counter(c.chosen for c in choices if c.expected == c.chosen)
    sums = Counter(c.chosen for c in choices)
    sums.update(c.expected for c in choices if c.expected)
    return mean([2 * shared[label] / total for label, total in sums.items()])


def _of_scores(name: str, scores: Sequence[FieldScore], random: Random) -> Iterator[Measure]:
    yield share("match", sum(score.is_right for score in scores), len(scores), name)
    yield share("exact_match", sum(score.is_exact for score in scores), len(scores), name)
    shared = sum(score.shared for score in scores)
    predicted = shared + sum(score.only_found for score in scores)
    expected = shared + sum(score.only_expected for score in scores)
    yield from _precision_recall(name, shared, predicted, expected)
    if rows := sum(score.rows for score in scores):
        yield share("row_recall", sum(score.rows_found for score in scores), rows, name)
    if pages := sum(score.pages for score in scores):
        yield share("page_accuracy", sum(score.pages_found for score in scores), pages, name)
    if predicted + expected:
        numbers = [(s.shared, s.only_found + s.only_expected) for s in scores]
        low, high = bootstrap(numbers, _micro_f1, random)
        value = _f1(shared, predicted, expected)
        yield Measure(metric="f1", label=name, value=value, count=expected, low=low, high=high)


def _micro_f1(numbers: Sequence[tuple[int, int]]) -> float:
    """Return F1 from pairs of the numbers of shared values and of values on one side only."""
    shared, others = sum(map(itemgetter(0), numbers)), sum(map(itemgetter(1), numbers))
    return 2 * shared / (2 * shared + others) if shared + others else 1.0


def _averaged(
    metric: str, items: Sequence[Item], measured: Callable[[Sequence[Item]], float], random: Random
) -> Measure:
    low, high = bootstrap(items, measured, random)
    return Measure(metric=metric, value=measured(items), count=len(items), low=low, high=high)


_MAX_WORDS = 2_000
"""The words of a text that are compared: the common subsequence takes quadratic time."""


def summary_text(output: JsonObject) -> str:
    """Return the prose of a summary as one text."""
    findings = json_values.objects(output.get("key_findings"))
    parts = [
        json_values.text(output.get("main_topic")),
        *(json_values.text(finding.get("finding")) for finding in findings),
        *json_values.strings(output.get("conclusions")),
    ]
    return " ".join(part for part in parts if part)


def rouge_1(text: str, reference: str) -> float:
    """Return the unigram F1 of two texts, counting duplicates."""
    candidate, expected = _words(text), _words(reference)
    return _f1((Counter(candidate) & Counter(expected)).total(), len(candidate), len(expected))


def rouge_l(text: str, reference: str) -> float:
    """Return the F1 of the longest common subsequence of words."""
    candidate, expected = _words(text), _words(reference)
    return _f1(_longest_common(candidate, expected), len(candidate), len(expected))


def _words(text: str) -> list[str]:
    tokens = words.words(text)
    split = [list(word) if words.is_unspaced(word) else [word] for word in tokens]
    return [part for parts in split for part in parts][:_MAX_WORDS]


def _longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    row = [0] * (len(other) + 1)
    for word in one:
        diagonal = 0
        for index, candidate in enumerate(other, start=1):
            above = row[index]
            row[index] = diagonal + 1 if word == candidate else max(above, row[index - 1])
            diagonal = above
    return row[-1]


def _f1(shared: int, predicted: int, expected: int) -> float:
    return 2 * shared / (predicted + expected) if predicted + expected else 0.0
