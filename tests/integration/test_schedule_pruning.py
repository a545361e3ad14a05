"""Pruning deletes what is older than its age, and nothing that is still needed."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from chordwise.domain.learning.remarks import FeedbackInput
from chordwise.domain.learning.truths import Verdict
from chordwise.pipeline.intake.submit import open_run
from chordwise.pipeline.jobs import retry
from chordwise.pipeline.learning import evaluation, feedback
from chordwise.pipeline.learning.evaluation import Scope
from chordwise.pipeline.learning.feedback import Line, Signed
from chordwise.pipeline.runs.stored_results import Wanted
from chordwise.pipeline.schedules.runner import ScheduleRunner
from chordwise.settings import ScheduleSettings, Settings
from chordwise.storage import documents, pruning
from chordwise.storage.documents import Document, hash_of
from chordwise.storage.intakes import Entry
from tests.fakes.past_results import into_history
from tests.fakes.pipeline import NOW, Pipeline, a_document, a_run, quoting_the_text
from tests.fakes.processes import wait_until
from tests.fakes.scheduling import A_DAY, Night, a_night
from tests.fakes.scheduling import pruning as pruned_after

OLD, SHARED, NEW = (
    f"The {name} bridge was opened in May 1902. Carts crossed it."
    for name in ("old", "wide", "new")
)
OUTCOME = "SELECT status, outcome FROM schedule_runs ORDER BY due_at DESC LIMIT 1"
THE_OLD = "SELECT id FROM runs ORDER BY finished_at LIMIT 1"
FAIL_THE_OLD = f"UPDATE jobs SET status = 'failed' WHERE run_id = ({THE_OLD})"  # noqa: S608 - ours
WAITING = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)
TABLES = ("runs", "intakes", "jobs", "results", "chunks", "facts", "documents", "result_history")


def aged(pipeline: Pipeline, run: str) -> None:
    """Let a run with all that belongs to it lie back forty days."""
    pipeline.execute(
        "UPDATE jobs SET finished_at = jobs.finished_at - interval '40 days'"
        " FROM runs WHERE runs.id = run_id AND runs.name = :run",
        run=run,
    )
    pipeline.execute(
        "UPDATE runs SET finished_at = finished_at - interval '40 days' WHERE name = :run", run=run
    )


def a_past(settings: Settings, wanted: ScheduleSettings) -> Night:
    """Return a night after an old run of two documents and a new one that shares one of them."""
    night = a_night(settings, quoting_the_text, repeat_last=True, tidy=wanted)
    pipeline = night.pipeline
    old = pipeline.analyze(OLD, SHARED)
    new = pipeline.submit(SHARED, NEW)
    for job in pipeline.jobs(new):
        if job.reused_from is None:
            pipeline.work_on(job.id)
    aged(pipeline, old.name)
    pipeline.execute("UPDATE documents SET created_at = now() - interval '40 days'")
    night.start_at("2026-03-28T02:31")
    return night


def counts(night: Night) -> dict[str, object]:
    return {
        name: night.pipeline.value(f"SELECT count(*) FROM {name}")  # noqa: S608 - names of ours
        for name in TABLES
    }


def test_old_runs_go_and_what_newer_ones_use_stays(settings: Settings) -> None:
    """The next run pays again only for what went."""
    night = a_past(settings, pruned_after(keep_runs_days=30))

    assert night.carry_out()

    assert night.rows(OUTCOME) == [("succeeded", {"runs": 1, "jobs": 2, "documents": 1})]
    assert night.rows("SELECT text FROM documents ORDER BY text") == [(NEW,), (SHARED,)]
    assert night.rows("SELECT count(*), count(reused_from) FROM jobs") == [(2, 0)]
    assert night.rows("SELECT count(*) FROM document_results WHERE status = 'succeeded'") == [(2,)]
    assert night.rows("SELECT intakes_balance, jobs_balance FROM run_accounts") == [(True, True)]
    assert night.rows("SELECT count(*), count(job_id) FROM model_calls") == [(3, 1)]
    again = night.pipeline.submit(OLD, SHARED, NEW)
    reused = [job.reused_from is not None for job in night.pipeline.jobs(again)]
    assert reused == [False, True, True]


def test_the_calls_of_an_intake_stay_without_their_run(settings: Settings) -> None:
    """What reading its pages did cost was spent."""
    night = a_past(settings, pruned_after(keep_runs_days=30))
    oldest = "(SELECT id FROM runs ORDER BY id LIMIT 1)"
    changed = f"run_id = {oldest}, job_id = NULL, chunk_id = NULL"
    night.pipeline.execute(f"UPDATE model_calls SET {changed}")  # noqa: S608 - names of ours

    assert night.carry_out()

    assert night.rows("SELECT count(*), count(run_id), count(run) FROM model_calls") == [(3, 0, 3)]


def test_an_interrupted_run_goes_when_it_is_old(settings: Settings) -> None:
    """With its list; a younger one stays, and one that is being taken in."""
    night = a_past(settings, pruned_after(keep_runs_days=30))
    listed = [Entry(source=f"{number}.txt", raw_path=b"/nowhere") for number in range(3)]
    names = []
    for ago in ("40 days", "1 day", "-1 day"):
        run = open_run(night.pipeline.context, a_run(), NOW, listed)
        run.take_in(a_document(OLD))
        names.append(run.name)
        run.close()
        night.pipeline.execute(
            f"UPDATE runs SET intake_until = now() - interval '{ago}' WHERE name = :run",  # noqa: S608 - our own words
            run=run.name,
        )
    night.work()

    assert night.carry_out()

    assert night.rows("SELECT outcome ->> 'runs' FROM schedule_runs") == [("2",)]
    assert {name for (name,) in night.rows("SELECT name FROM runs")} & set(names) == set(names[1:])
    assert night.rows("SELECT count(*) FROM listed_files") == [(6,)]


def test_feedback_goes_with_its_job_and_what_it_taught_stays(settings: Settings) -> None:
    """Evaluations keep the run's name, and judgments the claim and the verdict, but no text."""
    night = a_past(settings, pruned_after(keep_runs_days=30))
    said = [
        Line(
            number=number,
            document=hash_of(text),
            analysis_type=None,
            signed=Signed(saying=FeedbackInput(verdict=Verdict.APPROVED)),
        )
        for number, text in enumerate((OLD, NEW))
    ]
    database = night.pipeline.context.database
    with database.write() as session:
        assert feedback.give_all(session, Wanted(), said).stored == 2
    ((run,),) = night.rows("SELECT name FROM runs ORDER BY finished_at LIMIT 1")

    evaluation.evaluate(database, Scope(run=str(run)), None)
    night.pipeline.execute("UPDATE judgments SET expected = '1', found = '2'")

    assert night.carry_out()

    assert night.rows("SELECT count(*) FROM feedback") == [(1,)]
    assert night.rows("SELECT run_id, run, judged FROM evaluations") == [(None, run, 1)]
    assert night.rows(
        "SELECT job_id IS NULL, expected IS NULL, found IS NULL, confidence, is_right"
        " FROM judgments ORDER BY 1"
    ) == [(False, False, False, 0.7, True), (True, True, True, 0.7, True)]
    assert night.rows("SELECT count(*) FROM judged_claims") == [(2,)]


