"""Tests of an evaluation: its measures, the limits of its files, and stratified samples."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.domain.json_values import JsonObject
from chordwise.domain.learning import measures
from chordwise.domain.learning.judgments import Choice, FieldScore
from chordwise.domain.learning.measures import (
    Measure,
    calibration_error,
    rouge_1,
    rouge_l,
    summary_text,
)
from chordwise.domain.learning.statistics import bootstrap, wilson
from chordwise.errors import UsageError
from chordwise.pipeline.learning import feedback, gold
from chordwise.pipeline.learning.refresh import allot

LABELS = st.sampled_from(["a", "b", "c"])
CHOICES = st.lists(
    st.builds(
        Choice, expected=st.one_of(st.none(), LABELS), chosen=LABELS, is_abstaining=st.booleans()
    ),
    min_size=1,
    max_size=30,
)


def seeded(seed: int = 1) -> Random:
    return Random(seed)  # noqa: S311 - statistics, not secrets


def choices(*pairs: tuple[str | None, str]) -> list[Choice]:
    return [
        Choice(expected=expected, chosen=chosen, is_abstaining=False) for expected, chosen in pairs
    ]


def measured(answers: Sequence[Choice]) -> dict[tuple[str, str, str], Measure]:
    return {(m.metric, m.label, m.found): m for m in measures.measure_choices(answers, seeded(1))}


def score(
    name: str, shared: int, only_found: int, only_expected: int, *, exact: bool = False
) -> FieldScore:
    return FieldScore(
        name=name, shared=shared, only_found=only_found, only_expected=only_expected, is_exact=exact
    )


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [
        # Newcombe, “Two-sided confidence intervals for the single proportion”, 1998, table I.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_the_wilson_interval_matches_published_values(
    successes: int, total: int, low: float, high: float
) -> None:
    assert wilson(successes, total) == pytest.approx((low, high), abs=6e-5)


@given(st.integers(0, 400), st.integers(0, 400))
def test_an_interval_contains_its_share(right: int, wrong: int) -> None:
    """It is within 0 and 1, and exactly that without observations."""
    low, high = wilson(right, right + wrong)

    assert 0 <= low <= high <= 1
    if right + wrong:
        assert low <= right / (right + wrong) <= high
    else:
        assert (low, high) == (0, 1)


def test_a_bootstrap_is_reproducible_and_shrinks_with_the_sample() -> None:
    few, many = [0.0, 1.0] * 20, [0.0, 1.0] * 500

    first, again = (bootstrap(few, lambda v: sum(v) / len(v), seeded(3)) for _ in range(2))
    narrow = bootstrap(many, lambda v: sum(v) / len(v), seeded(3))

    assert first == again
    assert first == pytest.approx((0.345, 0.655), abs=0.03)
    assert narrow == pytest.approx((0.469, 0.531), abs=0.01)
    assert bootstrap(few[:9], sum, seeded()) == (None, None)


def test_measures_of_labels_computed_by_hand() -> None:
    """Precision and recall are 2 of 3 for a, 1 of 2 for b, and 1 for c; white space is ignored."""
    results = measured(
        choices(("a", "a"), ("a", "a"), ("a", "b"), ("b", "b"), ("b", "a"), ("c", "c "))
    )

    assert results["accuracy", "", ""].value == pytest.approx(4 / 6)
    assert results["precision", "a", ""].value == pytest.approx(2 / 3)
    assert results["recall", "b", ""].value == pytest.approx(1 / 2)
    assert results["f1", "c ", ""].value == 1
    assert results["macro_f1", "", ""].value == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert results["confusion", "a", "b"].value == 1


def test_undefined_measures_are_omitted() -> None:
    """A label that was never chosen has no precision, one that is never true no recall.

    Answers that need review are measured separately.
    """
    results = measured(choices(("a", "b"), (None, "b")))
    unsure = Choice(expected="a", chosen="b", is_abstaining=True)
    abstaining = measured([*choices(("a", "a"), ("a", "b")), unsure])

    assert ("precision", "a", "") not in results
    assert ("recall", "b", "") not in results
    assert results["precision", "b", ""].value == 0
    assert results["confusion", "", "b"].value == 1
    assert "accuracy_when_sure" not in {metric for metric, _, _ in results}
    assert abstaining["abstained", "", ""].value == pytest.approx(1 / 3)
    assert abstaining["accuracy_when_sure", "", ""].value == 0.5


@given(CHOICES)
def test_measures_stay_within_their_bounds(answers: list[Choice]) -> None:
    listed = list(measures.measure_choices(answers, seeded(0)))

    assert len(listed) == len({(m.metric, m.label, m.found) for m in listed})
    assert sum(m.value for m in listed if m.metric == "confusion") == len(answers)
    for measure in listed:
        if measure.metric != "confusion":
            assert 0 <= measure.value <= 1
        if measure.low is not None and measure.high is not None:
            assert 0 <= measure.low <= measure.high <= 1


def test_measures_of_fields_computed_by_hand() -> None:
    """In total, 3 of 4 found values are right, and 3 of 5 right values are found."""
    scores = [
        score("buyer", 1, 0, 0, exact=True),
        score("buyer", 1, 1, 0),
        score("price", 1, 0, 2),
        score("price", 0, 0, 0),
    ]

    results = {(m.metric, m.label): m for m in measures.measure_fields(scores, seeded(1))}

    assert results["match", ""].value == 0.5
    assert results["exact_match", ""].value == 0.25
    assert results["precision", ""].value == pytest.approx(3 / 4)
    assert results["recall", ""].value == pytest.approx(3 / 5)
    assert results["f1", ""].value == pytest.approx(6 / 9)
    assert results["recall", "price"].value == pytest.approx(1 / 3)
    assert results["match", "price"].value == 0.5
    empty = measures.measure_fields([score("a", 0, 0, 0)], seeded(1))
    assert {m.metric for m in empty} == {
        "match",
        "exact_match",
    }  # no true and no found values


def test_the_calibration_error_computed_by_hand() -> None:
    """One of two claims of 0.9 is right and none of two of 0.35: (0.8 + 0.7) / 4."""
    claims = [(0.9, True), (0.9, False), (0.35, False), (0.35, False)]

    assert calibration_error(claims) == pytest.approx((abs(1.8 - 1) + 0.7) / 4)
    assert calibration_error([(1.0, True), (0.0, False)]) == 0
    assert calibration_error([]) == 0


@pytest.mark.parametrize(
    ("text", "reference", "one", "longest"),
    [
        # Lin, 2004, section 3: “police kill the gunman” and “the gunman kill police”.
        ("police kill the gunman", "police killed the gunman", 0.75, 0.75),
        ("the gunman kill police", "police killed the gunman", 0.75, 0.5),
        ("The cat, the cat.", "the cat", 2 * 2 / 6, 2 * 2 / 6),
        ("", "the cat", 0, 0),
        ("猫が好き", "猫が嫌い", 0.5, 0.5),
    ],
)
def test_rouge_computed_by_hand(text: str, reference: str, one: float, longest: float) -> None:
    """Common words count as often as both have them; the longest common subsequence is ordered."""
    assert rouge_1(text, reference) == pytest.approx(one)
    assert rouge_l(text, reference) == pytest.approx(longest)


@given(st.lists(st.sampled_from("abcd")), st.lists(st.sampled_from("abcd")))
def test_rouge_is_symmetric_and_never_higher_with_order(one: list[str], other: list[str]) -> None:
    text, reference = " ".join(one), " ".join(other)

    assert rouge_l(text, reference) == rouge_l(reference, text)
    assert 0 <= rouge_l(text, reference) <= rouge_1(text, reference) <= 1
    assert rouge_l(text, text) == float(bool(one))


def test_only_the_text_of_a_summary_is_compared() -> None:
    finding: JsonObject = {"finding": "It opened.", "quote": "was opened"}

    text = summary_text(
        {"main_topic": "A bridge.", "key_findings": [finding], "conclusions": ["So it is."]}
    )

    assert text == "A bridge. It opened. So it is."


def test_a_field_may_have_the_heading_of_a_workbook(tmp_path: Path) -> None:
    """A schema may have a member `Document`, beside the column that names the document."""
    file = tmp_path / "gold.csv"
    file.write_text("document,Document\na.txt,Invoice\n")

    truths = gold.read(file).truths

    assert {name: truth.fields for name, truth in truths.items()} == {
        "a.txt": {"Document": "Invoice"}
    }


@pytest.mark.parametrize("read", [gold.read, feedback.read])
def test_only_a_regular_file_of_limited_size_is_read(
    read: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endless device does not fill the memory, and a pipe without a writer does not block."""
    monkeypatch.setattr(gold, "_MAX_MEGABYTES", 0)
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "large.csv").write_text("document,label\na,b\n")

    for path, reason in (
        (Path("/dev/zero"), "is a device"),
        (tmp_path / "pipe.csv", "is a named pipe"),
        (tmp_path / "large.csv", "0 MB"),
        (tmp_path / "gone.csv", "does not exist"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(UsageError, match=f"cannot be read: the file {reason}|{reason}"):
            read(path)


SIZES = st.dictionaries(st.text(max_size=3), st.integers(1, 500), min_size=1, max_size=8)


@given(SIZES, st.integers(0, 600))
def test_each_stratum_contributes_its_share(sizes: dict[str, int], count: int) -> None:
    given_by = allot(sizes, count)

    total = sum(sizes.values())
    assert sum(given_by.values()) == min(count, total)
    assert all(0 <= given_by[name] <= size for name, size in sizes.items())
    if len(sizes) == 2:
        quotas = {name: min(count, total) * size / total for name, size in sizes.items()}
        assert all(abs(given_by[name] - quota) < 1 for name, quota in quotas.items())
    pairs = itertools.permutations(sizes, 2)
    assert all(given_by[one] >= given_by[two] for one, two in pairs if sizes[one] > sizes[two])
