"""Tests that each due time has one occurrence, which ends with its runs.

This also holds after downtimes, clock changes and kills.
"""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import structlog

from chordwise.errors import UsageError
from chordwise.pipeline.intake import document_batches, submit
from chordwise.pipeline.intake.submit import Submission
from chordwise.pipeline.schedules import occurrences
from chordwise.pipeline.schedules.occurrences import MAX_ATTEMPTS
from chordwise.settings import Profile, ScheduleSettings, Settings
from chordwise.storage import schedules
from chordwise.storage.database import driver
from chordwise.storage.schedules import ScheduleOrigin
from tests.fakes.pipeline import SCRIPTED, quoting_the_text
from tests.fakes.processes import KilledError
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
    for number in range(5):
        text = f"Letter {number}: the bridge was opened in May 190{number}."
        (made / f"{number}.txt").write_text(text, "utf-8")
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
        rows = occurrences.OCCURRENCES.read(driver(session), {"schedule": "theirs"})
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


STATUS = "SELECT status, error_code FROM schedule_runs ORDER BY due_at DESC LIMIT 1"
ACCOUNT = (
    "SELECT intakes_found, accepted, duplicate, intakes_balance, jobs_balance, a.status"
    " FROM run_accounts AS a"
)


def a_due_scheduler(settings: Settings, schedule: ScheduleSettings) -> FakeScheduler:
    scheduler = a_scheduler(settings, quoting_the_text, repeat_last=True, nightly=schedule)
    scheduler.start_at("2026-03-28T02:31")
    return scheduler


def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Store each document in a separate transaction."""
    monkeypatch.setattr(document_batches, "MAX_DOCUMENTS", 1)


def before_each_letter(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Store each document in a separate transaction, after an action."""
    wrapped = Submission.take_in
    one_by_one(monkeypatch)

    def take_in(self: Submission, *batch: object, **options: object) -> object:
        act()
        return wrapped(self, *batch, **options)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(Submission, "take_in", take_in)


def killed_after(monkeypatch: pytest.MonkeyPatch, count: int) -> Callable[[], None]:
    """Kill the process after it has taken in this number of letters; return a reset."""
    wrapped, close = Submission.take_in, Submission.close
    letters = itertools.count()

    def killed(_: Submission | None = None) -> None:
        raise KilledError

    before_each_letter(monkeypatch, lambda: killed() if next(letters) == count else None)
    monkeypatch.setattr(Submission, "close", killed)

    def stop() -> None:
        monkeypatch.setattr(Submission, "take_in", wrapped)
        monkeypatch.setattr(Submission, "close", close)

    return stop


@pytest.mark.parametrize(
    ("types", "unreadable", "outcome", "jobs"),
    [
        (["summary"], 0, ("succeeded", None), {"succeeded": 5}),
        (["summary"], 1, ("incomplete", "incomplete"), {"succeeded": 5}),
        (["sentiment", "summary"], 0, (*["incomplete"] * 2,), {"failed": 5, "succeeded": 5}),
    ],
)
def test_an_occurrence_ends_with_the_run_of_its_folder(
    settings: Settings,
    folder: Path,
    types: list[str],
    unreadable: int,
    outcome: tuple[str, str | None],
    jobs: dict[str, int],
) -> None:
    """Unreadable files make it incomplete; a profile defines the questions."""
    profile = Profile.model_validate({"types": types, "model": SCRIPTED})
    with_profile = settings.model_copy(update={"profiles": {"letters": profile}})
    for number in range(unreadable):
        (folder / f"{number}.pdf").write_bytes(b"%PDF-1.7 and nothing else")
    scheduler = a_due_scheduler(with_profile, nightly(folder, "--profile letters"))

    assert scheduler.carry_out()
    assert not scheduler.carry_out()
    assert scheduler.rows(STATUS) == [("waiting", None)]
    scheduler.tick()
    assert scheduler.rows(STATUS) == [("waiting", None)]
    scheduler.work()
    scheduler.tick()

    assert scheduler.rows(STATUS) == [outcome]
    assert scheduler.rows("SELECT outcome -> 'jobs' FROM schedule_runs") == [(jobs,)]
    assert scheduler.rows(ACCOUNT) == [(5 + unreadable, 5, 0, True, True, "finished")]
    jobs_by_type = "SELECT analysis_type, count(*) FROM jobs GROUP BY 1 ORDER BY 1"
    assert scheduler.rows(jobs_by_type) == [(kind, 5) for kind in types]
    assert scheduler.rows(
        "SELECT r.priority, r.name LIKE 'nightly-20260328-0130-%' FROM runs AS r"
        " JOIN schedule_runs AS s ON s.id = r.schedule_run_id"
    ) == [("nightly", True)]


def test_the_next_night_pays_only_for_new_letters(settings: Settings, folder: Path) -> None:
    scheduler = a_due_scheduler(settings, nightly(folder))
    scheduler.carry_out()
    scheduler.work()
    scheduler.tick()
    (folder / "6.txt").write_text("Another letter: the bridge was closed.", "utf-8")
    scheduler.start_at("2026-03-29T03:01")
    scheduler.carry_out()
    scheduler.work()
    scheduler.tick()

    assert [status for *_, status in scheduler.history()] == ["succeeded", "succeeded"]
    assert scheduler.rows("SELECT count(*) FROM model_calls") == [(6,)]
    assert scheduler.rows("SELECT reused FROM run_accounts ORDER BY run") == [(0,), (5,)]


