"""An occurrence whose run is paused says so, waits for a person, and in the end for nobody."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from chordwise.errors import BudgetExceededError
from chordwise.pipeline.jobs.retry import retry
from chordwise.settings import Settings
from tests.fakes.pipeline import quoting_the_text
from tests.fakes.scheduling import A_DAY, Night, a_night, nightly

STATE = "SELECT status, error_code, error_message, hint FROM schedule_runs ORDER BY due_at LIMIT 1"
WHY = "The budget of the run is spent."


@pytest.fixture
def paused(settings: Settings, tmp_path: Path) -> Night:
    """Return a night whose run was paused because its budget is spent."""
    (tmp_path / "letter.txt").write_text("The bridge was opened in May 1902.", "utf-8")
    script = (BudgetExceededError(WHY, "Raise it."), quoting_the_text)
    night = a_night(settings, *script, repeat_last=True, nightly=nightly(tmp_path))
    night.sleep_until("2026-03-28T02:31")
    assert night.tick() == 1
    assert night.carry_out()
    night.work()
    assert night.rows("SELECT status FROM runs") == [("paused",)]
    night.tick()
    return night


def test_history_says_what_is_paused_and_why(paused: Night) -> None:
    """Long before it expires, and what goes on with it."""
    ((status, code, message, hint),) = paused.rows(STATE)
    ((run,),) = paused.rows("SELECT name FROM runs")

    assert (status, code) == ("waiting", "paused")
    assert message == f"Its run {run} is paused: {WHY}"
    assert f"chordwise retry {run}" in str(hint)


def test_once_it_is_taken_up_it_ends_as_any_other(paused: Night) -> None:
    """Nothing of the pause is left."""
    ((run_id,),) = paused.rows("SELECT id FROM runs")
    retry(paused.pipeline.context, UUID(str(run_id)))
    paused.tick()
    assert paused.rows(STATE) == [("waiting", None, None, None)]

    paused.work()
    paused.tick()

    assert paused.rows(STATE) == [("succeeded", None, None, None)]


def test_it_expires_as_paused_and_the_next_night_starts(paused: Night) -> None:
    """The reason stays in the history; its run can still be taken up."""
    paused.now += A_DAY

    assert paused.tick() == 1

    assert [status for *_, status in paused.history()] == ["expired", "due"]
    ((_, code, message, _),) = paused.rows(STATE)
    assert code == "paused"
    assert WHY in str(message)
    assert paused.rows("SELECT status FROM runs") == [("paused",)]


def test_one_that_ends_with_its_time_has_succeeded(paused: Night) -> None:
    """Whoever looks late does not take for expired what was done."""
    ((run_id,),) = paused.rows("SELECT id FROM runs")
    retry(paused.pipeline.context, UUID(str(run_id)))
    paused.work()
    paused.now += A_DAY

    paused.tick()

    assert [status for *_, status in paused.history()] == ["succeeded", "due"]


def test_a_run_that_goes_on_at_this_very_moment_holds_up_no_schedule(paused: Night) -> None:
    """Its job is not paused any more, its run still is: nothing is said, and others start."""
    pipeline = paused.pipeline
    pipeline.execute("UPDATE schedule_runs SET error_code = NULL, error_message = NULL")
    pipeline.execute("UPDATE jobs SET status = 'synthesizing'")

    paused.tick()

    ((status, code, *_),) = paused.rows(STATE)
    assert (status, code) == ("waiting", None)
