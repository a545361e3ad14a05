"""Tests that pruning deletes what is older than its age, and nothing that is still needed."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from chordwise.pipeline.intake.submit import open_run
from chordwise.pipeline.jobs import run_control
from chordwise.pipeline.learning import evaluation
from chordwise.settings import Settings
from chordwise.storage import documents, pruning
from chordwise.storage.documents import Document
from chordwise.storage.intakes import IntakeEntry
from tests.fakes.learning import a_scope, say
from tests.fakes.past_results import into_history
from tests.fakes.pipeline import (
    NOW,
    Pipeline,
    a_document,
    a_pipeline,
    a_run,
    hash_of,
    offered,
    quoting_the_text,
)
from tests.fakes.processes import wait_until
from tests.fakes.scheduling import A_DAY, FakeScheduler, a_scheduler, at_night

OLD, SHARED, NEW = (
    f"The {name} bridge was opened in May 1902. Carts crossed it."
    for name in ("old", "wide", "new")
)
OUTCOME = "SELECT status, outcome - 'output' FROM schedule_runs ORDER BY due_at DESC LIMIT 1"
THE_OLD = "SELECT id FROM runs ORDER BY finished_at LIMIT 1"
FAIL_THE_OLD = f"UPDATE jobs SET status = 'failed' WHERE run_id = ({THE_OLD})"  # noqa: S608 - ours
WAITING = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)
TABLES = ("runs", "intakes", "jobs", "results", "chunks", "facts", "documents", "result_history")


def move_to_the_past(pipeline: Pipeline, run: str) -> None:
    pipeline.execute(
        "UPDATE jobs SET finished_at = jobs.finished_at - interval '40 days'"
        " FROM runs WHERE runs.id = run_id AND runs.name = :run",
        run=run,
    )
    pipeline.execute(
        "UPDATE runs SET finished_at = finished_at - interval '40 days' WHERE name = :run", run=run
    )


@pytest.fixture
def filled_by() -> Callable[[Settings], object]:
    return after_two_runs


def after_two_runs(settings: Settings) -> None:
    """Analyze two documents in an old run, and in a new one that shares one of them."""
    pipeline = a_pipeline(settings, quoting_the_text, repeat_last=True)
    old = pipeline.analyze(OLD, SHARED)
    new = pipeline.submit(SHARED, NEW)
    for job in pipeline.jobs(new):
        if job.reused_from is None:
            pipeline.work_on(job.id)
    move_to_the_past(pipeline, old.name)
    pipeline.execute("UPDATE documents SET created_at = now() - interval '40 days'")


def a_due_scheduler(settings: Settings, run: str) -> FakeScheduler:
    """Return a scheduler of the old and the new run, with a command that is due."""
    scheduler = a_scheduler(settings, quoting_the_text, repeat_last=True, tidy=at_night(run))
    scheduler.start_at("2026-03-28T02:31")
    return scheduler


@pytest.fixture
def scheduler(settings: Settings) -> FakeScheduler:
    return a_due_scheduler(settings, "prune --runs 30")


def prune_runs(
    scheduler: FakeScheduler, before_each_step: Callable[[], None] = lambda: None
) -> Mapping[str, object]:
    """Delete runs older than thirty days, step by step; return the numbers."""
    database = scheduler.pipeline.context.database

    def commit(step: Callable[[Session], int]) -> int:
        before_each_step()
        return database.commit(step)

    return pruning.prune(database, {"runs": 30 * A_DAY}, commit)


def counts(scheduler: FakeScheduler) -> dict[str, object]:
    return {
        name: scheduler.pipeline.value(f"SELECT count(*) FROM {name}")  # noqa: S608 - names of ours
        for name in TABLES
    }


@pytest.mark.parametrize("of_intake", [False, True])
def test_old_runs_are_deleted_except_what_newer_runs_use(
    scheduler: FakeScheduler,
    of_intake: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Calls are kept, also those of an intake, without their run; so is an unfinished run."""
    unfinished = scheduler.pipeline.submit("A text of its own.")
    of_unfinished = "UPDATE runs SET created_at = now() - interval '40 days' WHERE id = :id"
    scheduler.pipeline.execute(of_unfinished, id=unfinished.run_id)
    if of_intake:
        oldest = "(SELECT id FROM runs ORDER BY id LIMIT 1)"
        changed = f"run_id = {oldest}, job_id = NULL, chunk_id = NULL"
        scheduler.pipeline.execute(f"UPDATE model_calls SET {changed}")  # noqa: S608 - names of ours

    assert scheduler.carry_out()

    assert scheduler.rows(OUTCOME) == [("succeeded", {"runs": 1, "jobs": 2, "documents": 1})]
    assert scheduler.rows("SELECT text FROM documents ORDER BY text") == [
        *(("A text of its own.",), (NEW,), (SHARED,))
    ]
    assert scheduler.rows("SELECT count(*), count(reused_from) FROM jobs") == [(3, 0)]
    assert scheduler.rows("SELECT count(*) FROM document_results WHERE status = 'succeeded'") == [
        (2,)
    ]
    accounts = "SELECT intakes_balance, jobs_balance FROM run_accounts"
    assert scheduler.rows(accounts) == [(True, True)] * 2
    kept = scheduler.rows(
        "SELECT count(*), count(job_id), count(run_id), count(run) FROM model_calls"
    )
    assert kept == [(3, 0 if of_intake else 1, 0, 3)]
    again = scheduler.pipeline.submit(OLD, SHARED, NEW)
    reused = [job.reused_from is not None for job in scheduler.pipeline.jobs(again)]
    assert reused == [False, True, True]


