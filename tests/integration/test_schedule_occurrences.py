"""Tests that each due time starts one occurrence, also after downtimes and clock changes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import structlog

from chordwise.errors import UsageError
from chordwise.pipeline.schedules import occurrences
from chordwise.relations.schedules import OCCURRENCES
from chordwise.settings import Settings
from chordwise.storage.database import driver
from chordwise.storage.schedules import ScheduleOrigin
from tests.fakes.scheduling import A_DAY, FakeScheduler, a_scheduler, at_night, nightly

NEXT = (
    "SELECT to_char(next_due_at AT TIME ZONE 'Europe/Berlin', 'DD HH24:MI')"
    " FROM schedules WHERE enabled"
)
SKIPPED = "SELECT error_code FROM schedule_runs WHERE status = 'skipped'"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "letters"
    made.mkdir()
    (made / "letter.txt").write_text("The bridge was opened in May.", "utf-8")
    return made


def start_now(scheduler: FakeScheduler, name: str = "nightly") -> None:
    with scheduler.pipeline.context.database.write() as session:
        occurrences.start_now(session, name, scheduler.now)


def test_concurrent_schedulers_start_an_occurrence_once(settings: Settings, folder: Path) -> None:
    scheduler = a_scheduler(settings, nightly=nightly(folder, cron="30 * * * *"))
    barrier = threading.Barrier(4)
    started: list[int] = []

    def look(_: int) -> None:
        for _ in range(6):
            barrier.wait(10)
            started.append(scheduler.tick())
            if barrier.wait(10) == 0:
                scheduler.now += A_DAY / 24
                scheduler.pipeline.execute("UPDATE schedule_runs SET status = 'succeeded'")
            barrier.wait(10)

    scheduler.sleep_until("2026-03-28T04:31")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(look, range(4)))

    assert len(started) == 24
    assert sum(started) == 6
    assert scheduler.rows("SELECT count(*), count(DISTINCT due_at) FROM schedule_runs") == [(6, 6)]


def test_a_time_skipped_in_spring_has_an_occurrence(settings: Settings, folder: Path) -> None:
    """On 29 March 2026 there is no 02:30 in Berlin, and it is due at three."""
    scheduler = a_scheduler(settings, nightly=nightly(folder))

    for local in ("2026-03-28T02:31", "2026-03-29T03:01", "2026-03-30T02:31"):
        scheduler.sleep_until(local)
        scheduler.tick()
        scheduler.pipeline.execute("UPDATE schedule_runs SET status = 'succeeded'")

    expected = [(f"{day}", "clock", "succeeded") for day in ("28 02:30", "29 03:00", "30 02:30")]
    assert scheduler.history() == expected


def test_a_time_repeated_in_autumn_has_one_occurrence(settings: Settings, folder: Path) -> None:
    """On 25 October 2026 there are two 02:30 in Berlin; the scheduler ticks every ten minutes."""
    scheduler = a_scheduler(settings, nightly=nightly(folder))
    scheduler.sleep_until("2026-10-24T12:00")
    scheduler.pipeline.execute("UPDATE schedules SET next_due_at = '2026-10-25T02:30+02'")

    for _ in range(24 * 6 + 1):
        scheduler.now += A_DAY / 144
        scheduler.tick()

    assert scheduler.history() == [("25 02:30", "clock", "due")]
    assert scheduler.rows(NEXT) == [("26 02:30",)]


@pytest.mark.parametrize("hours", [20, 9])
def test_missed_nights_are_caught_up_once(settings: Settings, folder: Path, hours: int) -> None:
    """A change of anything but the due times keeps those that were missed."""
    scheduler = a_scheduler(settings, nightly=nightly(folder, expires_after_hours=20))
    scheduler.sleep_until("2026-03-28T02:29:59")
    assert scheduler.tick() == 0
    assert (scheduler.history(), scheduler.rows(NEXT)) == ([], [("28 02:30",)])

    scheduler.sleep_until("2026-04-02T09:00")
    changed = {"nightly": nightly(folder, expires_after_hours=hours)}
    scheduler.pipeline.context.settings.__dict__["schedules"] = changed
    scheduler.synchronize()

    assert (scheduler.tick(), scheduler.tick()) == (1, 0)
    assert scheduler.history() == [("02 02:30", "catch_up", "due")]
    assert scheduler.rows(NEXT) == [("03 02:30",)]
    assert scheduler.rows("SELECT expires_after_hours FROM schedules") == [(hours,)]


def test_missed_nights_may_be_skipped(settings: Settings, folder: Path) -> None:
    scheduler = a_scheduler(settings, nightly=nightly(folder, catch_up="none"))
    scheduler.sleep_until("2026-04-02T09:00")

    assert scheduler.tick() == 0
    scheduler.start_at("2026-04-03T02:35")

    skipped, due = scheduler.history()
    assert (skipped, due) == (("02 02:30", "catch_up", "skipped"), ("03 02:30", "clock", "due"))
    assert scheduler.rows(SKIPPED) == [("missed",)]


def test_no_occurrence_starts_while_another_is_running(settings: Settings, folder: Path) -> None:
    scheduler = a_scheduler(settings, nightly=nightly(folder, expires_after_hours=72))
    scheduler.start_at("2026-03-28T02:31")
    scheduler.now += A_DAY

    assert scheduler.tick() == 0
    with pytest.raises(UsageError, match="is running"):
        start_now(scheduler)

    assert [status for *_, status in scheduler.history()] == ["due", "skipped"]
    assert scheduler.rows(SKIPPED) == [("still_running",)]


def test_an_expired_occurrence_does_not_block_the_next(settings: Settings, folder: Path) -> None:
    """The scheduler that still runs the expired one has lost its lease."""
    scheduler = a_scheduler(settings, nightly=nightly(folder, expires_after_hours=20))
    scheduler.start_at("2026-03-28T02:31")
    scheduler.pipeline.execute("UPDATE schedule_runs SET status = 'running'")
    scheduler.now += A_DAY

    assert scheduler.tick() == 1

    ended = "SELECT status, finished_at IS NOT NULL FROM schedule_runs ORDER BY due_at"
    assert scheduler.rows(ended) == [("expired", True), ("due", False)]


def test_a_changed_schedule_applies_from_then_on(settings: Settings, folder: Path) -> None:
    scheduler = a_scheduler(settings, nightly=nightly(folder), other=nightly(folder))
    later = scheduler.pipeline.context.settings
    changed = {"nightly": nightly(folder, cron="0 5 * * *"), "third": at_night("prune --runs 9")}
    scheduler.sleep_until("2026-03-28T04:00")

    later.__dict__["schedules"] = changed
    scheduler.synchronize()

    assert scheduler.tick() == 0
    rows = scheduler.rows(
        "SELECT name, enabled, to_char(next_due_at AT TIME ZONE 'Europe/Berlin', 'DD HH24:MI')"
        " FROM schedules ORDER BY name"
    )
    assert rows == [
        ("nightly", True, "28 05:00"),
        ("other", False, None),
        ("third", True, "29 03:00"),
    ]


def test_stored_schedules_outlive_the_configuration(settings: Settings, folder: Path) -> None:
    scheduler = a_scheduler(settings, ours=nightly(folder))
    database = scheduler.pipeline.context.database
    schedule, added = nightly(folder), ScheduleOrigin.DATABASE

    with database.write() as session:
        occurrences.define(session, "theirs", schedule, folder, added, scheduler.now)
    scheduler.synchronize()
    with database.write() as session, pytest.raises(UsageError, match="in the configuration"):
        occurrences.remove(session, "ours")
    with (
        pytest.raises(UsageError, match="configuration has a schedule"),
        database.write() as session,
    ):
        occurrences.define(session, "ours", schedule, folder, added, scheduler.now)
    start_now(scheduler, "theirs")
    with database.write() as session:
        occurrences.remove(session, "theirs")

    assert scheduler.rows("SELECT name, enabled FROM schedules ORDER BY name") == [
        ("ours", True),
        ("theirs", False),
    ]
    with database.read() as session:
        rows = OCCURRENCES.read(driver(session), {"schedule": "theirs"})
        assert [row["trigger"] for row in rows] == ["command"]


def test_an_unreadable_schedule_is_reported_once(settings: Settings, folder: Path) -> None:
    """It does not stop the others."""
    scheduler = a_scheduler(settings, broken=nightly(folder), good=nightly(folder))
    told: list[object] = []
    for change in ("run = 'dance'", "run = 'dance'", "run = 'prune', cron = '0 2 * *'"):
        broken = f"UPDATE schedules SET {change} WHERE name = 'broken'"  # noqa: S608 - ours
        scheduler.pipeline.execute(broken)
        scheduler.sleep_until("2026-03-28T02:31")

        with structlog.testing.capture_logs() as lines:
            assert scheduler.tick() == (not told)

        told.append([line["schedule"] for line in lines if line["event"] == "schedule.defect"])

    assert told == [["broken"], [], ["broken"]]
    assert scheduler.rows("SELECT schedule FROM schedule_runs") == [("good",)]
    with pytest.raises(UsageError, match=r"cannot be read: cron: .* 4 fields"):
        start_now(scheduler, "broken")