_INBOX_FILE = """
WITH file AS (
    INSERT INTO inbox_files
        (id, store_id, folder, name, raw_name, profile, status, stored_path, run_id)
    SELECT gen_random_uuid(), gen_random_uuid(), 'inbox', 'a.txt', 'a.txt', '', :status, 'a.txt', id
    FROM runs ORDER BY created_at LIMIT 1
    RETURNING id, run_id
)
INSERT INTO inbox_intakes (intake_id, inbox_file_id, position)
SELECT intakes.id, file.id, 0 FROM file JOIN intakes USING (run_id) LIMIT 1
"""


@pytest.mark.parametrize(("status", "left"), [("done", 1), ("delivering", 2)])
def test_a_run_goes_with_its_inbox_files_and_deliveries(
    settings: Settings, status: str, left: int
) -> None:
    """But not while one of its files still waits to be given back."""
    night = a_past(settings, pruned_after(keep_runs_days=30))
    night.pipeline.execute(_INBOX_FILE, status=status)

    assert night.carry_out()

    assert counts(night)["runs"] == left
    assert night.rows("SELECT count(*) FROM inbox_files") == [(left - 1,)]
    assert night.rows("SELECT count(DISTINCT run_id) FROM deliveries") == [(left,)]


def test_a_run_that_is_retried_while_it_is_pruned_stays(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step looks again: what the retry has taken up is not deleted, nor is the run."""
    monkeypatch.setattr(pruning, "STEP", 1)
    night = a_past(settings, pruned_after(keep_runs_days=30))
    night.pipeline.execute(FAIL_THE_OLD)
    ((run_id,),) = night.rows(THE_OLD)
    steps: list[int] = []

    def retry_after_the_first() -> bool:
        steps.append(1)
        if len(steps) == 2:
            assert isinstance(run_id, uuid.UUID)
            assert retry.retry(night.pipeline.context, run_id) == 1
        return False

    assert ScheduleRunner(night.pipeline.context, retry_after_the_first).work()

    assert night.rows("SELECT count(*), count(DISTINCT run_id) FROM jobs") == [(3, 2)]
    assert night.rows("SELECT status FROM runs ORDER BY id") == [("open",), ("finished",)]
    assert night.rows(OUTCOME) == [("succeeded", {"runs": 0, "jobs": 1, "documents": 0})]


def test_a_run_that_is_just_being_retried_stays(settings: Settings) -> None:
    """The retry is not committed yet: pruning waits for it, and sees it then."""
    night = a_past(settings, pruned_after(keep_runs_days=30))
    night.pipeline.execute(FAIL_THE_OLD)
    ((run_id,),) = night.rows(THE_OLD)
    assert isinstance(run_id, uuid.UUID)
    context = night.pipeline.context

    with ThreadPoolExecutor(2) as threads:
        # The retry has its jobs, and waits for the run.
        with context.database.write() as session:
            session.execute(text("SELECT FROM runs WHERE id = :id FOR UPDATE"), {"id": run_id})
            retried = threads.submit(retry.retry, context, run_id)
            wait_until(lambda: night.pipeline.value(WAITING) == 1, 30, WAITING)
            pruned = threads.submit(night.carry_out)
            wait_until(lambda: night.pipeline.value(WAITING) == 2, 30, WAITING)
        assert retried.result(30) == 2
        assert pruned.result(30)

    assert night.rows("SELECT status FROM runs ORDER BY id") == [("open",), ("finished",)]
    assert night.rows("SELECT count(*) FROM jobs") == [(4,)]


def test_a_run_that_ended_again_meanwhile_is_young(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retried and finished between two steps, it is over, but not for long."""
    monkeypatch.setattr(pruning, "STEP", 1)
    night = a_past(settings, pruned_after(keep_runs_days=30))
    steps: list[int] = []

    def end_again_after_the_first() -> bool:
        steps.append(1)
        if len(steps) == 2:
            night.pipeline.execute("UPDATE runs SET finished_at = now()")
        return False

    assert ScheduleRunner(night.pipeline.context, end_again_after_the_first).work()

    assert night.rows("SELECT count(*) FROM runs") == [(2,)]
    assert night.rows("SELECT count(*) FROM jobs") == [(3,)]


def test_a_run_that_is_not_over_stays(settings: Settings) -> None:
    night = a_night(
        settings, quoting_the_text, repeat_last=True, tidy=pruned_after(keep_runs_days=1)
    )
    submission = night.pipeline.submit(OLD)
    aged(night.pipeline, submission.name)
    night.pipeline.execute("UPDATE runs SET created_at = now() - interval '40 days'")
    night.sleep_until("2026-03-28T02:31")
    night.tick()

    night.carry_out()

    assert counts(night)["jobs"] == 1


def test_the_cache_loses_what_is_old(settings: Settings) -> None:
    """It keeps what is not, and claims of those who ask right now; nothing else goes."""
    night = a_past(settings, pruned_after(keep_cache_days=30))
    before = counts(night)
    for key, age, completion in (("old", 31, "{}"), ("new", 29, "{}"), ("asked", 31, None)):
        night.pipeline.execute(
            "INSERT INTO cached_completions (key, provider, model, prompt_version, completion,"
            " created_at) VALUES (:key, 'p', 'm', 's@1', CAST(:completion AS jsonb),"
            " now() - make_interval(days => :age))",
            key=key,
            age=age,
            completion=completion,
        )

    night.carry_out()

    assert night.rows("SELECT key FROM cached_completions WHERE provider = 'p'") == [
        ("new",),
        ("asked",),
    ]
    assert counts(night) == before
    assert night.rows(OUTCOME) == [("succeeded", {"completions": 1})]


def test_answers_go_only_where_a_result_stands(settings: Settings) -> None:
    """The result stays as it was; what has not succeeded keeps its answers for a retry."""
    night = a_past(settings, pruned_after(keep_answers_days=30))
    night.pipeline.execute(
        "UPDATE jobs SET status = 'partial' WHERE id = (SELECT max(id::text) FROM jobs"
        " WHERE finished_at < now() - interval '30 days')::uuid"
    )
    results = night.rows("SELECT id, output FROM results ORDER BY id")

    night.carry_out()

    assert night.rows(OUTCOME) == [("succeeded", {"answers": 1, "past_results": 0})]
    assert night.rows("SELECT id, output FROM results ORDER BY id") == results
    assert night.rows("SELECT count(*), count(answer) FROM chunks") == [(3, 2)]


def test_replaced_results_go_with_the_answers(settings: Settings) -> None:
    night = a_past(settings, pruned_after(keep_answers_days=30))
    night.pipeline.execute(into_history("now() - interval '31 days'"))

    night.carry_out()

    found = counts(night)
    assert (found["result_history"], found["results"]) == (0, 4)


@pytest.mark.parametrize("step", [1, 2])
def test_pruning_in_small_steps_ends(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(pruning, "STEP", step)
    night = a_past(settings, pruned_after(keep_runs_days=30, keep_answers_days=30))

    night.carry_out()

    found = counts(night)
    assert (found["runs"], found["jobs"], found["documents"]) == (1, 2, 2)


def test_a_document_that_is_taken_in_meanwhile_is_not_lost(settings: Settings) -> None:
    """An intake that stores it while it is being deleted waits, and stores it again."""
    night = a_night(settings, tidy=pruned_after(keep_runs_days=30))
    database = night.pipeline.context.database
    again = threading.Event()
    stored: list[object] = []

    def letter() -> Document:
        return Document(source="a", media_type="text/plain", text=OLD, normalization={})

    with database.write() as session:
        documents.store_all(session, [letter()])
    night.pipeline.execute("UPDATE documents SET created_at = now() - interval '40 days'")

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

    assert night.rows("SELECT id FROM documents") == [(stored[0],)]


def test_a_document_that_was_just_taken_in_stays(settings: Settings) -> None:
    """Its run is not committed yet, and holds it."""
    night = a_night(settings, tidy=pruned_after(keep_runs_days=30))
    database = night.pipeline.context.database
    night.pipeline.submit(OLD, options=a_run())
    night.pipeline.execute("UPDATE documents SET created_at = now() - interval '40 days'")
    night.pipeline.execute("DELETE FROM outbox")
    night.pipeline.execute("DELETE FROM chunks")
    night.pipeline.execute("DELETE FROM jobs")
    night.pipeline.execute("DELETE FROM intakes")

    with database.write() as taking_in:
        letter = Document(source="a", media_type="text/plain", text=OLD, normalization={})
        documents.store_all(taking_in, [letter])
        with database.write() as session:
            assert pruning.forget_documents(session, A_DAY) == 0

    assert night.rows("SELECT text FROM documents") == [(OLD,)]
