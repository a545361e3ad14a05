"""Tests of schedules that analyze or refresh: their lanes, and what they wait for."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest

from chordwise.domain.analysis_tasks import AnalysisOptions
from chordwise.domain.states import Lane
from chordwise.errors import BudgetExceededError
from chordwise.pipeline.jobs.run_control import retry
from chordwise.settings import ProfileSettings, ScheduleSettings, Settings
from tests.fakes.batch_nights import check_invariants, handed_in, in_batches, opened, pass_time
from tests.fakes.pipeline import a_run, quoting_the_text
from tests.fakes.scheduling import (
    A_DAY,
    FakeScheduler,
    a_scheduler,
    a_scheduler_over,
    at_night,
    nightly,
)
from tests.peers.batch_provider import BatchProvider

TEXTS = tuple(f"The bridge was opened in May 190{year}. Carts crossed it." for year in range(3))
STALE = (
    "UPDATE results SET prompt_version = 'summary.analyze@0'",
    "UPDATE jobs SET options_hash = 'of the older prompt'",
)
RUNS = (
    "SELECT lane, priority, (SELECT count(*) FROM jobs WHERE run_id = runs.id AND"
    " status = 'succeeded') FROM runs WHERE schedule_run_id IS NOT NULL ORDER BY lane"
)
COSTS = (
    "SELECT DISTINCT c.service_tier, c.cost_usd FROM model_calls AS c JOIN jobs AS j"
    " ON j.id = c.job_id JOIN runs AS r ON r.id = j.run_id WHERE r.schedule_run_id IS NOT NULL"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "letters"
    made.mkdir()
    for number, text in enumerate(TEXTS):
        (made / f"{number}.txt").write_text(text, "utf-8")
    return made


def reanalysis(**values: object) -> ScheduleSettings:
    """Return a schedule that refreshes stale results, at half past two in Berlin."""
    return at_night(kind="reanalyze", **values)


def a_scheduler_after_stale_runs(
    settings: Settings, provider: BatchProvider, schedule: ScheduleSettings, *lanes: Lane
) -> FakeScheduler:
    """Return a scheduler after a run in each of these lanes, with outdated prompts."""
    scheduler = a_scheduler_over(opened(settings, provider), nightly=schedule)
    for lane, text in zip(lanes, TEXTS, strict=False):
        options = in_batches() if lane is Lane.BATCH else a_run()
        scheduler.pipeline.submit(text, options=options)
    work_in_batches(scheduler)
    # A newer prompt is another question.
    for statement in (*STALE, "DELETE FROM cached_completions"):
        scheduler.pipeline.execute(statement)
    return scheduler


def work_in_batches(scheduler: FakeScheduler) -> None:
    """Work and return batches until nothing waits any more."""
    for _ in range(4):
        for (job_id,) in scheduler.rows(
            "SELECT id FROM jobs WHERE finished_at IS NULL ORDER BY id"
        ):
            scheduler.pipeline.work_on(job_id)  # type: ignore[arg-type]  # a UUID, says the table
        pass_time(scheduler.pipeline)


def complete_occurrence(scheduler: FakeScheduler) -> None:
    """Complete the occurrence of half past two."""
    scheduler.start_at("2026-03-28T02:30:05")
    assert scheduler.carry_out()
    work_in_batches(scheduler)
    scheduler.tick()
    assert scheduler.history() == [("28 02:30", "clock", "succeeded")]


def test_a_scheduled_analysis_uses_batches(
    settings: Settings, provider: BatchProvider, folder: Path
) -> None:
    """Its profile sets no lane: all questions are in one batch, at half the price."""
    scheduler = a_scheduler_over(opened(settings, provider), nightly=nightly(folder, lane="batch"))

    complete_occurrence(scheduler)

    assert scheduler.rows(RUNS) == [("batch", "nightly", 3)]
    assert [len(batch.lines) for batch in provider.batches] == [3]
    assert scheduler.rows(COSTS) == [("batch", Decimal("0.01"))]
    assert scheduler.pipeline.model.requests == []
    check_invariants(scheduler.pipeline, provider)


@pytest.mark.parametrize(
    ("of_schedule", "of_profile", "expected"),
    [
        (None, "batch", "batch"),
        ("online", "batch", "online"),
        ("batch", "online", "batch"),
    ],
)
def test_the_lane_of_a_schedule_overrides_the_profile(
    settings: Settings,
    provider: BatchProvider,
    folder: Path,
    of_schedule: str | None,
    of_profile: str,
    expected: str,
) -> None:
    """A schedule without a lane uses that of the profile."""
    profile = ProfileSettings.model_validate({"lane": of_profile})
    named = settings.model_copy(update={"profiles": {"letters": profile}})
    schedule = nightly(folder, profile="letters", lane=of_schedule)
    scheduler = a_scheduler_over(opened(named, provider), nightly=schedule)

    complete_occurrence(scheduler)

    assert scheduler.rows(RUNS) == [(expected, "nightly", 3)]
    assert len(handed_in(provider)) == (3 if expected == "batch" else 0)


def test_stale_results_are_refreshed_in_batches(
    settings: Settings, provider: BatchProvider
) -> None:
    schedule = reanalysis(lane="batch")
    scheduler = a_scheduler_after_stale_runs(
        settings, provider, schedule, Lane.ONLINE, Lane.BATCH, Lane.ONLINE
    )
    asked_online = len(scheduler.pipeline.model.requests)

    complete_occurrence(scheduler)

    assert scheduler.rows(RUNS) == [("batch", "nightly", 3)]
    assert scheduler.rows(COSTS) == [("batch", Decimal("0.01"))]
    assert len(scheduler.pipeline.model.requests) == asked_online


@pytest.mark.parametrize(
    ("lane", "runs"),
    [
        (None, [("batch", "nightly", 2), ("online", "nightly", 1)]),
        ("online", [("online", "nightly", 3)]),
    ],
)
def test_stale_results_keep_their_lane_unless_the_schedule_has_one(
    settings: Settings, provider: BatchProvider, lane: str | None, runs: list[object]
) -> None:
    schedule = reanalysis(lane=lane)
    scheduler = a_scheduler_after_stale_runs(
        settings, provider, schedule, Lane.ONLINE, Lane.BATCH, Lane.BATCH
    )

    complete_occurrence(scheduler)

    assert scheduler.rows(RUNS) == runs


WANTED = ScheduleSettings.model_validate({"cron": "0 3 * * *", "kind": "reanalyze"})
OUTCOME = "SELECT status, outcome FROM schedule_runs ORDER BY due_at DESC LIMIT 1"


def a_due_scheduler(settings: Settings) -> FakeScheduler:
    """Return a scheduler that is due after two runs with outdated prompts."""
    scheduler = a_scheduler(settings, quoting_the_text, repeat_last=True, again=WANTED)
    other = a_run(analysis=AnalysisOptions(instructions="Look for carts."))
    for texts, options in ((TEXTS, a_run()), (TEXTS[:1], other)):
        scheduler.pipeline.analyze(*texts, options=options)
    for statement in STALE:
        scheduler.pipeline.execute(statement)
    scheduler.start_at("2026-03-28T04:01")
    return scheduler


def test_stale_results_are_refreshed(settings: Settings) -> None:
    """Each question has a run with its options; the account of each balances."""
    scheduler = a_due_scheduler(settings)

    scheduler.carry_out()
    scheduler.work()
    scheduler.tick()

    expected = {"found": 4, "questions": 2, "unknown_models": 0, "jobs": {"succeeded": 4}}
    assert scheduler.rows(OUTCOME) == [("succeeded", expected)]
    assert scheduler.rows(
        "SELECT accepted, intakes_balance, jobs_balance FROM run_accounts AS a"
        " JOIN runs AS r ON r.id = a.run_id WHERE r.schedule_run_id IS NOT NULL ORDER BY 1"
    ) == [(1, True, True), (3, True, True)]
    assert scheduler.rows(
        "SELECT j.options ->> 'instructions', count(*) FROM jobs AS j JOIN runs AS r"
        " ON r.id = j.run_id WHERE r.schedule_run_id IS NOT NULL GROUP BY 1 ORDER BY 1"
    ) == [("", 3), ("Look for carts.", 1)]
    assert scheduler.rows("SELECT count(*) FROM documents") == [(3,)]


def test_the_next_night_does_not_refresh_again(settings: Settings) -> None:
    """Old results stay stale in the view; one refresh is enough, even if it fails."""
    scheduler = a_due_scheduler(settings)
    scheduler.carry_out()
    scheduler.pipeline.execute("UPDATE jobs SET status = 'failed' WHERE status = 'running'")
    scheduler.pipeline.execute("UPDATE runs SET status = 'finished'")
    scheduler.tick()
    scheduler.start_at("2026-03-29T05:01")

    scheduler.carry_out()

    expected = {"found": 0, "questions": 2, "unknown_models": 0}
    assert scheduler.rows(OUTCOME) == [("succeeded", expected)]


def test_a_removed_model_is_counted(settings: Settings) -> None:
    """The other questions are asked nevertheless."""
    scheduler = a_due_scheduler(settings)
    scheduler.pipeline.execute(
        "UPDATE jobs SET model = 'gone' WHERE options ->> 'instructions' = 'Look for carts.'"
    )

    scheduler.carry_out()

    expected = {"found": 3, "questions": 2, "unknown_models": 1}
    assert scheduler.rows(OUTCOME) == [("waiting", expected)]


def test_an_interrupted_refresh_continues(settings: Settings) -> None:
    """Questions asked before the kill are not repeated, and the account balances."""
    scheduler = a_due_scheduler(settings)
    looks = iter([False, False, True])
    work = scheduler.runner()
    work._is_stopped = lambda: next(looks)
    work.work()
    assert scheduler.rows("SELECT status FROM schedule_runs") == [("due",)]

    scheduler.carry_out()
    scheduler.work()
    scheduler.tick()

    assert scheduler.rows("SELECT status, outcome -> 'jobs' FROM schedule_runs") == [
        ("succeeded", {"succeeded": 4})
    ]
    assert scheduler.rows(
        "SELECT bool_and(intakes_balance AND jobs_balance) FROM run_accounts"
    ) == [(True,)]


def test_without_stale_results_there_is_nothing_to_do(settings: Settings) -> None:
    scheduler = a_scheduler(settings, quoting_the_text, repeat_last=True, again=WANTED)
    scheduler.pipeline.analyze(*TEXTS)
    scheduler.start_at("2026-03-28T04:01")

    scheduler.carry_out()

    assert scheduler.rows("SELECT count(*) FROM runs") == [(1,)]
    assert scheduler.rows("SELECT status FROM schedule_runs") == [("succeeded",)]


STATE = "SELECT status, error_code, error_message, hint FROM schedule_runs ORDER BY due_at LIMIT 1"
WHY = "The budget of the run is spent."


@pytest.fixture
def paused(settings: Settings, tmp_path: Path) -> FakeScheduler:
    """Return a scheduler whose run was paused because its budget is used up."""
    (tmp_path / "letter.txt").write_text("The bridge was opened in May 1902.", "utf-8")
    script = (BudgetExceededError(WHY, "Raise it."), quoting_the_text)
    scheduler = a_scheduler(settings, *script, repeat_last=True, nightly=nightly(tmp_path))
    scheduler.start_at("2026-03-28T02:31")
    assert scheduler.carry_out()
    scheduler.work()
    assert scheduler.rows("SELECT status FROM runs") == [("paused",)]
    scheduler.tick()
    return scheduler


def test_the_history_shows_a_paused_run_and_the_reason(paused: FakeScheduler) -> None:
    """It does so long before the occurrence expires; its run can still be retried then."""
    ((status, code, message, hint),) = paused.rows(STATE)
    ((run,),) = paused.rows("SELECT name FROM runs")
    assert (status, code) == ("waiting", "paused")
    assert message == f"Its run {run} is paused: {WHY}"
    assert f"chordwise retry {run}" in str(hint)

    paused.now += A_DAY
    assert paused.tick() == 1

    assert [status for *_, status in paused.history()] == ["expired", "due"]
    ((_, code, message, _),) = paused.rows(STATE)
    assert code == "paused"
    assert WHY in str(message)
    assert paused.rows("SELECT status FROM runs") == [("paused",)]


def test_a_resumed_occurrence_ends_like_any_other(paused: FakeScheduler) -> None:
    ((run_id,),) = paused.rows("SELECT id FROM runs")
    retry(paused.pipeline.context, UUID(str(run_id)))
    paused.tick()
    assert paused.rows(STATE) == [("waiting", None, None, None)]

    paused.work()
    paused.tick()

    assert paused.rows(STATE) == [("succeeded", None, None, None)]


def test_an_occurrence_that_ends_just_in_time_has_succeeded(paused: FakeScheduler) -> None:
    """A late check does not treat finished work as expired."""
    ((run_id,),) = paused.rows("SELECT id FROM runs")
    retry(paused.pipeline.context, UUID(str(run_id)))
    paused.work()
    paused.now += A_DAY

    paused.tick()

    assert [status for *_, status in paused.history()] == ["succeeded", "due"]


def test_a_run_that_is_just_resuming_does_not_block_schedules(paused: FakeScheduler) -> None:
    """Its job is not paused any more, but its run still is: no reason is recorded."""
    pipeline = paused.pipeline
    pipeline.execute("UPDATE schedule_runs SET error_code = NULL, error_message = NULL")
    pipeline.execute("UPDATE jobs SET status = 'synthesizing'")

    paused.tick()

    ((status, code, *_),) = paused.rows(STATE)
    assert (status, code) == ("waiting", None)
