"""Schedules that evaluate and recalibrate, by real processes: truth in, calibrated claims out."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Stage
from tests.fakes.configuration import configuration

REVIEWS = 40
FEELINGS = ("wonderful, a great pleasure", "terrible, an awful waste")
SCHEDULES = """
[schedules.measure]
cron = "0 6 * * *"
time_zone = "Europe/Berlin"
kind = "evaluate"
gold = "truth.csv"

[schedules.learn]
cron = "30 6 * * *"
time_zone = "Europe/Berlin"
kind = "recalibrate"
"""
DEFINED = "SELECT count(*) = 2 FROM schedules WHERE enabled"
SOON = "UPDATE schedules SET next_due_at = now() WHERE name = '{}'"
ENDED = "SELECT count(*) = 1 FROM schedule_runs WHERE schedule = '{}' AND status = 'succeeded'"
OUTCOME = "SELECT outcome FROM schedule_runs WHERE schedule = '{}'"
DONE = "SELECT count(*) = 1 FROM runs WHERE status = 'finished'"
CALIBRATED = (
    "SELECT count(*) FROM calibrated_results WHERE calibrated_confidence BETWEEN 0.3 AND 0.7"
)


@pytest.fixture
def reviews(stage: Stage) -> str:
    """Write reviews, what is true of them, and the schedules; return the file of reviews."""
    rows = [f'{n},"Film {n} was {FEELINGS[n % 2]} for us all."' for n in range(REVIEWS)]
    (stage.folder / "reviews.csv").write_text("\n".join(["id,text", *rows]), "utf-8")
    truth = [f"reviews.csv#{number},positive" for number in range(REVIEWS)]
    (stage.folder / "truth.csv").write_text("\n".join(["document,label", *truth]), "utf-8")
    written_down = configuration(stage.provider.base_url, more=SCHEDULES)
    (stage.folder / "chordwise.toml").write_text(written_down, "utf-8")
    return str(stage.folder / "reviews.csv")


def carried_out(stage: Stage, name: str) -> object:
    """Let a schedule be due, wait until it has been carried out, and return what came of it."""
    with stage.engine.begin() as connection:
        connection.exec_driver_sql(SOON.format(name))
    stage.wait_for(ENDED.format(name))
    return stage.value(OUTCOME.format(name))


@pytest.mark.nightly
def test_results_are_evaluated_and_their_claims_recalibrated(stage: Stage, reviews: str) -> None:
    """Once each, with two schedulers: half of the reviews are not what the truth says."""
    stage.processes.start("scheduler")
    stage.processes.start("scheduler")
    stage.processes.start("worker")
    asking = ("--type", "sentiment", "--model", "extractive")
    stage.submit(reviews, *asking, "--text-column", "text", "--id-column", "id")
    stage.wait_for(DONE)
    stage.wait_for(DEFINED)

    evaluated = carried_out(stage, "measure")
    learnt = carried_out(stage, "learn")

    assert evaluated == {"judged": REVIEWS, "missing": 0}
    assert learnt == {"changed": 1, "too_few": 0}
    accuracy = "SELECT value FROM evaluation_history WHERE metric = 'accuracy' AND is_whole"
    assert stage.value(accuracy) == 0.5
    assert stage.count("SELECT count(*) FROM judgments") == REVIEWS
    assert stage.count(CALIBRATED) == REVIEWS
    assert "Traceback" not in stage.processes.logs()
