"""Schedules over the database of the test, with a clock that the test sets."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from chordwise.cli.scheduled import CommandExecutor
from chordwise.domain.failure_backoff import FailureBackoff
from chordwise.pipeline.schedules import occurrences
from chordwise.pipeline.schedules.occurrences import ScheduleRunner
from chordwise.settings import ScheduleSettings, Settings
from tests.fakes.pipeline import Pipeline, a_pipeline
from tests.fakes.scripted_model import Line

BERLIN = ZoneInfo("Europe/Berlin")
UNDONE = "SELECT id FROM jobs WHERE status IN ('queued', 'running') ORDER BY id"
EVENING = datetime(2026, 3, 27, 18, tzinfo=UTC)
OUTCOME = "SELECT status, error_code, outcome FROM schedule_runs ORDER BY due_at DESC LIMIT 1"


@dataclass(slots=True, kw_only=True)
class FakeScheduler:
    """A scheduler whose clock only the test advances."""

    pipeline: Pipeline
    now: datetime = EVENING
    stopped: bool = field(default=False)
    failures: FailureBackoff = field(default_factory=FailureBackoff)

    def read_clock(self, _session: Session) -> datetime:
        return self.now

    def synchronize(self) -> None:
        """Synchronize the schedules, as a scheduler does when it becomes the leader."""
        occurrences.synchronize(self.pipeline.context, self.read_clock)

    def tick(self) -> int:
        return occurrences.tick(self.pipeline.context, self.read_clock, self.failures)

    def sleep_until(self, local: str) -> None:
        """Set the clock to a time in Berlin."""
        self.now = datetime.fromisoformat(local).replace(tzinfo=BERLIN).astimezone(UTC)

    def start_at(self, local: str) -> None:
        """Set the clock to a time in Berlin at which one occurrence starts."""
        self.sleep_until(local)
        assert self.tick() == 1

    def carry_out(self) -> bool:
        """Do one iteration of a scheduler's thread."""
        return self.runner().work()

    def runner(self) -> ScheduleRunner:
        context = self.pipeline.context
        executor = CommandExecutor(context.settings)
        return ScheduleRunner(context, executor.execute, lambda: self.stopped)

    def work(self) -> None:
        """Do the work of the workers for all jobs."""
        for (job_id,) in self.rows(UNDONE):
            self.pipeline.work_on(job_id)  # type: ignore[arg-type]  # a UUID by the table

    def rows(self, query: str) -> list[tuple[object, ...]]:
        return self.pipeline.rows(query)

    def history(self) -> list[tuple[object, ...]]:
        """Return the trigger and the status of each due time, in Berlin's time."""
        return self.rows(
            "SELECT to_char(due_at AT TIME ZONE 'Europe/Berlin', 'DD HH24:MI'), trigger, status"
            " FROM schedule_runs ORDER BY due_at"
        )


def a_scheduler(
    settings: Settings, *script: Line, repeat_last: bool = False, **schedules: ScheduleSettings
) -> FakeScheduler:
    """Return a scheduler with these schedules that has just become the leader, in the evening."""
    return a_scheduler_over(a_pipeline(settings, *script, repeat_last=repeat_last), **schedules)


def a_scheduler_over(pipeline: Pipeline, **schedules: ScheduleSettings) -> FakeScheduler:
    changed = pipeline.context.settings.model_copy(
        update={"schedules": schedules, "model": "scripted"}
    )
    scheduler = FakeScheduler(
        pipeline=replace(pipeline, context=replace(pipeline.context, settings=changed))
    )
    scheduler.synchronize()
    return scheduler


def at_night(run: str, **values: object) -> ScheduleSettings:
    """Return a schedule at half past two in Berlin."""
    options = {"cron": "30 2 * * *", "time_zone": "Europe/Berlin", "run": run, **values}
    return ScheduleSettings.model_validate(options)


def nightly(path: Path, options: str = "", **values: object) -> ScheduleSettings:
    """Return a schedule that analyzes a folder at half past two in Berlin."""
    return at_night(f"submit {shlex.quote(str(path))} --nightly {options}", **values)


A_DAY = timedelta(days=1)