def test_an_old_interrupted_run_is_deleted(scheduler: FakeScheduler) -> None:
    listed = [IntakeEntry(source=f"{number}.txt", raw_path=b"/nowhere") for number in range(3)]
    names = []
    for ago in ("40 days", "1 day", "-1 day"):
        run = open_run(scheduler.pipeline.context, a_run(), NOW, listed)
        run.take_in(offered(a_document(OLD)))
        names.append(run.name)
        run.close()
        scheduler.pipeline.execute(
            f"UPDATE runs SET lease_until = now() - interval '{ago}' WHERE name = :run",  # noqa: S608 - our own words
            run=run.name,
        )
    scheduler.work()

    assert scheduler.carry_out()

    assert scheduler.rows("SELECT outcome ->> 'runs' FROM schedule_runs") == [("2",)]
    assert {name for (name,) in scheduler.rows("SELECT name FROM runs")} & set(names) == set(
        names[1:]
    )
    assert scheduler.rows("SELECT count(*) FROM listed_files") == [(6,)]


def test_feedback_is_deleted_with_its_job_and_judgments_are_kept(scheduler: FakeScheduler) -> None:
    database = scheduler.pipeline.context.database
    say(scheduler.pipeline, "approved", map(hash_of, (OLD, NEW)))
    ((run,),) = scheduler.rows("SELECT name FROM runs ORDER BY finished_at LIMIT 1")

    evaluation.evaluate(database, a_scope(scheduler.pipeline, str(run)))
    scheduler.pipeline.execute("UPDATE judgments SET expected = '1', found = '2'")

    assert scheduler.carry_out()

    assert scheduler.rows("SELECT count(*) FROM feedback") == [(1,)]
    assert scheduler.rows("SELECT run_id, run, judged FROM evaluations") == [(None, run, 1)]
    assert scheduler.rows(
        "SELECT job_id IS NULL, expected IS NULL, found IS NULL, confidence, is_right"
        " FROM judgments ORDER BY 1"
    ) == [(False, False, False, 0.7, True), (True, True, True, 0.7, True)]
    assert scheduler.rows("SELECT count(*) FROM judged_claims") == [(2,)]


