"""Tests of schedules that evaluate, recalibrate and certify as the commands do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chordwise.pipeline.intake.submit import Submission
from chordwise.pipeline.learning.scope import Scope
from chordwise.settings import Profile, ScheduleSettings, Settings
from tests.fakes.learning import LABELS, a_learner, classified, obeying, say, written
from tests.fakes.scheduling import FakeScheduler, a_scheduler

ENDS = (
    "SELECT status, outcome - 'output', error_message FROM schedule_runs"
    " ORDER BY due_at DESC LIMIT 1"
)
pytestmark = pytest.mark.xdist_group("schedule_learning")
CHOICES = {f"{n}.txt": ("letter" if n < 15 else "report", n / 30) for n in range(30)}


def at_six(run: str, cron: str = "0 6 * * *") -> ScheduleSettings:
    return ScheduleSettings(cron=cron, time_zone="Europe/Berlin", run=run)


@pytest.fixture
def filled_by() -> Callable[[Settings], object]:
    return classify


def classify(settings: Settings) -> Submission:
    return classified(a_learner(settings), CHOICES)


def a_due_scheduler(settings: Settings, **schedules: ScheduleSettings) -> FakeScheduler:
    profiles = {"letters": Profile(labels=LABELS, confidence_threshold=0.0)}
    scheduler = a_scheduler(
        settings.model_copy(update={"profiles": profiles}), obeying, repeat_last=True, **schedules
    )
    scheduler.sleep_until("2026-03-28T06:01")
    scheduler.tick()
    return scheduler


def test_schedules_evaluate_recalibrate_and_certify(settings: Settings, tmp_path: Path) -> None:
    truth = [{"document": name, "label": "report"} for name in [*CHOICES, "gone.txt"]]
    gold = written(tmp_path / "truth.jsonl", *truth)
    scheduler = a_due_scheduler(
        settings,
        measure=at_six(f"evaluate --gold {gold}"),
        learn=at_six("recalibrate --max-error-rate 0.5", "0 7 * * *"),
        accept=at_six("certify letters --max-error 0.9 --risk 0.2", "0 8 * * *"),
    )
    assert scheduler.carry_out()
    for time in ("07:01", "08:01"):
        scheduler.sleep_until(f"2026-03-28T{time}")
        scheduler.tick()
        assert scheduler.carry_out()

    assert scheduler.rows(
        "SELECT schedule, status, outcome - 'output' FROM schedule_runs WHERE schedule = 'measure'"
    ) == [("measure", "succeeded", {"judged": 30, "missing": 1})]
    assert scheduler.rows(
        "SELECT value, count FROM evaluation_history WHERE metric = 'accuracy' AND is_whole"
    ) == [(0.5, 30)]
    assert scheduler.rows(
        "SELECT outcome - 'output' FROM schedule_runs WHERE schedule = 'learn'"
    ) == [({"changed": 1, "too_few": 0},)]
    assert scheduler.rows("SELECT judged, max_error_rate FROM calibrations") == [(30, 0.5)]
    counted = {"certified": 0, "open": 2, "impossible": 0, "withdrawn": 0}
    assert scheduler.rows(ENDS) == [("succeeded", counted, None)]
    assert scheduler.rows("SELECT DISTINCT max_error, risk FROM certifications") == [(0.9, 0.2)]


def test_only_answers_to_the_profile_are_evaluated(settings: Settings, tmp_path: Path) -> None:
    gold = written(tmp_path / "truth.jsonl", *({"document": n, "label": "letter"} for n in CHOICES))
    scheduler = a_due_scheduler(
        settings, measure=at_six(f"evaluate --gold {gold} --profile letters")
    )
    classified(scheduler.pipeline, CHOICES, threshold=0.5)

    assert scheduler.carry_out()

    assert scheduler.rows(ENDS) == [("succeeded", {"judged": 30, "missing": 0}, None)]
    assert scheduler.rows("SELECT profile FROM evaluations") == [("letters",)]


def test_a_drop_in_quality_fails_the_occurrence_and_is_delivered(
    settings: Settings, tmp_path: Path
) -> None:
    gold = tmp_path / "truth.jsonl"
    written(gold, *({"document": name, "label": label} for name, (label, _) in CHOICES.items()))
    scheduler = a_due_scheduler(settings, measure=at_six(f"evaluate --gold {gold}"))
    assert scheduler.carry_out()
    assert scheduler.rows(ENDS) == [("succeeded", {"judged": 30, "missing": 0}, None)]
    written(gold, *({"document": name, "label": "letter"} for name in CHOICES))

    do_twice(scheduler)

    fell = "accuracy of classification fell from 1.000 to 0.500 (by 0.297 to 0.668)"
    ((status, outcome, message),) = scheduler.rows(ENDS)
    assert (status, message) == ("failed", f"Answers are worse than before: {fell}.")
    assert outcome == {"judged": 30, "missing": 0, "profile": "", "fell": [fell]}
    assert scheduler.rows("SELECT event, content FROM deliveries WHERE run_id IS NULL") == [
        ("answers.regressed", {"schedule": "measure", **outcome})
    ]
    scheduler.start_at("2026-03-30T06:01")
    assert scheduler.carry_out()
    assert [row[0] for row in scheduler.rows(ENDS)] == ["succeeded"]
    assert scheduler.rows("SELECT count(*) FROM evaluations") == [(3,)]


def do_twice(scheduler: FakeScheduler) -> None:
    """Do the work of the next morning, and again as if the scheduler was killed afterwards."""
    scheduler.start_at("2026-03-29T06:01")
    assert scheduler.carry_out()
    scheduler.pipeline.execute(
        "UPDATE schedule_runs SET status = 'due' WHERE status = 'failed' AND attempts = 1"
    )
    assert scheduler.carry_out()


def test_a_withdrawn_certificate_fails_the_occurrence(settings: Settings) -> None:
    accept = at_six("certify letters --max-error 0.3")
    scheduler = a_due_scheduler(settings, accept=accept)
    say(scheduler.pipeline, "approved", CHOICES)
    assert scheduler.carry_out()
    assert scheduler.rows("SELECT count(*) FROM results WHERE accepted") == [(30,)]
    later = {f"late-{n}.txt": ("report", 0.9) for n in range(20)}
    classified(scheduler.pipeline, later)
    say(scheduler.pipeline, "rejected", later)

    do_twice(scheduler)

    ((status, _, message),) = scheduler.rows(ENDS)
    withdrawn = "Certificates withdrawn after later checks: report."
    assert (status, message) == ("failed", withdrawn)
    told = {"schedule": "accept", "profile": "letters", "withdrawn": ["report"]}
    assert scheduler.rows("SELECT event, content FROM deliveries WHERE run_id IS NULL") == [
        ("answers.regressed", told)
    ]
    assert scheduler.rows("SELECT count(*) FROM results WHERE accepted") == [(15,)]


@pytest.mark.parametrize(
    ("profile", "options"),
    [
        (
            Profile(critique=True, model="openai/any"),
            {"critique": True, "principles": ["Be right."]},
        ),
        (Profile(votes=3, model="extractive"), {}),
    ],
)
def test_the_question_of_a_profile_is_that_of_its_runs(
    settings: Settings, profile: Profile, options: dict[str, object]
) -> None:
    """It has the configured principles, and no votes if no language model supports them."""
    critique = settings.critique.model_copy(update={"principles": ("Be right.",)})
    known = {"profiles": {"letters": profile}, "critique": critique}

    scope = Scope(settings=settings.model_copy(update=known), profile="letters")

    assert scope.questions is not None
    (question,) = scope.questions
    quality_options = ("votes", "critique", "principles")
    assert {name: question[name] for name in quality_options if name in question} == options


@pytest.mark.parametrize(
    ("option", "status", "outcome", "said"),
    [
        ("", "succeeded", {"judged": 0, "missing": 0}, "None"),
        ("--gold gone.csv", "failed", None, "gone.csv cannot be read"),
    ],
)
def test_without_feedback_nothing_is_evaluated(
    settings: Settings, option: str, status: str, outcome: object, said: str
) -> None:
    """This is not a failure, because feedback may follow later; a missing file is one."""
    scheduler = a_due_scheduler(settings, measure=at_six(f"evaluate {option}"))

    assert scheduler.carry_out()

    ((*ended, message),) = scheduler.rows(ENDS)
    assert ended == [status, outcome]
    assert said in str(message)


def test_without_scikit_learn_a_schedule_fails(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    scheduler = a_due_scheduler(settings, learn=at_six("recalibrate"))

    assert scheduler.carry_out()

    ((status, hint),) = scheduler.rows("SELECT status, hint FROM schedule_runs")
    assert status == "failed"
    assert 'pip install "chordwise[learning]"' in str(hint)
