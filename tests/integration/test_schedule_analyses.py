"""Tests of schedules that analyze or refresh: their lanes, and what they wait for."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest

from chordwise.errors import BudgetExceededError
from chordwise.pipeline.jobs.run_control import retry
from chordwise.settings import Profile, Settings
from tests.fakes.batch_nights import check_invariants, handed_in, opened, pass_time
from tests.fakes.pipeline import SCRIPTED, quoting_the_text
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
AGAIN = (
    "SELECT status, outcome -> 'jobs' FROM schedule_runs WHERE schedule = 'again'"
    " ORDER BY due_at DESC LIMIT 1"
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


def work_in_batches(scheduler: FakeScheduler) -> None:
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


def test_a_schedule_uses_batches(settings: Settings, provider: BatchProvider, folder: Path) -> None:
    scheduler = a_scheduler_over(
        opened(settings, provider), nightly=nightly(folder, "--lane batch")
    )

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
    profile = Profile.model_validate({"lane": of_profile})
    changed = settings.model_copy(update={"profiles": {"letters": profile}})
    lane = f"--lane {of_schedule}" if of_schedule else ""
    schedule = nightly(folder, f"--profile letters {lane}")
    scheduler = a_scheduler_over(opened(changed, provider), nightly=schedule)

    complete_occurrence(scheduler)

    assert scheduler.rows(RUNS) == [(expected, "nightly", 3)]
    assert len(handed_in(provider)) == (3 if expected == "batch" else 0)


def test_a_scheduled_refresh_renews_stale_answers(settings: Settings, folder: Path) -> None:
    """The next night does not refresh again."""
    profiles = {"letters": Profile(model=SCRIPTED)}
    scheduler = a_scheduler(
        settings.model_copy(update={"profiles": profiles}),
        quoting_the_text,
        repeat_last=True,
        nightly=nightly(folder, "--profile letters"),
        again=at_night("refresh --profile letters", cron="30 3 * * *"),
    )
    scheduler.start_at("2026-03-28T02:31")
    scheduler.carry_out()
    scheduler.work()
    for statement in STALE:
        scheduler.pipeline.execute(statement)
    scheduler.start_at("2026-03-28T03:31")

    scheduler.carry_out()
    assert scheduler.rows(AGAIN) == [("waiting", None)]
    scheduler.work()
    scheduler.tick()

    assert scheduler.rows(RUNS) == [("online", "nightly", 3)] * 2
    assert scheduler.rows(AGAIN) == [("succeeded", {"succeeded": 3})]
    assert scheduler.rows("SELECT count(*) FROM documents") == [(3,)]
    scheduler.pipeline.execute("UPDATE schedules SET enabled = false WHERE name = 'nightly'")
    scheduler.start_at("2026-03-29T04:01")
    scheduler.carry_out()
    assert [status for *_, status in scheduler.history()] == ["succeeded"] * 3
    assert scheduler.rows("SELECT count(*) FROM runs") == [(2,)]


STATE = "SELECT status, error_code, error_message, hint FROM schedule_runs ORDER BY due_at LIMIT 1"
WHY = "The budget of the run is spent."


@pytest.fixture
def paused(settings: Settings, tmp_path: Path) -> FakeScheduler:
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
    ((status, code, message, hint),) = paused.rows(STATE)
    ((run,),) = paused.rows("SELECT name FROM runs")
    assert (status, code) == ("waiting", "paused")
    assert message == f"Its run {run} is paused: {WHY}"
    assert f"chordwise continue {run}" in str(hint)

    paused.now += A_DAY
    assert paused.tick() == 1

    assert [status for *_, status in paused.history()] == ["expired", "due"]
    ((_, code, message, _),) = paused.rows(STATE)
    assert code == "paused"
    assert WHY in str(message)
    assert paused.rows("SELECT status FROM runs") == [("paused",)]


@pytest.mark.parametrize("is_just_in_time", [False, True])
def test_a_resumed_occurrence_ends_like_any_other(
    paused: FakeScheduler,
    is_just_in_time: bool,  # noqa: FBT001 - a parameter
) -> None:
    ((run_id,),) = paused.rows("SELECT id FROM runs")
    retry(paused.pipeline.context, UUID(str(run_id)))
    if not is_just_in_time:
        paused.tick()
        assert paused.rows(STATE) == [("waiting", None, None, None)]

    paused.work()
    paused.now += A_DAY * is_just_in_time
    paused.tick()

    assert paused.history()[0][-1] == "succeeded"
    assert is_just_in_time or paused.rows(STATE) == [("succeeded", None, None, None)]


def test_a_run_that_is_just_resuming_does_not_block_schedules(paused: FakeScheduler) -> None:
    """Its job is not paused any more, but its run still is: no reason is recorded."""
    pipeline = paused.pipeline
    pipeline.execute("UPDATE schedule_runs SET error_code = NULL, error_message = NULL")
    pipeline.execute("UPDATE jobs SET status = 'synthesizing'")

    paused.tick()

    ((status, code, *_),) = paused.rows(STATE)
    assert (status, code) == ("waiting", None)
