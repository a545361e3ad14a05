"""Tests of occurrences: they run, end with their runs, and continue after a kill."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from chordwise.pipeline.intake import document_batches, submit
from chordwise.pipeline.intake.submit import Submission
from chordwise.pipeline.schedules.runner import MAX_ATTEMPTS
from chordwise.settings import Profile, ScheduleSettings, Settings
from chordwise.storage import schedules
from tests.fakes.pipeline import SCRIPTED, quoting_the_text
from tests.fakes.processes import KilledError
from tests.fakes.scheduling import EXPIRE, FakeScheduler, a_scheduler, nightly

STATUS = "SELECT status, error_code FROM schedule_runs ORDER BY due_at DESC LIMIT 1"
ACCOUNT = (
    "SELECT intakes_found, accepted, duplicate, intakes_balance, jobs_balance, a.status"
    " FROM run_accounts AS a"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "letters"
    made.mkdir()
    for number in range(5):
        text = f"Letter {number}: the bridge was opened in May 190{number}."
        (made / f"{number}.txt").write_text(text, "utf-8")
    return made


def a_due_scheduler(settings: Settings, schedule: ScheduleSettings) -> FakeScheduler:
    scheduler = a_scheduler(settings, quoting_the_text, repeat_last=True, nightly=schedule)
    scheduler.start_at("2026-03-28T02:31")
    return scheduler


def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Store each document in a separate transaction."""
    monkeypatch.setattr(document_batches, "MAX_DOCUMENTS", 1)


def killed_after(monkeypatch: pytest.MonkeyPatch, count: int) -> Callable[[], None]:
    """Kill the process after it has taken in this number of letters; return a reset."""
    wrapped, close = Submission.take_in, Submission.close
    taken: list[object] = []
    one_by_one(monkeypatch)

    def take_in(self: Submission, *batch: object, **options: object) -> object:
        if len(taken) == count:
            raise KilledError
        taken.append(batch)
        return wrapped(self, *batch, **options)  # type: ignore[arg-type]  # passed on as they came

    def killed(_: Submission) -> None:
        raise KilledError

    monkeypatch.setattr(Submission, "take_in", take_in)
    monkeypatch.setattr(Submission, "close", killed)

    def stop() -> None:
        monkeypatch.setattr(Submission, "take_in", wrapped)
        monkeypatch.setattr(Submission, "close", close)

    return stop


def test_an_occurrence_ends_with_the_run_of_its_folder(settings: Settings, folder: Path) -> None:
    scheduler = a_due_scheduler(settings, nightly(folder))

    assert scheduler.carry_out()
    assert not scheduler.carry_out()
    assert scheduler.rows(STATUS) == [("waiting", None)]
    scheduler.tick()
    assert scheduler.rows(STATUS) == [("waiting", None)]
    scheduler.work()
    scheduler.tick()

    assert scheduler.rows(STATUS) == [("succeeded", None)]
    assert scheduler.rows("SELECT outcome -> 'jobs' FROM schedule_runs") == [({"succeeded": 5},)]
    assert scheduler.rows(ACCOUNT) == [(5, 5, 0, True, True, "finished")]
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
    scheduler.pipeline.execute("UPDATE runs SET intake_until = now()")
    scheduler.work()
    assert scheduler.rows(listed) == [(5, 5 - count, count == 5, "open")]
    assert not scheduler.carry_out()
    scheduler.pipeline.execute(EXPIRE)
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
    wrapped = Submission.take_in
    letters: list[object] = []
    one_by_one(monkeypatch)

    def take_in(self: Submission, *batch: object, **options: object) -> object:
        letters.append(batch)
        if len(letters) == 3:
            scheduler.pipeline.execute(EXPIRE)
            with scheduler.pipeline.context.database.write() as session:
                assert schedules.claim(session, uuid.uuid4(), timedelta(seconds=60))
        return wrapped(self, *batch, **options)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(Submission, "take_in", take_in)
    scheduler.carry_out()
    assert scheduler.rows("SELECT accepted FROM run_accounts") == [(2,)]
    scheduler.pipeline.execute(EXPIRE)
    scheduler.carry_out()
    scheduler.work()
    scheduler.tick()

    assert scheduler.rows(ACCOUNT) == [(5, 5, 0, True, True, "finished")]
    assert scheduler.rows("SELECT status, attempts FROM schedule_runs") == [("succeeded", 3)]


