"""Metrics of answers with their intervals; docs/evaluation.md has the formulas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from random import Random
from typing import TypeVar

from rapidfuzz.distance import LCSseq

from chordwise.domain import json_values, words
from chordwise.domain.analysis import mean
from chordwise.domain.json_values import JsonObject
from chordwise.domain.learning.fields import normalized
from chordwise.domain.learning.judgments import Choice, FieldScore, Judgment
from chordwise.domain.learning.statistics import bootstrap, calibration_error, wilson

Item = TypeVar("Item")


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
    for label in sorted({label for c in choices for label in (c.chosen, c.expected) if label}):
        shared = sum(c.expected == c.chosen == label for c in choices)
        chosen = sum(c.chosen == label for c in choices)
        expected = sum(c.expected == label for c in choices)
        yield from _precision_recall(label, shared, chosen, expected)
        yield Measure(metric="f1", label=label, value=_f1(shared, chosen, expected), count=expected)
    pairs = Counter((choice.expected or "", choice.chosen) for choice in choices)
    for (right_label, chosen_label), times in sorted(pairs.items()):
        cell = Measure(metric="confusion", label=right_label, value=times, count=len(choices))
        yield replace(cell, found=chosen_label)


def measure_fields(scores: Sequence[FieldScore], random: Random) -> Iterator[Measure]:
    """Measure the values of fields: all together, and per field over the documents."""
    if not scores:
        return
    yield from _of_scores("", scores, random)
    by_name: dict[str, list[FieldScore]] = {}
    for score in scores:
        by_name.setdefault(score.name, []).append(score)
    for name, field_scores in by_name.items() if len(by_name) > 1 else ():
        yield from _of_scores(name, field_scores, random)
    yield from _of_leaves(scores)


def measure_means(values: Mapping[str, Sequence[float]], random: Random) -> Iterator[Measure]:
    """Measure means by metric; `values` has one number per document."""
    for metric, numbers in values.items():
        if numbers:
            yield _averaged(metric, numbers, mean, random)


def measure_confidence(judgments: Iterable[Judgment], label: str = "") -> Iterator[Measure]:
    """Measure the calibration error of the claimed confidences."""
    claims = [(j.confidence, j.is_right) for j in judgments if j.confidence is not None]
    if claims:
        error = calibration_error(claims)
        yield Measure(metric="calibration_error", label=label, value=error, count=len(claims))


def share(metric: str, part: int, total: int, label: str = "") -> Measure:
    """Return a share with its interval."""
    low, high = wilson(part, total)
    value = part / total if total else 0.0
    return Measure(metric=metric, label=label, value=value, count=total, low=low, high=high)


def _spelled_alike(choices: Sequence[Choice]) -> list[Choice]:
    spelled: dict[str, str] = {}
    for label in (*(c.chosen for c in choices), *(c.expected or "" for c in choices)):
        spelled.setdefault(normalized(label), label)
    pairs = ((choice, spelled[normalized(choice.chosen)]) for choice in choices)
    return [
        replace(
            choice,
            chosen=chosen,
            expected=None if choice.expected is None else spelled[normalized(choice.expected)],
        )
        for choice, chosen in pairs
    ]


def _precision_recall(label: str, shared: int, predicted: int, expected: int) -> Iterator[Measure]:
    if predicted:
        yield share("precision", shared, predicted, label)
    if expected:
        yield share("recall", shared, expected, label)


def _macro_f1(choices: Sequence[Choice]) -> float:
    """Return the mean over all right or chosen labels of 2·shared / (chosen + right)."""
    shared = Counter(c.chosen for c in choices if c.expected == c.chosen)
    sums = Counter(c.chosen for c in choices if c.chosen)
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


def _of_leaves(scores: Sequence[FieldScore]) -> Iterator[Measure]:
    """Measure the single values of nested data: all together, and per path."""
    leaves = [leaf for score in scores for leaf in score.leaves]
    if all(leaf.path.count("/") == 1 for leaf in leaves):
        return
    by_path = {"": leaves}
    for leaf in leaves:
        by_path.setdefault(leaf.path, []).append(leaf)
    for path, of_path in by_path.items():
        shared = sum(leaf.similarity for leaf in of_path)
        expected = sum(leaf.is_expected for leaf in of_path)
        value = 2 * shared / (expected + sum(leaf.is_found for leaf in of_path))
        yield Measure(metric="leaf_f1", label=path, value=value, count=expected)


def _micro_f1(numbers: Sequence[tuple[int, int]]) -> float:
    """Return F1 from pairs of the numbers of shared values and of values on one side only."""
    shared, others = map(sum, zip(*numbers, strict=True))
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
    stated = (json_values.text(finding.get("finding")) for finding in findings)
    conclusions = json_values.strings(output.get("conclusions"))
    parts = (json_values.text(output.get("main_topic")), *stated, *conclusions)
    return " ".join(filter(None, parts))


def rouge_1(text: str, reference: str) -> float:
    """Return the unigram F1 of two texts, counting duplicates."""
    candidate, expected = _words(text), _words(reference)
    return _f1((Counter(candidate) & Counter(expected)).total(), len(candidate), len(expected))


def rouge_l(text: str, reference: str) -> float:
    """Return the F1 of the longest common subsequence of words."""
    candidate, expected = _words(text), _words(reference)
    return _f1(LCSseq.similarity(candidate, expected), len(candidate), len(expected))


def _words(text: str) -> list[str]:
    parts = (word if words.is_unspaced(word) else (word,) for word in words.words(text))
    return list(islice(chain.from_iterable(parts), _MAX_WORDS))


def _f1(shared: int, predicted: int, expected: int) -> float:
    return 2 * shared / (predicted + expected) if predicted + expected else 0.0
