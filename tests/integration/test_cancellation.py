"""Tests that nothing of a run begins after its cancellation."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from chordwise.domain.states import JobStatus
from chordwise.errors import ExitCode
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.intake import document_batches
from chordwise.pipeline.intake.submit import Submission, open_run
from chordwise.pipeline.jobs import run_control, shared_jobs
from chordwise.pipeline.jobs.analyze_chunk import analyze_chunk
from chordwise.pipeline.jobs.fan_out import fan_out
from chordwise.pipeline.jobs.synthesize import synthesize
from chordwise.pipeline.recovery.recover import recover
from chordwise.settings import Settings
from chordwise.storage import outbox, runs
from chordwise.storage.jobs import Job
from chordwise.storage.runs import Run
from tests.fakes.batch_nights import (
    OTHER,
    check_invariants,
    in_batches,
    opened,
    pass_time,
    priced,
    work_until_finished,
)
from tests.fakes.commands import environment_of, output_of
from tests.fakes.inbox_watch import WatchedInbox
from tests.fakes.pipeline import (
    LONG,
    NOW,
    PARAGRAPH,
    Pipeline,
    a_document,
    a_pipeline,
    a_run,
    offered,
    quoting_the_text,
)
from tests.fakes.processes import KilledError, Processes, wait_until
from tests.fakes.scheduling import a_scheduler, nightly
from tests.peers.batch_provider import BatchProvider

UNFINISHED = (
    "SELECT count(*) FROM jobs"
    " WHERE status IN ('queued', 'running', 'waiting', 'synthesizing', 'paused')"
)
OPEN_CHUNKS = "SELECT count(*) FROM chunks WHERE status IN ('pending', 'running', 'waiting')"
STATUSES = "SELECT array_agg(DISTINCT status ORDER BY status) FROM jobs"
# Cancels each run at the commit that stores its second document.
CANCEL_AT_THE_SECOND = """
CREATE FUNCTION cancel_at_the_second() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE runs SET status = 'cancelled' WHERE id = NEW.run_id
    AND (SELECT count(*) FROM intakes
         WHERE run_id = NEW.run_id AND outcome <> 'not_taken') = 2;
    RETURN NULL;
