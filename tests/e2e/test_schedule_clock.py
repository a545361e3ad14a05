"""Real schedulers under a driven clock: through both changes of the hour, and after missed nights.

Schedules go by the database's clock. Here the functions that tell its time are masked by ones that
tell the test's, so that nothing in the processes is other than in production.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import count
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from tests.e2e.conftest import Stage
from tests.fakes.configuration import configuration
from tests.fakes.processes import kill

BERLIN = ZoneInfo("Europe/Berlin")
A_DAY = timedelta(days=1)
LETTERS = 3
SCHEDULES = """
[schedules.nightly]
cron = "30 2 * * *"
time_zone = "Europe/Berlin"
paths = ["letters"]

[schedules.answers]
cron = "*/30 * * * *"
kind = "export"
view = "document_results"
folder = "answers"
"""
MASK = """
CREATE TABLE driven_clock (ahead interval NOT NULL);

INSERT INTO driven_clock VALUES ('0');

CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS 'SELECT pg_catalog.clock_timestamp() + ahead FROM driven_clock';

CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql STABLE
    AS 'SELECT pg_catalog.now() + ahead FROM driven_clock';

DO $$ BEGIN
    EXECUTE 'ALTER DATABASE ' || quote_ident(current_database())
        || ' SET search_path = public, pg_catalog';
END $$
"""
HISTORY = (
    "SELECT string_agg(to_char(due_at AT TIME ZONE 'Europe/Berlin', 'YYYY-MM-DD HH24:MI') || ' ' ||"
    " trigger || ' ' || status, ', ' ORDER BY due_at) FROM schedule_runs WHERE schedule = 'nightly'"
)
DONE = (
    "SELECT count(*) = {nights} FROM schedule_runs"
    " WHERE schedule = 'nightly' AND status = 'succeeded'"
)
EXPORTED = (
    "SELECT count(*) = 1 FROM schedule_runs"
    " WHERE schedule = 'answers' AND due_at = '{due_at}' AND status = 'succeeded'"
)


@pytest.fixture
def stage_at_night(stage: Stage) -> Stage:
    """Write letters and schedules, and take the clock into the test's hands."""
    for folder in ("letters", "answers"):
        (stage.folder / folder).mkdir()
    for number in range(LETTERS):
        letter = f"Letter {number}: the bridge was opened in the year {1700 + number}."
        (stage.folder / "letters" / f"{number}.txt").write_text(letter, "utf-8")
    written = configuration(stage.provider.base_url, pipeline="stalled_seconds = 4", more=SCHEDULES)
    (stage.folder / "chordwise.toml").write_text(written, "utf-8")
    stage.provider.delay_seconds = 0.01
    with stage.engine.begin() as connection:
        for statement in MASK.split("\n\n"):
            connection.exec_driver_sql(statement)
    return stage


def drive(stage: Stage, moment: datetime) -> None:
    """Let every clock of the database show a moment, and go on from there."""
    change = text("UPDATE driven_clock SET ahead = :moment - pg_catalog.clock_timestamp()")
    with stage.engine.begin() as connection:
        connection.execute(change, {"moment": moment})


def days_from(first: date) -> Iterator[date]:
    return (first + number * A_DAY for number in count())


def day_of_change(after: date, hours: int) -> date:
    """Return the first later day on which Berlin's clock changes by so many hours."""
    noons = ((day, local(day, 12)) for day in days_from(after))
    return next(
        day
        for day, noon in noons
        if (noon.utcoffset() or A_DAY) - (local(day - A_DAY, 12).utcoffset() or A_DAY)
        == timedelta(hours=hours)
    )


def local(day: date, hour: int, minute: int = 0, fold: int = 0) -> datetime:
    """Return five seconds after a time of day in Berlin."""
    return datetime.combine(day, time(hour, minute, 5, fold=fold), BERLIN)


def exported_at(stage: Stage, moment: datetime) -> Path:
    """Wait for the export that was due just before a moment; return its file."""
    due_at = moment.astimezone(UTC).replace(second=0)
    stage.wait_for(EXPORTED.format(due_at=due_at.isoformat()), 60)
    return stage.folder / "answers" / f"answers-{due_at:%Y%m%d-%H%M}.csv"


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_through_both_changes_of_the_clock_and_missed_nights(stage_at_night: Stage) -> None:
    """Half past two comes once: after the gap, after three nights without anybody, and of two."""
    stage = stage_at_night
    today = datetime.now(BERLIN).date()  # noqa: TID251 - clocks are driven forward only
    spring = day_of_change(today + A_DAY, 1)
    autumn = day_of_change(spring, -1)
    drive(stage, local(spring - A_DAY, 20, 10))
    first = stage.processes.start("scheduler")
    stage.processes.start("worker")
    stage.wait_for("SELECT count(*) = 2 FROM schedules WHERE enabled")

    drive(stage, local(spring, 3))
    stage.wait_for(DONE.format(nights=1), 120)

    kill(first)
    drive(stage, local(spring + 3 * A_DAY, 9, 10))
    stage.processes.start("scheduler")
    stage.processes.start("scheduler")
    stage.wait_for(DONE.format(nights=2), 120)

    drive(stage, local(autumn, 2, 30))
    stage.wait_for(DONE.format(nights=3), 120)
    drive(stage, local(autumn, 2, 30, fold=1))
    written = exported_at(stage, local(autumn, 2, 30, fold=1))

    assert stage.value(HISTORY) == (
        f"{spring} 03:00 clock succeeded, {spring + 3 * A_DAY} 02:30 catch_up succeeded, "
        f"{autumn} 02:30 catch_up succeeded"
    )
    assert stage.value("SELECT next_due_at FROM schedules WHERE name = 'nightly'") == local(
        autumn + A_DAY, 2, 30
    ).replace(second=0)
    assert len(written.read_text("utf-8").splitlines()) == 1 + 3 * LETTERS
    assert stage.count("SELECT count(*) FROM model_calls WHERE NOT cache_hit") == LETTERS
    assert stage.count("SELECT count(*) FROM runs WHERE schedule_run_id IS NOT NULL") == 3
    assert "Traceback" not in stage.processes.logs()
