"""A due schedule goes through a Batch API at half the price, where it or its profile says so."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from chordwise.domain.states import Lane
from chordwise.settings import ProfileSettings, ScheduleSettings, Settings
from tests.fakes.batch_nights import handed_in, in_batches, judge, opened, pass_time
from tests.fakes.pipeline import a_run
from tests.fakes.scheduling import Night, a_night_over, nightly
from tests.peers.batch_provider import BatchProvider

TEXTS = tuple(f"The bridge was opened in May 190{year}. Carts crossed it." for year in range(3))
STALE = (
    "UPDATE results SET prompt_version = 'summary.analyze@0'",
    "UPDATE jobs SET options_hash = 'of the older prompt'",
    "DELETE FROM cached_completions",  # a newer prompt is another question
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
def server() -> BatchProvider:
    """Return the provider of the Batch API."""
    return BatchProvider()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with three letters in it."""
    made = tmp_path / "letters"
    made.mkdir()
    for number, text in enumerate(TEXTS):
        (made / f"{number}.txt").write_text(text, "utf-8")
    return made


def anew(**values: object) -> ScheduleSettings:
    """Return a schedule that asks anew what is stale, at half past two in Berlin."""
    given = {"cron": "30 2 * * *", "time_zone": "Europe/Berlin", "kind": "reanalyze", **values}
    return ScheduleSettings.model_validate(given)


def a_stale_night(
    settings: Settings, server: BatchProvider, schedule: ScheduleSettings, *lanes: Lane
) -> Night:
    """Return a night after a run in each of these lanes, whose prompts have become old."""
    night = a_night_over(opened(settings, server), nightly=schedule)
    for lane, text in zip(lanes, TEXTS, strict=False):
        options = in_batches() if lane is Lane.BATCH else a_run()
        night.pipeline.submit(text, options=options)
    work_in_batches(night)
    for statement in STALE:
        night.pipeline.execute(statement)
    return night


def work_in_batches(night: Night) -> None:
    """Work and let the batches come back, until nothing waits any more."""
    for _ in range(4):
        for (job_id,) in night.rows("SELECT id FROM jobs WHERE finished_at IS NULL ORDER BY id"):
            night.pipeline.work_on(job_id)  # type: ignore[arg-type]  # a UUID, says the table
        pass_time(night.pipeline)


def let_it_be_due(night: Night) -> None:
    """Do what is due at half past two, to its end."""
    night.sleep_until("2026-03-28T02:30:05")
    assert night.tick() == 1
    assert night.carry_out()
    work_in_batches(night)
    night.tick()
    assert night.history() == [("28 02:30", "clock", "succeeded")]


def test_an_analysis_goes_through_batches(
    settings: Settings, server: BatchProvider, folder: Path
) -> None:
    """Although its profile says nothing of them: all questions in one batch, at half the price."""
    night = a_night_over(opened(settings, server), nightly=nightly(folder, lane="batch"))

    let_it_be_due(night)

    assert night.rows(RUNS) == [("batch", "nightly", 3)]
    assert [len(batch.lines) for batch in server.batches] == [3]
    assert night.rows(COSTS) == [("batch", Decimal("0.01"))]
    assert night.pipeline.model.requests == []
    judge(night.pipeline, server)


@pytest.mark.parametrize(
    ("of_schedule", "of_profile", "expected"),
    [
        (None, "batch", "batch"),
        (None, "online", "online"),
        ("online", "batch", "online"),
        ("batch", "online", "batch"),
    ],
)
def test_the_schedule_goes_before_the_profile(
    settings: Settings,
    server: BatchProvider,
    folder: Path,
    of_schedule: str | None,
    of_profile: str,
    expected: str,
) -> None:
    """In both directions; without a lane of its own the profile's holds."""
    profile = ProfileSettings.model_validate({"lane": of_profile})
    named = settings.model_copy(update={"profiles": {"letters": profile}})
    schedule = nightly(folder, profile="letters", lane=of_schedule)
    night = a_night_over(opened(named, server), nightly=schedule)

    let_it_be_due(night)

    assert night.rows(RUNS) == [(expected, "nightly", 3)]
    assert len(handed_in(server)) == (3 if expected == "batch" else 0)


def test_what_is_stale_goes_through_batches(settings: Settings, server: BatchProvider) -> None:
    """However it was asked before: one run, at half the price."""
    schedule = anew(lane="batch")
    night = a_stale_night(settings, server, schedule, Lane.ONLINE, Lane.BATCH, Lane.ONLINE)
    asked_online = len(night.pipeline.model.requests)

    let_it_be_due(night)

    assert night.rows(RUNS) == [("batch", "nightly", 3)]
    assert night.rows(COSTS) == [("batch", Decimal("0.01"))]
    assert len(night.pipeline.model.requests) == asked_online


def test_what_is_stale_goes_as_it_went_before(settings: Settings, server: BatchProvider) -> None:
    """Without a lane of the schedule: a run for each, and a night in batches stays one."""
    night = a_stale_night(settings, server, anew(), Lane.ONLINE, Lane.BATCH, Lane.BATCH)

    let_it_be_due(night)

    assert night.rows(RUNS) == [("batch", "nightly", 2), ("online", "nightly", 1)]


def test_what_is_stale_may_be_asked_online(settings: Settings, server: BatchProvider) -> None:
    """Where the schedule says so."""
    schedule = anew(lane="online")
    night = a_stale_night(settings, server, schedule, Lane.ONLINE, Lane.BATCH)

    let_it_be_due(night)

    assert night.rows(RUNS) == [("online", "nightly", 2)]


def test_a_model_without_batches_is_asked_online(
    settings: Settings, server: BatchProvider, folder: Path
) -> None:
    """And the run says so."""
    night = a_night_over(opened(settings, server), nightly=nightly(folder, lane="batch"))
    context = night.pipeline.context
    without = {
        name: model.model_copy(update={"batch": False})
        for name, model in context.settings.models.items()
    }
    changed = context.settings.model_copy(update={"models": without})
    night.pipeline = replace(night.pipeline, context=replace(context, settings=changed))

    let_it_be_due(night)

    assert night.rows(RUNS) == [("online", "nightly", 3)]
    assert handed_in(server) == []