_INBOX_FILE = """
WITH file AS (
    INSERT INTO inbox_files
        (id, folder, name, raw_name, byte_count, modified_ns, profile, status, run_id)
    SELECT gen_random_uuid(), 'inbox', 'a.txt', 'a.txt', 1, 1, '', :status, id
    FROM runs ORDER BY created_at LIMIT 1
    RETURNING id, run_id
)
INSERT INTO inbox_intakes (intake_id, inbox_file_id, position)
SELECT intakes.id, file.id, 0 FROM file JOIN intakes USING (run_id) LIMIT 1
"""


@pytest.mark.parametrize(("status", "left"), [("done", 1), ("moving", 2)])
def test_a_run_is_deleted_with_its_inbox_files_and_deliveries(
    scheduler: FakeScheduler, status: str, left: int
) -> None:
    scheduler.pipeline.execute(_INBOX_FILE, status=status)

    assert scheduler.carry_out()

    assert counts(scheduler)["runs"] == left
    assert scheduler.rows("SELECT count(*) FROM inbox_files") == [(left - 1,)]
    assert scheduler.rows("SELECT count(DISTINCT run_id) FROM deliveries") == [(left,)]


@pytest.mark.parametrize("is_retried", [False, True])
def test_a_run_that_begins_or_ends_again_during_pruning_is_kept(
    scheduler: FakeScheduler,
    monkeypatch: pytest.MonkeyPatch,
    is_retried: bool,  # noqa: FBT001 - a parameter
) -> None:
    monkeypatch.setattr(pruning, "STEP", 1)
    scheduler.pipeline.execute(FAIL_THE_OLD)
    ((run_id,),) = scheduler.rows(THE_OLD)
    steps: list[int] = []

    def change_after_the_first() -> None:
        steps.append(1)
        if len(steps) == 2 and is_retried:
            assert isinstance(run_id, uuid.UUID)
            assert run_control.retry(scheduler.pipeline.context, run_id) == 1
        elif len(steps) == 2:
            scheduler.pipeline.execute("UPDATE runs SET finished_at = now()")

    deleted = prune_runs(scheduler, change_after_the_first)

    assert scheduler.rows("SELECT count(*), count(DISTINCT run_id) FROM jobs") == [(3, 2)]
    first = "open" if is_retried else "finished"
    assert scheduler.rows("SELECT status FROM runs ORDER BY id") == [(first,), ("finished",)]
    assert deleted == {"runs": 0, "jobs": 1, "documents": 0}


def test_a_run_with_an_uncommitted_retry_is_kept(scheduler: FakeScheduler) -> None:
    scheduler.pipeline.execute(FAIL_THE_OLD)
    ((run_id,),) = scheduler.rows(THE_OLD)
    assert isinstance(run_id, uuid.UUID)
    context = scheduler.pipeline.context

    with ThreadPoolExecutor(2) as threads:
        # The retry has locked its jobs, and waits for the run.
        with context.database.write() as session:
            session.execute(text("SELECT FROM runs WHERE id = :id FOR UPDATE"), {"id": run_id})
            retried = threads.submit(run_control.retry, context, run_id)
            wait_until(lambda: scheduler.pipeline.value(WAITING) == 1, 30, WAITING)
            pruned = threads.submit(prune_runs, scheduler)
            wait_until(lambda: scheduler.pipeline.value(WAITING) == 2, 30, WAITING)
        assert retried.result(30) == 2
        assert pruned.result(30)["runs"] == 0

    assert scheduler.rows("SELECT status FROM runs ORDER BY id") == [("open",), ("finished",)]
    assert scheduler.rows("SELECT count(*) FROM jobs") == [(4,)]