def test_a_scheduler_that_stops_releases_its_occurrence(settings: Settings, folder: Path) -> None:
    scheduler = a_due_scheduler(settings, nightly(folder))
    scheduler.stopped = True

    assert scheduler.carry_out()
    assert scheduler.rows("SELECT status, attempts FROM schedule_runs") == [("due", 0)]
    scheduler.stopped = False
    assert scheduler.carry_out()

    assert scheduler.rows("SELECT status, attempts FROM schedule_runs") == [("waiting", 1)]


def test_a_heartbeat_keeps_the_lease_of_an_occurrence(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = a_due_scheduler(settings, nightly(folder))
    runner = scheduler.runner()
    seen: list[object] = []
    one_by_one(monkeypatch)
    wrapped = Submission.take_in

    def take_in(self: Submission, *batch: object, **options: object) -> object:
        scheduler.pipeline.execute(EXPIRE)
        runner.beat()
        seen.append(scheduler.carry_out())
        return wrapped(self, *batch, **options)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(Submission, "take_in", take_in)
    runner.work()

    assert seen == [False] * 5
    assert scheduler.rows("SELECT status, attempts FROM schedule_runs") == [("waiting", 1)]


def test_an_occurrence_that_ends_schedulers_is_given_up(settings: Settings, folder: Path) -> None:
    scheduler = a_due_scheduler(settings, nightly(folder))
    scheduler.pipeline.execute(
        "UPDATE schedule_runs SET status = 'running', attempts = :attempts,"
        " lease_until = now() - interval '1 second'",
        attempts=MAX_ATTEMPTS,
    )

    assert not scheduler.carry_out()

    assert scheduler.rows("SELECT status, error_code FROM schedule_runs") == [
        ("failed", "quarantined")
    ]


def test_an_expired_occurrence_is_not_continued(settings: Settings, folder: Path) -> None:
    scheduler = a_due_scheduler(settings, nightly(folder))
    scheduler.sleep_until("2026-03-29T01:00")
    scheduler.tick()

    assert not scheduler.carry_out()
    assert scheduler.rows("SELECT status FROM schedule_runs") == [("expired",)]


def test_an_empty_folder_is_no_error(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    line = nightly(tmp_path / "empty", f"'{tmp_path}/empty/*.pdf'")
    scheduler = a_due_scheduler(settings, line)

    scheduler.carry_out()

    assert scheduler.rows(STATUS) == [("succeeded", None)]
    assert scheduler.rows("SELECT count(*) FROM runs") == [(0,)]


@pytest.mark.parametrize(
    ("path", "options"), [("gone", ""), ("gone/*.pdf", ""), ("", "--profile gone")]
)
def test_a_missing_folder_or_profile_is_an_error(
    settings: Settings, tmp_path: Path, path: str, options: str
) -> None:
    """A folder may be a share that is not mounted; the next night tries again."""
    scheduler = a_due_scheduler(settings, nightly(tmp_path / path, options))

    scheduler.carry_out()

    assert scheduler.rows("SELECT status, error_code FROM schedule_runs") == [("failed", "usage")]
    scheduler.start_at("2026-03-29T03:01")


def test_unreadable_files_make_an_occurrence_incomplete(settings: Settings, folder: Path) -> None:
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 and nothing else")
    scheduler = a_due_scheduler(settings, nightly(folder))

    scheduler.carry_out()
    scheduler.work()
    scheduler.tick()

    assert scheduler.rows(STATUS) == [("incomplete", "incomplete")]
    assert scheduler.rows("SELECT outcome -> 'jobs' FROM schedule_runs") == [({"succeeded": 5},)]


def test_a_profile_defines_the_questions_of_a_schedule(settings: Settings, folder: Path) -> None:
    profile = Profile.model_validate({"types": ["summary", "sentiment"], "model": SCRIPTED})
    with_profile = settings.model_copy(update={"profiles": {"letters": profile}})
    scheduler = a_due_scheduler(with_profile, nightly(folder, "--profile letters"))

    scheduler.carry_out()

    assert scheduler.rows("SELECT analysis_type, count(*) FROM jobs GROUP BY 1 ORDER BY 1") == [
        ("sentiment", 5),
        ("summary", 5),
    ]


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
