"""Tests of `chordwise recalibrate`, which calibrates reported confidence in all views."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import pytest

from chordwise.domain.learning.statistics import calibrate
from chordwise.errors import ExitCode
from chordwise.settings import Settings
from tests.fakes.commands import output_of, run
from tests.fakes.learning import a_learner, classified
from tests.fakes.pipeline import Pipeline

pytestmark = pytest.mark.usefixtures("addressed")
CLAIMS = (0.3, 0.5, 0.7, 0.9)


@pytest.fixture
def pipeline(settings: Settings) -> Pipeline:
    pipeline = a_learner(settings)
    classified(pipeline, {f"{claim}.txt": ("letter", claim) for claim in CLAIMS})
    return pipeline


def add_judgments(pipeline: Pipeline, confidence: float, right: int, wrong: int) -> None:
    """Add judgments of other documents' answers by the same model, with one confidence."""
    pipeline.execute(
        "INSERT INTO judgments (id, document_id, result_id, options_hash, analysis_type, provider,"
        " model, prompt_version, judged_by, part, path, confidence, is_right)"
        " SELECT gen_random_uuid(), md5(number::text)::uuid, gen_random_uuid(), number,"
        " analysis_type, provider,"
        " model, prompt_version, 'gold', 'result', '/primary_label', :confidence,"
        " number <= :right FROM results, generate_series(1, :all) AS number"
        " WHERE results.confidence = 0.3",
        confidence=confidence,
        right=right,
        all=right + wrong,
    )


def calibrated(pipeline: Pipeline) -> Sequence[tuple[object, ...]]:
    return pipeline.rows(
        "SELECT confidence, calibrated_confidence, acceptable, judged FROM calibrated_results"
        " ORDER BY confidence"
    )


def test_a_calibration_needs_enough_judgments_and_is_stored_once(pipeline: Pipeline) -> None:
    assert "There are no judged answers yet" in output_of("recalibrate").err
    add_judgments(pipeline, 0.9, 29, 0)
    add_judgments(pipeline, 0.5, 10, 4)

    assert "too few" in output_of("recalibrate").out
    assert calibrated(pipeline) == [(claim, None, None, None) for claim in CLAIMS]

    add_judgments(pipeline, 0.8, 30, 20)
    for _ in range(2):
        assert run(["recalibrate"]) == ExitCode.SUCCESS
    add_judgments(pipeline, 0.7, 0, 50)
    assert run(["recalibrate"]) == ExitCode.SUCCESS
    stored = "SELECT judged, judged_right FROM calibrations ORDER BY learnt_at"
    assert pipeline.rows(stored) == [(93, 69), (143, 69)]
    assert {row[3] for row in calibrated(pipeline)} == {143}


def test_the_calibrated_confidence_is_beside_the_reported_one(pipeline: Pipeline) -> None:
    for claim, right, wrong in ((0.4, 10, 90), (0.6, 50, 50), (0.8, 100, 0)):
        add_judgments(pipeline, claim, right, wrong)

    (lesson,) = json.loads(output_of("recalibrate", "--json").out)["lessons"]

    curve = lesson["curve"]
    points = tuple((claim, value) for claim, value in curve["points"])
    assert (curve["method"], curve["judged"], curve["judged_right"]) == ("isotonic", 300, 160)
    assert curve["error_before"] == pytest.approx(0.2)
    assert curve["error_after"] < 0.03
    assert lesson["acceptance"] == {"accept_from": 0.8, "share": pytest.approx(1 / 3)}
    rows = calibrated(pipeline)
    assert [row[0] for row in rows] == list(CLAIMS)
    assert [row[1] for row in rows] == pytest.approx([calibrate(points, claim) for claim in CLAIMS])
    assert [row[1] for row in rows] == pytest.approx([0.1, 0.3, 0.75, 1.0])
    assert [row[2:] for row in rows] == [*[(False, 300)] * 3, (True, 300)]


def test_without_scikit_learn_a_hint_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)

    said = output_of("recalibrate", code=ExitCode.CONFIGURATION).err

    assert "needs scikit-learn" in said
    assert 'pip install "chordwise[learning]"' in said


def test_an_answer_shared_by_several_runs_counts_once(pipeline: Pipeline) -> None:
    add_judgments(pipeline, 0.8, 1, 0)
    pipeline.execute(
        "INSERT INTO judgments SELECT (json_populate_record(j, json_build_object("
        "'id', gen_random_uuid(), 'result_id', gen_random_uuid(), 'judged_by', 'feedback',"
        " 'is_right', false))).* FROM judgments AS j"
    )
    pipeline.execute("UPDATE judgments SET judged_at = now() WHERE judged_by = 'gold'")

    assert pipeline.rows("SELECT is_right, judged_by FROM judged_claims") == [(False, "feedback")]
    assert pipeline.rows(
        "SELECT claimed_from, claims, mean_claimed::float, share_right::float"
        " FROM reliability_curve"
    ) == [(0.8, 1, 0.8, 0.0)]
