"""Tests that a file dropped again during its analysis waits for that answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject
from chordwise.pipeline.jobs import run_control
from chordwise.pipeline.jobs.fan_out import fan_out
from chordwise.pipeline.recovery.recover import promise_missing, recover
from chordwise.settings import Profile, Settings
from chordwise.storage import runs
from tests.fakes.batch_nights import check_invariants, handed_in, opened, pass_time
from tests.fakes.inbox_watch import LETTER, QUIET_SECONDS, WatchedInbox, watched, watching
from tests.fakes.pipeline import a_run
from tests.peers.batch_provider import BatchProvider

BOTH = "summary and sentiment"
PROFILES = {
    "urgent": Profile(),
    "cheap": Profile.model_validate({"lane": "batch"}),
    "nightly": Profile(nightly=True),
    "one": Profile(model="extractive"),
    BOTH: Profile.model_validate({"model": "extractive", "types": ["summary", "sentiment"]}),
}
STATES = "SELECT array_agg(status ORDER BY id) FROM jobs"
REUSED = "SELECT array_agg(reused ORDER BY run_id) FROM run_accounts"
BALANCE = "SELECT bool_and(intakes_balance AND jobs_balance) FROM run_accounts"


@pytest.fixture
def inbox(tmp_path: Path, settings: Settings) -> Iterator[WatchedInbox]:
    watched_inbox = watched(tmp_path, settings, PROFILES)
    yield watched_inbox
    watched_inbox.close()


@pytest.fixture
def cheap(tmp_path: Path, settings: Settings, provider: BatchProvider) -> Iterator[WatchedInbox]:
    watched_inbox = watching(
        tmp_path, settings, lambda changed: opened(changed, provider), PROFILES
    )
    yield watched_inbox
    watched_inbox.close()


def drop_in_runs(inbox: WatchedInbox, *names: str) -> None:
    for name in names:
        inbox.drop(name, LETTER)
        inbox.take()
        inbox.wait(QUIET_SECONDS)


def go_on(inbox: WatchedInbox) -> None:
    for _ in range(3):
        recover(inbox.pipeline.context)
        inbox.work()
    recover(inbox.pipeline.context)
    inbox.wait(1)


def intake(inbox: WatchedInbox, name: str) -> JsonObject:
    (entry,) = json_values.objects(inbox.folders.note(inbox.folders.done / name)["intakes"])
    return entry


def jobs(of_intake: JsonObject) -> list[JsonObject]:
    return list(json_values.objects(of_intake["jobs"]))


def test_two_drops_of_a_file_need_one_analysis(inbox: WatchedInbox) -> None:
    """A third drop refers to the first."""
    drop_in_runs(inbox, "a.txt", "b.txt")
    assert inbox.pipeline.value("SELECT count(*) FROM runs WHERE intake_finished_at IS NOT NULL")
    assert inbox.pipeline.value(STATES) == ["running", "queued"]

    go_on(inbox)
    drop_in_runs(inbox, "c.txt")
    go_on(inbox)

    first, second, third = (intake(inbox, f"{name}.txt") for name in "abc")
    assert len(inbox.pipeline.model.requests) == 1
    assert second["outcome"] == "accepted"
    assert second["same_as_intake"] == third["same_as_intake"] == first["id"]
    for later in (second, third):
        assert [job["reused_from"] for job in jobs(later)] == [job["id"] for job in jobs(first)]
    assert (first["same_as_intake"], jobs(first)[0]["reused_from"]) == (None, None)
    assert inbox.pipeline.value("SELECT count(DISTINCT output::text) FROM results") == 1
    assert inbox.pipeline.value("SELECT array_agg(status) FROM runs") == ["finished"] * 3
    assert inbox.pipeline.value(REUSED) == [0, 1, 1]
    assert inbox.pipeline.value(BALANCE) is True


def test_each_analysis_type_waits_separately(inbox: WatchedInbox) -> None:
    drop_in_runs(inbox, "one/a.txt", f"{BOTH}/b.txt", f"{BOTH}/c.txt")

    go_on(inbox)

    names = ("one/a.txt", f"{BOTH}/b.txt", f"{BOTH}/c.txt")
    first, second, third = (intake(inbox, name) for name in names)
    assert [bool(job["reused_from"]) for job in jobs(second)] == [True, False]
    assert [bool(job["reused_from"]) for job in jobs(third)] == [True, True]
    assert second["same_as_intake"] is None
    assert third["same_as_intake"] in {first["id"], second["id"]}


def test_two_drops_need_one_batch_analysis(cheap: WatchedInbox, provider: BatchProvider) -> None:
    drop_in_runs(cheap, "cheap/a.txt")
    cheap.work()
    drop_in_runs(cheap, "cheap/b.txt")
    pass_time(cheap.pipeline)
    cheap.work()
    assert cheap.pipeline.value(STATES) == ["waiting", "queued"]

    pass_time(cheap.pipeline)
    cheap.pipeline.execute("UPDATE chunks SET due_at = now() WHERE status = 'waiting'")
    for (job_id,) in cheap.pipeline.rows("SELECT id FROM jobs WHERE status = 'waiting'"):
        cheap.pipeline.work_on(job_id)  # type: ignore[arg-type]  # a UUID, says the table
    go_on(cheap)

    first, second = intake(cheap, "cheap/a.txt"), intake(cheap, "cheap/b.txt")
    assert second["same_as_intake"] == first["id"]
    assert len(handed_in(provider)) == 1
    assert cheap.pipeline.value("SELECT count(*) FROM model_calls") == 1
    check_invariants(cheap.pipeline, provider)


@pytest.mark.parametrize("status", ["failed", "partial", "quarantined", "cancelled", "paused"])
def test_the_second_run_asks_if_the_first_gets_no_answer(inbox: WatchedInbox, status: str) -> None:
    """The next follower asks for the others."""
    drop_in_runs(inbox, "a.txt", "b.txt", "c.txt")
    inbox.pipeline.execute(
        f"UPDATE jobs SET status = '{status}' WHERE reused_from IS NULL"  # noqa: S608 - our own words
    )

    go_on(inbox)

    second, third = intake(inbox, "b.txt"), intake(inbox, "c.txt")
    assert len(inbox.pipeline.model.requests) == 1
    assert (second["same_as_intake"], jobs(second)[0]["reused_from"]) == (None, None)
    assert third["same_as_intake"] == second["id"]
    assert jobs(third)[0]["reused_from"] == jobs(second)[0]["id"]
    assert inbox.pipeline.value(STATES) == [status, "succeeded", "succeeded"]
    assert inbox.pipeline.value(BALANCE) is True


def test_a_follower_has_its_own_deadline_for_batches(cheap: WatchedInbox) -> None:
    drop_in_runs(cheap, "cheap/a.txt", "cheap/b.txt")
    cheap.pipeline.execute("UPDATE jobs SET status = 'failed' WHERE reused_from IS NULL")
    cheap.pipeline.execute("UPDATE jobs SET batch_until = now() - interval '1 hour'")

    recover(cheap.pipeline.context)

    left = "SELECT batch_until > now() + interval '19 hours' FROM jobs WHERE status = 'queued'"
    assert cheap.pipeline.value(left) is True


@pytest.mark.parametrize(
    ("first", "second", "waits"),
    [
        ("cheap", "urgent", False),
        ("urgent", "cheap", True),
        ("nightly", "urgent", False),
        ("urgent", "nightly", True),
        ("cheap", "nightly", False),
    ],
)
def test_a_slower_answer_is_not_waited_for(
    cheap: WatchedInbox, first: str, second: str, *, waits: bool
) -> None:
    drop_in_runs(cheap, f"{first}/a.txt", f"{second}/b.txt")

    follows = "SELECT reused_from IS NOT NULL FROM jobs ORDER BY id DESC LIMIT 1"
    assert cheap.pipeline.value(follows) is waits


def test_a_waiting_follower_has_no_message(inbox: WatchedInbox) -> None:
    drop_in_runs(inbox, "a.txt", "b.txt")
    (second,) = inbox.pipeline.rows("SELECT id FROM jobs WHERE reused_from IS NOT NULL")[0]
    inbox.pipeline.execute("DELETE FROM outbox")
    inbox.pipeline.execute("UPDATE jobs SET last_progress_at = now() - interval '1 hour'")

    assert fan_out(inbox.pipeline.context, second) == 0  # type: ignore[arg-type]  # a UUID
    assert promise_missing(inbox.pipeline.context) == 1
    assert recover(inbox.pipeline.context) == {}

    left = "SELECT status, attempts FROM jobs WHERE reused_from IS NOT NULL"
    assert inbox.pipeline.rows(left) == [("queued", 0)]


def test_a_cancelled_follower_can_be_retried(inbox: WatchedInbox) -> None:
    drop_in_runs(inbox, "a.txt", "b.txt")
    with inbox.pipeline.context.database.read() as session:
        run = runs.find(session, "latest")
    run_control.cancel(inbox.pipeline.context.database, run.id)
    inbox.work()
    assert inbox.pipeline.value(STATES) == ["succeeded", "cancelled"]

    inbox.wait(1)
    note = inbox.folders.note(inbox.folders.failed / "b.txt")
    (of_it,) = json_values.objects(note["intakes"])
    assert (of_it["same_as_intake"], jobs(of_it)[0]["reused_from"]) == (None, None)
    assert inbox.pipeline.value(REUSED) == [0, 0]

    run_control.retry(inbox.pipeline.context, run.id)
    go_on(inbox)

    assert inbox.pipeline.value(REUSED) == [0, 1]
    assert inbox.pipeline.value(STATES) == ["succeeded", "succeeded"]
    assert len(inbox.pipeline.model.requests) == 1


def test_a_follower_in_a_paused_run_receives_the_answer(inbox: WatchedInbox) -> None:
    """Other jobs of its run lack budget or a key; it needs neither once there is an answer."""
    drop_in_runs(inbox, "a.txt", "b.txt")
    inbox.pipeline.execute("UPDATE jobs SET status = 'paused' WHERE reused_from IS NOT NULL")
    recover(inbox.pipeline.context)
    assert inbox.pipeline.value(STATES) == ["running", "paused"]

    go_on(inbox)

    assert inbox.pipeline.value(STATES) == ["succeeded", "succeeded"]
    assert intake(inbox, "b.txt")["same_as_intake"] == intake(inbox, "a.txt")["id"]
    assert inbox.pipeline.value("SELECT array_agg(status) FROM runs") == ["finished", "finished"]


def test_a_command_does_not_wait_for_another_run(inbox: WatchedInbox) -> None:
    drop_in_runs(inbox, "a.txt")

    inbox.pipeline.submit(LETTER, options=a_run())

    assert inbox.pipeline.value("SELECT count(*) FROM jobs WHERE reused_from IS NULL") == 2
