"""What is stale is asked anew from the stored texts, once."""

from __future__ import annotations

from dataclasses import replace

from chordwise.domain.tasks import AnalysisOptions, AnalysisType
from chordwise.settings import ScheduleSettings, Settings
from tests.fakes.pipeline import a_run, quoting_the_text
from tests.fakes.scheduling import Night, a_night

TEXTS = tuple(f"The bridge was opened in May 190{year}. Carts crossed it." for year in range(3))
WANTED = ScheduleSettings.model_validate({"cron": "0 3 * * *", "kind": "reanalyze"})
STALE = (
    "UPDATE results SET prompt_version = 'summary.analyze@0'",
    "UPDATE jobs SET options_hash = 'of the older prompt'",
)
OUTCOME = "SELECT status, outcome FROM schedule_runs ORDER BY due_at DESC LIMIT 1"


def a_stale_night(settings: Settings) -> Night:
    """Return a night after two runs whose prompts have become old."""
    night = a_night(settings, quoting_the_text, repeat_last=True, again=WANTED)
    other = a_run(analysis=AnalysisOptions(instructions="Look for carts."))
    for texts, options in ((TEXTS, a_run()), (TEXTS[:1], other)):
        night.pipeline.work(night.pipeline.submit(*texts, options=options))
    for statement in STALE:
        night.pipeline.execute(statement)
    night.sleep_until("2026-03-28T04:01")
    assert night.tick() == 1
    return night


def test_what_is_stale_is_asked_anew(settings: Settings) -> None:
    """A run for each question, with its options; the account of each balances."""
    night = a_stale_night(settings)

    night.carry_out()
    night.work()
    night.tick()

    expected = {"found": 4, "questions": 2, "unknown_models": 0, "jobs": {"succeeded": 4}}
    assert night.rows(OUTCOME) == [("succeeded", expected)]
    assert night.rows(
        "SELECT accepted, intakes_balance, jobs_balance FROM run_accounts AS a"
        " JOIN runs AS r ON r.id = a.run_id WHERE r.schedule_run_id IS NOT NULL ORDER BY 1"
    ) == [(1, True, True), (3, True, True)]
    assert night.rows(
        "SELECT j.options ->> 'instructions', count(*) FROM jobs AS j JOIN runs AS r"
        " ON r.id = j.run_id WHERE r.schedule_run_id IS NOT NULL GROUP BY 1 ORDER BY 1"
    ) == [("", 3), ("Look for carts.", 1)]
    assert night.rows("SELECT count(*) FROM documents") == [(3,)]


def test_the_next_night_does_not_ask_again(settings: Settings) -> None:
    """Old results stay stale in the view; that they were asked anew is enough, even in vain."""
    night = a_stale_night(settings)
    night.carry_out()
    night.pipeline.execute("UPDATE jobs SET status = 'failed' WHERE status = 'running'")
    night.pipeline.execute("UPDATE runs SET status = 'finished'")
    night.tick()
    night.sleep_until("2026-03-29T05:01")
    assert night.tick() == 1

    night.carry_out()

    expected = {"found": 0, "questions": 2, "unknown_models": 0}
    assert night.rows(OUTCOME) == [("succeeded", expected)]


def test_a_model_that_is_gone_is_counted(settings: Settings) -> None:
    """The other questions are asked all the same."""
    night = a_stale_night(settings)
    night.pipeline.execute(
        "UPDATE jobs SET model = 'gone' WHERE options ->> 'instructions' = 'Look for carts.'"
    )

    night.carry_out()

    expected = {"found": 3, "questions": 2, "unknown_models": 1}
    assert night.rows(OUTCOME) == [("waiting", expected)]


def test_one_that_was_stopped_goes_on_where_it_was(settings: Settings) -> None:
    """What was asked before the kill is not asked twice, and the account balances."""
    night = a_stale_night(settings)
    looks = iter([False, False, True])
    work = night.runner()
    work._is_stopped = lambda: next(looks)
    work.work()
    assert night.rows("SELECT status FROM schedule_runs") == [("due",)]

    night.carry_out()
    night.work()
    night.tick()

    assert night.rows("SELECT status, outcome -> 'jobs' FROM schedule_runs") == [
        ("succeeded", {"succeeded": 4})
    ]
    assert night.rows("SELECT bool_and(intakes_balance AND jobs_balance) FROM run_accounts") == [
        (True,)
    ]


def test_nothing_stale_is_nothing_to_do(settings: Settings) -> None:
    """And makes no run."""
    night = a_night(settings, quoting_the_text, repeat_last=True, again=WANTED)
    options = replace(a_run(), types=(AnalysisType.SUMMARY,))
    night.pipeline.work(night.pipeline.submit(*TEXTS, options=options))
    night.sleep_until("2026-03-28T04:01")
    night.tick()

    night.carry_out()

    assert night.rows("SELECT count(*) FROM runs") == [(1,)]
    assert night.rows("SELECT status FROM schedule_runs") == [("succeeded",)]
