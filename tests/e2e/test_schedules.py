"""A schedule by real processes: due, carried out, and finished once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import Stage
from tests.fakes.configuration import configuration

LETTERS = 12
SCHEDULE = """
[schedules.nightly]
cron = "0 2 * * *"
time_zone = "Europe/Berlin"
paths = ["letters"]
"""
DEFINED = "SELECT count(*) = 1 FROM schedules WHERE enabled"
SOON = "UPDATE schedules SET next_due_at = now() + interval '2 seconds'"
ENDED = "SELECT count(*) = 1 FROM schedule_runs WHERE status = 'succeeded'"


@pytest.fixture
def letters(stage: Stage) -> Path:
    """Write the letters and a configuration with a schedule for their folder."""
    folder = stage.folder / "letters"
    folder.mkdir()
    for number in range(LETTERS):
        text = f"Letter {number}: the bridge was opened in the year {1700 + number}."
        (folder / f"{number:03}.txt").write_text(text, "utf-8")
    text = configuration(stage.provider.base_url, pipeline="stalled_seconds = 4", more=SCHEDULE)
    (stage.folder / "chordwise.toml").write_text(text, "utf-8")
    stage.provider.delay_seconds = 0.01
    return folder


def execute(stage: Stage, statement: str) -> None:
    with stage.engine.begin() as connection:
        connection.exec_driver_sql(statement)


def judge(stage: Stage) -> None:
    """Check that each letter was analyzed once, in one run that the schedule began."""
    assert stage.count("SELECT count(*) FROM schedule_runs") == 1
    assert stage.count("SELECT count(*) FROM runs WHERE schedule_run_id IS NOT NULL") == 1
    assert stage.count("SELECT accepted FROM run_accounts") == LETTERS
    assert stage.value("SELECT intakes_balance AND jobs_balance FROM run_accounts")
    assert stage.count("SELECT count(*) FROM results") == LETTERS
    assert stage.count("SELECT count(DISTINCT document_id) FROM results") == LETTERS
    assert "Traceback" not in stage.processes.logs()


@pytest.mark.usefixtures("letters")
def test_a_schedule_that_is_due_brings_results(stage: Stage) -> None:
    """From its time to the last result, and the command says so."""
    stage.processes.start("scheduler")
    stage.processes.start("worker")
    stage.wait_for(DEFINED)
    execute(stage, SOON)

    stage.wait_for(ENDED, 120)

    judge(stage)
    done = stage.processes.call("schedules", "history", "nightly", "--json")
    assert done.returncode == 0, done.stderr
    (line,) = json.loads(done.stdout)["schedule_runs"]
    assert (line["status"], line["trigger"]) == ("succeeded", "clock")
    assert line["outcome"] == {"found": LETTERS, "jobs": {"succeeded": LETTERS}}
    assert stage.value("SELECT next_due_at > now() FROM schedules")