def test_old_cache_entries_are_deleted(settings: Settings) -> None:
    scheduler = a_due_scheduler(settings, "prune --cache 30")
    before = counts(scheduler)
    for key, age in (("old", 31), ("new", 29)):
        scheduler.pipeline.execute(
            "INSERT INTO cached_completions (key, completion, created_at)"
            " VALUES (:key, '{}', now() - make_interval(days => :age))",
            key=key,
            age=age,
        )

    scheduler.carry_out()

    left = "SELECT key FROM cached_completions WHERE completion = '{}'"
    assert scheduler.rows(left) == [("new",)]
    assert counts(scheduler) == before
    assert scheduler.rows(OUTCOME) == [("succeeded", {"completions": 1})]


def test_answers_are_deleted_only_for_successful_jobs(settings: Settings) -> None:
    """Replaced results are deleted with the answers."""
    scheduler = a_due_scheduler(settings, "prune --answers 30")
    scheduler.pipeline.execute(
        "UPDATE jobs SET status = 'partial' WHERE id = (SELECT max(id::text) FROM jobs"
        " WHERE finished_at < now() - interval '30 days')::uuid"
    )
    scheduler.pipeline.execute(into_history("now() - interval '31 days'"))
    results = scheduler.rows("SELECT id, output FROM results ORDER BY id")

    scheduler.carry_out()

    assert scheduler.rows(OUTCOME) == [("succeeded", {"answers": 1, "past_results": 4})]
    assert scheduler.rows("SELECT id, output FROM results ORDER BY id") == results
    assert scheduler.rows("SELECT count(*), count(answer) FROM chunks") == [(3, 2)]
    assert (counts(scheduler)["result_history"], len(results)) == (0, 4)


def test_pruning_in_small_steps_is_complete(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "STEP", 1)
    scheduler = a_due_scheduler(settings, "prune --runs 30 --answers 30")

    scheduler.carry_out()

    counted = counts(scheduler)
    assert (counted["runs"], counted["jobs"], counted["documents"]) == (1, 2, 2)


def test_a_document_taken_in_during_its_deletion_is_not_lost(settings: Settings) -> None:
    scheduler = a_scheduler(settings, tidy=at_night("prune --runs 30"))
    scheduler.pipeline.execute("TRUNCATE runs, documents, outbox CASCADE")
    database = scheduler.pipeline.context.database
    again = threading.Event()
    stored: list[object] = []

    def letter() -> Document:
        return Document(
            source="a", sha256=hash_of(OLD), media_type="text/plain", text=OLD, normalization={}
        )

    with database.write() as session:
        documents.store_all(session, [letter()])
    scheduler.pipeline.execute("UPDATE documents SET created_at = now() - interval '40 days'")

    def store() -> None:
        with database.write() as session:
            again.set()
            stored.extend(documents.store_all(session, [letter()]))

    thread = threading.Thread(target=store)
    with database.write() as session:
        assert pruning.forget_documents(session, A_DAY) == 1
        thread.start()
        assert again.wait(30)
    thread.join(30)

    assert scheduler.rows("SELECT id FROM documents") == [(stored[0],)]


def test_a_document_of_an_uncommitted_intake_is_kept(settings: Settings) -> None:
    scheduler = a_scheduler(settings, tidy=at_night("prune --runs 30"))
    scheduler.pipeline.execute("TRUNCATE runs, documents, outbox CASCADE")
    database = scheduler.pipeline.context.database
    scheduler.pipeline.submit(OLD, options=a_run())
    scheduler.pipeline.execute("UPDATE documents SET created_at = now() - interval '40 days'")
    scheduler.pipeline.execute("DELETE FROM outbox")
    scheduler.pipeline.execute("DELETE FROM chunks")
    scheduler.pipeline.execute("DELETE FROM jobs")
    scheduler.pipeline.execute("DELETE FROM intakes")

    with database.write() as taking_in:
        letter = Document(
            source="a", sha256=hash_of(OLD), media_type="text/plain", text=OLD, normalization={}
        )
        documents.store_all(taking_in, [letter])
        with database.write() as session:
            assert pruning.forget_documents(session, A_DAY) == 0

    assert scheduler.rows("SELECT text FROM documents") == [(OLD,)]
