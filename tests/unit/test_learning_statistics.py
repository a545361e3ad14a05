"""Tests of statistics: measures, intervals, calibration, gold files and stratified samples."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chordwise.domain.json_values import JsonObject
from chordwise.domain.learning import measures
from chordwise.domain.learning.judgments import Choice, FieldScore
from chordwise.domain.learning.measures import Measure, rouge_1, rouge_l, summary_text
from chordwise.domain.learning.statistics import (
    MIN_JUDGMENTS,
    ConfidenceClaim,
    Method,
    Points,
    acceptance,
    bootstrap,
    calibrate,
    calibration_error,
    is_enough,
    isotonic,
    learn,
    platt,
    wilson,
)
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


SIZES = st.dictionaries(st.text(max_size=3), st.integers(1, 60), min_size=1, max_size=6)


@given(SIZES, st.integers(0, 90))
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


CLAIMS = st.lists(
    st.builds(
        ConfidenceClaim,
        confidence=st.one_of(
            st.floats(0, 1).map(lambda claimed: round(claimed, 9)),  # closer ones count as equal
            st.sampled_from([0.0, 0.5, 0.7, 0.9, 1.0]),
        ),
        is_right=st.booleans(),
        group=st.text("0123456789", min_size=1, max_size=2),
    ),
    min_size=1,
    max_size=60,
)


def claims(*judged: tuple[float, int, int]) -> list[ConfidenceClaim]:
    """Return claims with this confidence, of which `right` are right and `wrong` wrong."""
    pairs = [(c, place < right) for c, right, wrong in judged for place in range(right + wrong)]
    return [
        ConfidenceClaim(confidence=confidence, is_right=is_right, group=f"{place:04}")
        for place, (confidence, is_right) in enumerate(pairs)
    ]


def drawn(count: int, seed: int, power: float) -> list[ConfidenceClaim]:
    random = seeded(seed)
    confidences = [random.uniform(0.2, 1) for _ in range(count)]
    return [
        ConfidenceClaim(
            confidence=confidence,
            is_right=random.uniform(0, 1) < confidence**power,
            group=str(place),
        )
        for place, confidence in enumerate(confidences)
    ]


def error(points: Points, judged: list[ConfidenceClaim]) -> float:
    return calibration_error(
        [(calibrate(points, claim.confidence), claim.is_right) for claim in judged]
    )


def test_neighbors_that_violate_the_order_are_pooled() -> None:
    """Computed by hand: 0.2 and 0.3 are pooled; the last block pools all blocks above it."""
    early = isotonic(claims((0.2, 1, 1), (0.3, 0, 1), (0.6, 3, 1)))
    late = isotonic(claims((0.1, 1, 1), (0.2, 2, 1), (0.3, 3, 1), (0.4, 0, 2)))

    assert early == ((0.2, 1 / 3), (0.3, 1 / 3), (0.6, 0.75))
    assert late == ((0.1, 0.5), (0.2, 5 / 9), (0.4, 5 / 9))


@pytest.mark.parametrize("fit", [isotonic, platt])
def test_nearly_equal_claims_have_a_curve(fit: Callable[[list[ConfidenceClaim]], Points]) -> None:
    for step in (0.0, 1e-16, 1e-12, 1e-6):
        judged = [a_claim(0.7 + step * n, is_right=n % 2 == 0) for n in range(40)]

        worths = [calibrate(fit(judged), claim.confidence) for claim in judged]

        assert sum(worths) / len(judged) == pytest.approx(0.5, abs=0.03)


def a_claim(confidence: float, *, is_right: bool) -> ConfidenceClaim:
    return ConfidenceClaim(confidence=confidence, is_right=is_right, group="0")


@given(CLAIMS)
def test_an_isotonic_curve_is_monotonic_and_keeps_the_mean(judged: list[ConfidenceClaim]) -> None:
    points = isotonic(judged)

    worths = [calibrate(points, claim.confidence) for claim in judged]
    assert [y for _, y in points] == sorted(y for _, y in points)
    assert all(left < right for (left, _), (right, _) in pairwise(points))
    assert sum(worths) == pytest.approx(sum(claim.is_right for claim in judged))


@given(CLAIMS)
@example([a_claim(0.875, is_right=False), a_claim(0.90625, is_right=True)])
@example([a_claim(0.09375, is_right=False), a_claim(0.125, is_right=True)])
def test_a_logistic_curve_is_monotonic_between_0_and_1(judged: list[ConfidenceClaim]) -> None:
    points = platt(judged)

    worths = [y for _, y in points]
    assert worths == sorted(worths)
    assert all(0 < y < 1 for y in worths)
    assert all(math.isfinite(y) for y in worths)


def test_a_logistic_curve_fits_logistic_data() -> None:
    points = platt(claims((0.25, 300, 700), (0.75, 800, 200)))

    assert calibrate(points, 0.25) == pytest.approx(0.3, abs=0.005)
    assert calibrate(points, 0.75) == pytest.approx(0.8, abs=0.005)


def test_a_curve_is_constant_beyond_its_ends_and_linear_between_points() -> None:
    points = ((0.2, 0.1), (0.6, 0.5))

    assert [calibrate(points, c) for c in (0.0, 0.2, 0.3, 0.6, 1.0)] == pytest.approx(
        [0.1, 0.1, 0.2, 0.5, 0.5]
    )


@pytest.mark.parametrize(
    ("judged", "enough"),
    [
        (claims((0.5, 25, 5)), True),
        (claims((0.5, 26, 4)), False),
        (claims((0.5, 4, 26)), False),
        (claims((0.5, 15, MIN_JUDGMENTS - 16)), False),
    ],
)
def test_a_curve_needs_enough_judgments_of_both_kinds(
    judged: list[ConfidenceClaim],
    enough: bool,  # noqa: FBT001 - the expectation
) -> None:
    assert is_enough(judged) is enough


def test_accurate_claims_are_not_changed() -> None:
    """No curve predicts better than claims that are already calibrated."""
    curve = learn(claims((0.1, 10, 90), (0.5, 50, 50), (0.9, 90, 10)))

    assert curve.method in (Method.CLAIMED, Method.ISOTONIC)
    assert curve.error_before == pytest.approx(0, abs=1e-9)
    assert calibrate(curve.points, 0.5) == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(5))
def test_a_learned_curve_calibrates_other_claims(seed: int) -> None:
    learned, others = drawn(400, seed, 3), drawn(400, seed + 100, 3)

    curve = learn(learned)

    assert curve.method is not Method.CLAIMED
    assert curve.error_after < curve.error_before / 2
    assert error(curve.points, others) < error(((0.0, 0.0), (1.0, 1.0)), others) / 2


@pytest.mark.parametrize(
    ("judged", "error_after"),
    [
        ([replace(a_claim(0.5, is_right=r), group=str(r)) for r in [True, False] * 20], 0.0),
        ([a_claim(0.9, is_right=n < 10) for n in range(40)], 0.65),
    ],
    ids=["claims about one document are in one fold", "a single document"],
)
def test_claims_of_few_documents_are_not_calibrated(
    judged: list[ConfidenceClaim], error_after: float
) -> None:
    curve = learn(judged)

    assert (curve.method, curve.points) == (Method.CLAIMED, ((0.0, 0.0), (1.0, 1.0)))
    assert curve.error_after == pytest.approx(error_after)
    assert curve.error_after == curve.error_before


def test_the_error_rate_of_accepted_claims_is_bounded() -> None:
    judged = claims((0.9, 90, 0), (0.6, 30, 12))

    accepted = acceptance(judged, 0.05)

    assert accepted is not None
    assert accepted.accept_from == 0.9
    assert accepted.share == pytest.approx(90 / 132)
    assert acceptance(claims((0.9, 72, 0)), 0.05) is None
    assert acceptance(claims((0.9, 73, 0)), 0.05) is not None


@given(CLAIMS, st.sampled_from([0.05, 0.2, 0.5]))
def test_no_lower_threshold_satisfies_the_bound(
    judged: list[ConfidenceClaim], max_error_rate: float
) -> None:
    accepted = acceptance(judged, max_error_rate)

    def bound(claim: float) -> float:
        above = [entry for entry in judged if entry.confidence >= claim]
        return wilson(sum(not entry.is_right for entry in above), len(above))[1]

    if accepted is not None:
        assert bound(accepted.accept_from) <= max_error_rate
    lower = {c.confidence for c in judged if not accepted or c.confidence < accepted.accept_from}
    assert all(bound(claim) > max_error_rate for claim in lower)