END $$
"""
ON_INTAKES = """
CREATE CONSTRAINT TRIGGER cancel_at_the_second AFTER INSERT ON intakes
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION cancel_at_the_second()
"""


def a_half_cancelled_run(pipeline: Pipeline, *texts: str) -> Submission:
    """Return a run whose `cancel` was killed after the run was cancelled, before its jobs."""
    submission = pipeline.submit(*texts)
    pipeline.execute("UPDATE runs SET status = 'cancelled'")
    return submission


def counted(pipeline: Pipeline) -> list[object]:
    tables = ("model_calls", "intakes", "jobs")
    counts = [pipeline.value(f"SELECT count(*) FROM {name}") for name in tables]  # noqa: S608 - names of ours
    return [*counts, pipeline.value(UNFINISHED)]


def analyze(pipeline: Pipeline, jobs: Sequence[Job]) -> None:
    """Process these jobs like a worker that receives their messages at any time."""
    for job in jobs:
        for chunk_id in pipeline.open_chunks(job.id):
            analyze_chunk(pipeline.context, chunk_id)
        synthesize(pipeline.context, job.id)


def submitting(settings: Settings, folder: Path, files: int) -> Processes:
    (folder / "letters").mkdir()
    for number in range(files):
        (folder / "letters" / f"{number}.txt").write_text(f"{number}. {PARAGRAPH}", "utf-8")
    return Processes(folder=folder, environment=environment_of(settings))


def test_no_call_begins_after_the_cancellation(settings: Settings) -> None:
    is_asked, may_answer = threading.Event(), threading.Event()

    def slowly(request: CompletionRequest) -> str:
        is_asked.set()
        assert may_answer.wait(30)
        return quoting_the_text(request)

    alone = priced("openai", "http://127.0.0.1:9/v1").model_copy(update={"max_in_flight": 1})
    pipeline = a_pipeline(settings, slowly, repeat_last=True, model_settings=alone)
    options = a_run(budget_usd=Decimal(100))
    submission = pipeline.submit(PARAGRAPH, OTHER, options=options)
    for job in pipeline.jobs(submission):
        fan_out(pipeline.context, job.id)

    with ThreadPoolExecutor(2) as workers:
        for job in pipeline.jobs(submission):
            (chunk_id,) = pipeline.open_chunks(job.id)
            workers.submit(analyze_chunk, pipeline.context, chunk_id)
        assert is_asked.wait(30)
        claimed = "SELECT count(*) = 2 FROM chunks WHERE status = 'running'"
        wait_until(lambda: pipeline.value(claimed) is True, 30, claimed)
        run_control.cancel(pipeline.context.database, submission.run_id)
        may_answer.set()

    assert len(pipeline.model.requests) == 1
    assert pipeline.value("SELECT count(*) FROM model_calls") == 1
    spent = pipeline.value("SELECT spent_usd FROM budgets WHERE run_id IS NOT NULL")
    assert spent == pipeline.value("SELECT sum(cost_usd) FROM model_calls")
    assert pipeline.value("SELECT sum(reserved_usd) FROM budgets") == 0
    assert pipeline.value(UNFINISHED) == pipeline.value(OPEN_CHUNKS) == 0
    assert pipeline.value(STATUSES) == ["cancelled"]
    assert pipeline.rows("SELECT DISTINCT status FROM chunks") == [("cancelled",)]
    assert pipeline.value("SELECT count(*) FROM results") == 0
    assert pipeline.value("SELECT status FROM runs") == "cancelled"


def test_no_call_of_many_workers_begins_after_the_cancellation(settings: Settings) -> None:
    """Four workers ask and synthesize, jobs are fanned out, and documents are still taken in."""
    pipeline = a_pipeline(settings, quoting_the_text, repeat_last=True)
    submission = open_run(pipeline.context, a_run(), NOW)
    is_over = threading.Event()

    def take_in() -> None:
        for number in range(10_000):
            submission.take_in(offered(a_document(f"Letter {number}. {PARAGRAPH}")))

    def work(number: int) -> None:
        while not is_over.is_set():
            analyze(pipeline, pipeline.jobs(submission)[number::4])

    def fan_out_all() -> bool:
        for job in pipeline.jobs(submission):
            fan_out(pipeline.context, job.id)
        return len(pipeline.model.requests) > 10

    with ThreadPoolExecutor(5) as threads:
        futures = [threads.submit(take_in), *(threads.submit(work, number) for number in range(4))]
        wait_until(fan_out_all, 60, "ten calls")
        run_control.cancel(pipeline.context.database, submission.run_id)
        seen = counted(pipeline)
        refusal = futures[0].exception(timeout=30)
        fan_out_all()
        is_over.wait(1)
        is_over.set()

    assert submission.name in str(refusal)
    assert [future.exception() for future in futures[1:]] == [None] * 4
    assert counted(pipeline) == seen
    assert pipeline.value(UNFINISHED) == pipeline.value(OPEN_CHUNKS) == 0


def test_workers_refuse_the_jobs_of_a_cancelled_run(settings: Settings) -> None:
    """Jobs left by a killed `cancel` are not fanned out, claimed or synthesized either."""
    pipeline = a_pipeline(settings, quoting_the_text, repeat_last=True)
    submission = pipeline.submit(LONG, OTHER, f"{OTHER} {LONG}")
    queued, split, answered = pipeline.jobs(submission)
    for job in (split, answered):
        fan_out(pipeline.context, job.id)
    for chunk_id in pipeline.open_chunks(answered.id):
        analyze_chunk(pipeline.context, chunk_id)
    calls = len(pipeline.model.requests)
    pipeline.execute("UPDATE runs SET status = 'cancelled'")

    fan_out(pipeline.context, queued.id)
    (chunk_id,) = pipeline.open_chunks(split.id)
    analyze_chunk(pipeline.context, chunk_id)
    synthesize(pipeline.context, answered.id)

    assert len(pipeline.model.requests) == calls
    assert pipeline.value("SELECT count(*) FROM results") == 0
    assert pipeline.value("SELECT count(*) FROM chunks WHERE job_id = :id", id=queued.id) == 0


@pytest.mark.parametrize("by", ["recovery", "repetition"])
def test_a_killed_cancellation_is_completed(settings: Settings, by: str) -> None:
    """Its jobs have no new followers."""
    pipeline = a_pipeline(settings)
    submission = a_half_cancelled_run(pipeline, PARAGRAPH, OTHER)
    second = pipeline.submit(PARAGRAPH, options=replace(a_run(), follows=True))
    assert pipeline.job(second).reused_from is None
    run_control.cancel(pipeline.context.database, second.run_id)
    pipeline.execute("DELETE FROM deliveries")

    for _ in range(3):
        if by == "recovery":
            recover(pipeline.context)
        else:
            run_control.cancel(pipeline.context.database, submission.run_id)

    assert pipeline.value(STATUSES) == ["cancelled"]
    assert pipeline.rows("SELECT DISTINCT status, finished_at IS NOT NULL FROM runs") == [
        ("cancelled", True)
    ]
    told = "SELECT count(*) FROM deliveries WHERE event = 'run.cancelled' AND kind = 'webhook'"
    assert pipeline.value(told) == 1


@pytest.mark.parametrize("killed", [False, True])
def test_a_retry_resumes_a_cancelled_run(settings: Settings, *, killed: bool) -> None:
    pipeline = a_pipeline(settings, quoting_the_text, repeat_last=True)
    submission = a_half_cancelled_run(pipeline, PARAGRAPH, OTHER)
    if not killed:
        run_control.cancel(pipeline.context.database, submission.run_id)

    assert run_control.retry(pipeline.context, submission.run_id) == 2
    recover(pipeline.context)
    pipeline.work(submission)

    assert pipeline.value(STATUSES) == ["succeeded"]
    assert pipeline.value("SELECT status FROM runs") == "finished"


def test_jobs_queued_by_a_killed_retry_begin_later(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = a_pipeline(settings)
    submission = pipeline.submit(PARAGRAPH)
    run_control.cancel(pipeline.context.database, submission.run_id)
    monkeypatch.setattr(outbox, "hasten", killed)

    with pytest.raises(KilledError):
        run_control.retry(pipeline.context, submission.run_id)

    due = "SELECT due_at BETWEEN now() AND now() + interval '6 minutes' FROM outbox"
    assert pipeline.value(due) is True


def killed(*_: object, **_named: object) -> object:
    raise KilledError


def test_a_run_read_before_its_cancellation_stays_cancelled(settings: Settings) -> None:
    """A transaction that read the run earlier and then settles it sees the cancellation."""
    pipeline = a_pipeline(settings)
    submission = pipeline.submit(PARAGRAPH)

    with pipeline.context.database.write() as session:
        session.get_one(Run, submission.run_id)
        run_control.cancel(pipeline.context.database, submission.run_id)
        runs.settle(session, submission.run_id)

    assert pipeline.value("SELECT status FROM runs") == "cancelled"
    assert pipeline.rows("SELECT DISTINCT event FROM deliveries") == [("run.cancelled",)]


def test_a_follower_of_a_cancelled_job_asks_the_question_itself(settings: Settings) -> None:
    pipeline = a_pipeline(settings, quoting_the_text, repeat_last=True)
    first = pipeline.submit(PARAGRAPH)
    second = pipeline.submit(PARAGRAPH, options=replace(a_run(), follows=True))
    assert pipeline.job(second).reused_from == pipeline.job(first).id

    run_control.cancel(pipeline.context.database, first.run_id)
    with pipeline.context.database.write() as session:
        shared_jobs.end_followers(pipeline.context, session)
    pipeline.work(second)

    assert pipeline.job(first).status == JobStatus.CANCELLED
    assert pipeline.job(second).status == JobStatus.SUCCEEDED


@pytest.mark.usefixtures("addressed")
def test_a_submit_stops_when_its_run_is_cancelled(settings: Settings, tmp_path: Path) -> None:
    pipeline = a_pipeline(settings)
    processes = submitting(settings, tmp_path, files=8)
    before, after = ([f"letters/{n}.txt" for n in some] for some in (range(4), range(4, 8)))
    paths = (*before, "-", *after)  # at standard input the test blocks it
    process = processes.start(
        "chordwise", "submit", *paths, "--run-name", "letters", stdin=subprocess.PIPE
    )
    taken = "SELECT count(*) = 4 FROM intakes WHERE outcome <> 'not_taken'"
    wait_until(lambda: pipeline.value(taken) is True, 60, taken)

    try:
        cancelled = output_of("cancel", "letters")
        process.communicate(b"A letter from the pipe.", timeout=60)
        code = process.returncode
    finally:
        processes.end_all()

    said = (tmp_path / "chordwise-0.log").read_text("utf-8")
    assert re.match(r"\d+ analyses of letters cancelled\.", cancelled.err)
    assert code == ExitCode.INCOMPLETE
    assert "The run “letters” is cancelled and accepts no more documents" in said
    assert "chordwise continue letters" in said
    assert pipeline.value(taken) is True
    assert pipeline.value(STATUSES) == ["cancelled"]
    assert pipeline.rows("SELECT intakes_found, status FROM run_accounts") == [(9, "cancelled")]


@pytest.fixture
def _pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_batches, "MAX_DOCUMENTS", 2)
    monkeypatch.setattr(document_batches, "FLUSH_SECONDS", 60)


@pytest.mark.usefixtures("_pairs")
def test_an_inbox_stops_when_its_run_is_cancelled(inbox: WatchedInbox) -> None:
    letters = "".join(
        f"From a@b.org Tue Nov 24 12:0{n}:00 2026\nSubject: {n}\n\nLetter {n}. {PARAGRAPH}\n\n"
        for n in range(6)
    )
    inbox.pipeline.execute(CANCEL_AT_THE_SECOND)
    inbox.pipeline.execute(ON_INTAKES)
    inbox.drop("letters.mbox", letters)

    inbox.take()
    recover(inbox.pipeline.context)
    inbox.wait(1)

    assert inbox.folders.note(inbox.folders.failed / "letters.mbox")["reason"] == "cancelled"
    assert inbox.pipeline.value("SELECT count(*) FROM intakes WHERE outcome <> 'not_taken'") == 2
    assert inbox.pipeline.value(STATUSES) == ["cancelled"]


@pytest.mark.usefixtures("_pairs")
def test_a_schedule_stops_when_its_run_is_cancelled(settings: Settings, tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text(f"Letter {number}. {PARAGRAPH}", "utf-8")
    scheduler = a_scheduler(settings, letters=nightly(tmp_path))
    scheduler.pipeline.execute(CANCEL_AT_THE_SECOND)
    scheduler.pipeline.execute(ON_INTAKES)
    scheduler.start_at("2026-03-28T02:31")

    scheduler.carry_out()
    recover(scheduler.pipeline.context)

    assert scheduler.rows("SELECT status, error_code FROM schedule_runs") == [
        ("failed", "cancelled")
    ]
    assert scheduler.rows("SELECT count(*) FROM intakes WHERE outcome <> 'not_taken'") == [(2,)]
    assert scheduler.rows("SELECT intake_status FROM run_accounts") == [("interrupted",)]
    assert scheduler.pipeline.value(STATUSES) == ["cancelled"]


def test_a_batch_is_submitted_without_the_questions_of_a_cancelled_run(
    settings: Settings, provider: BatchProvider
) -> None:
    pipeline = opened(settings, provider)
    kept = pipeline.submit(PARAGRAPH, options=in_batches("100"))
    cancelled = pipeline.submit(OTHER, options=in_batches("100"))
    for submission in (kept, cancelled):
        pipeline.work(submission)
    provider.statuses = {"upload": 503}
    pass_time(pipeline)
    assert pipeline.value("SELECT status FROM batches") == "preparing"

    run_control.cancel(pipeline.context.database, cancelled.run_id)
    provider.statuses = {}
    work_until_finished(pipeline, kept)

    lines = [str(line) for batch in provider.batches for line in batch.lines]
    assert len(lines) == 1
    assert "Bregenz" not in lines[0]
    assert pipeline.job(kept).status == JobStatus.SUCCEEDED
    spent = "SELECT spent_usd FROM budgets WHERE run_id = :id"
    assert pipeline.value(spent, id=cancelled.run_id) == 0
    check_invariants(pipeline, provider, rejected=2)