@pytest.mark.parametrize("count", [0, 2, 5])
def test_a_killed_scheduler_loses_or_duplicates_no_letter(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    scheduler = a_due_scheduler(settings, nightly(folder))
    stop_killing = killed_after(monkeypatch, count)
    with pytest.raises(KilledError):
        scheduler.carry_out()
    stop_killing()

    listed = "SELECT intakes_found, not_taken, intakes_balance IS TRUE, status FROM run_accounts"
    scheduler.pipeline.execute("UPDATE runs SET lease_until = now()")
    scheduler.work()
    assert scheduler.rows(listed) == [(5, 5 - count, count == 5, "open")]
    assert not scheduler.carry_out()
    scheduler.pipeline.expire_leases()
    (folder / "0.txt").unlink()
    assert scheduler.carry_out()
    scheduler.work()
    scheduler.tick()

    accepted, status = (5, "succeeded") if count else (4, "incomplete")
    assert scheduler.rows(ACCOUNT) == [(5, accepted, 0, True, True, "finished")]
    assert scheduler.rows("SELECT status, attempts FROM schedule_runs") == [(status, 2)]
    assert scheduler.rows("SELECT count(*) FROM runs") == [(1,)]


def test_a_suspended_scheduler_writes_nothing_once_replaced(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = a_due_scheduler(settings, nightly(folder))
    letters = itertools.count(1)

    def replace_scheduler() -> None:
        if next(letters) == 3:
            scheduler.pipeline.expire_leases()
            with scheduler.pipeline.context.database.write() as session:
                assert schedules.claim(session, uuid.uuid4(), timedelta(seconds=60))

    before_each_letter(monkeypatch, replace_scheduler)
    scheduler.carry_out()
    assert scheduler.rows("SELECT accepted FROM run_accounts") == [(2,)]
    scheduler.pipeline.expire_leases()
    scheduler.carry_out()
    scheduler.work()
    scheduler.tick()

    assert scheduler.rows(ACCOUNT) == [(5, 5, 0, True, True, "finished")]
    assert scheduler.rows("SELECT status, attempts FROM schedule_runs") == [("succeeded", 3)]


def test_a_scheduler_that_stops_releases_its_occurrence(settings: Settings, folder: Path) -> None:
    """An expired occurrence is not continued."""
    scheduler = a_due_scheduler(settings, nightly(folder))
    state = "SELECT status, attempts FROM schedule_runs ORDER BY due_at"
    scheduler.stopped = True

    assert scheduler.carry_out()
    assert scheduler.rows(state) == [("due", 0)]
    scheduler.stopped = False
    assert scheduler.carry_out()
    assert scheduler.rows(state) == [("waiting", 1)]

    scheduler.pipeline.execute("UPDATE schedule_runs SET status = 'due', attempts = 0")
    scheduler.sleep_until("2026-03-29T01:00")
    scheduler.tick()
    assert not scheduler.carry_out()
    assert scheduler.rows(state) == [("expired", 0)]


def test_a_heartbeat_keeps_the_lease_of_an_occurrence(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = a_due_scheduler(settings, nightly(folder))
    runner = scheduler.runner()
    seen: list[object] = []

    def beat() -> None:
        scheduler.pipeline.expire_leases()
        scheduler.pipeline.context.leases.beat()
        seen.append(scheduler.carry_out())

    before_each_letter(monkeypatch, beat)
    runner.work()

    assert seen == [False] * 5
    assert scheduler.rows("SELECT status, attempts FROM schedule_runs") == [("waiting", 1)]


def test_an_occurrence_that_ends_schedulers_is_given_up(settings: Settings, folder: Path) -> None:
    scheduler = a_due_scheduler(settings, nightly(folder))
    scheduler.pipeline.execute(
        "UPDATE schedule_runs SET status = 'running', attempts = :attempts", attempts=MAX_ATTEMPTS
    )
    scheduler.pipeline.expire_leases()

    assert not scheduler.carry_out()

    assert scheduler.rows("SELECT status, error_code FROM schedule_runs") == [
        ("failed", "quarantined")
    ]


@pytest.mark.parametrize(
    ("path", "options", "outcome"),
    [
        ("gone", "", ("failed", "usage")),
        ("gone/*.pdf", "", ("failed", "usage")),
        ("", "--profile gone", ("failed", "usage")),
        ("empty", "'{}/empty/*.pdf'", ("succeeded", None)),
    ],
)
def test_a_missing_folder_or_profile_is_an_error(
    settings: Settings, tmp_path: Path, path: str, options: str, outcome: tuple[str, str | None]
) -> None:
    """A folder may be a share that is not mounted; an empty one is no error."""
    (tmp_path / "empty").mkdir()
    scheduler = a_due_scheduler(settings, nightly(tmp_path / path, options.format(tmp_path)))

    scheduler.carry_out()

    assert scheduler.rows(STATUS) == [outcome]
    assert scheduler.rows("SELECT count(*) FROM runs") == [(0,)]
    scheduler.start_at("2026-03-29T03:01")


def test_a_programming_error_fails_the_occurrence(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = a_due_scheduler(settings, nightly(folder))

    def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(submit, "open_run", broken)
    scheduler.carry_out()

    assert scheduler.rows("SELECT status, error_code FROM schedule_runs") == [
        ("failed", "internal")
    ]
