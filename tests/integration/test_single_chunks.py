"""Tests of documents of one chunk: no fan-out, no synthesis, a result at the chunk's end."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from functools import partial
from threading import Event
from typing import cast

import pytest
from sqlalchemy.orm import Session

from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType, Stage
from chordwise.domain.states import JobStatus
from chordwise.errors import RefusedError
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.jobs import job_results, run_control
from chordwise.pipeline.jobs.analyze_chunk import ChunkOutcome, SliceClaims, analyze_chunk
from chordwise.pipeline.jobs.dispatch import dispatch
from chordwise.pipeline.jobs.fan_out import fan_out
from chordwise.pipeline.jobs.synthesize import synthesize
from chordwise.pipeline.recovery.recover import promise_missing
from chordwise.pipeline.runtime.messages import ANALYZE_SLICE, FAN_OUT, SYNTHESIZE, Messenger
from chordwise.settings import ModelSettings, Settings
from chordwise.storage import group_commit, results
from chordwise.storage.results import NewResult
from tests.fakes.counting import counting
from tests.fakes.order_rows import ORDER, SCHEMA, an_extraction, rows_in
from tests.fakes.pipeline import (
    LONG,
    PARAGRAPH,
    Pipeline,
    a_pipeline,
    a_run,
    a_summary,
    quoting_the_text,
    with_settings,
)
from tests.fakes.scripted_model import Line
from worker.tasks import analyze_slice
from worker.threads import ChunkThreads

TEXTS = [f"{number}. {PARAGRAPH}" for number in range(16)]
SOME_ROWS = "".join(ORDER.splitlines(keepends=True)[:20])
INVALID_ROWS = an_extraction([*rows_in(SOME_ROWS)[:-1], {"name": "Part-19"}])
TASKS = "SELECT coalesce(array_agg(DISTINCT task ORDER BY task), '{}') FROM outbox"
CHUNKS = "SELECT id FROM chunks WHERE status = 'pending' ORDER BY id"
RESULTS = """
SELECT to_jsonb(r) - '{id,job_id,document_id,created_at}'::text[] AS result,
       j.status, j.error_code, j.error_message, j.hint, j.chunk_count, j.open_chunks,
       j.started_at IS NOT NULL AND j.finished_at >= j.started_at AS in_order, j.lease_until,
       (SELECT jsonb_agg(to_jsonb(f) - '{id,job_id}'::text[] ORDER BY f.path)
        FROM facts f WHERE f.job_id = j.id) AS facts
FROM jobs j LEFT JOIN results r ON r.job_id = j.id
"""


class Messages:
    """Records the messages that are sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Sequence[uuid.UUID]]] = []

    def send(self, task: str, ids: Sequence[uuid.UUID], *, is_nightly: bool = False) -> None:
        assert not is_nightly
        self.sent.append((task, ids))


def work_together(pipeline: Pipeline, chunk_ids: Sequence[uuid.UUID]) -> list[ChunkOutcome]:
    work = partial(analyze_chunk, pipeline.context, claims=SliceClaims(pipeline.context, chunk_ids))
    with ThreadPoolExecutor(len(chunk_ids)) as threads:
        return list(threads.map(work, chunk_ids))


def pending(pipeline: Pipeline) -> list[uuid.UUID]:
    return [uuid.UUID(str(row[0])) for row in pipeline.rows(CHUNKS)]


def promising_the_synthesis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every job use a synthesis, like those whose result needs a question."""
    monkeypatch.setattr(job_results, "of_only_chunk", lambda *_: None)


def test_small_documents_share_messages(settings: Settings) -> None:
    pipeline = a_pipeline(settings, quoting_the_text, repeat_last=True)
    messages = Messages()
    context = replace(pipeline.context, messenger=cast("Messenger", messages))

    submission = pipeline.submit(*TEXTS)
    sent = dispatch(context).sent
    for task, ids in messages.sent:
        assert task == ANALYZE_SLICE
        work_together(pipeline, ids)

    assert sent == len(TEXTS)
    assert len(messages.sent) == -(-len(TEXTS) // min(16, settings.worker.concurrency))
    assert pipeline.value(TASKS) == []
    assert {job.status for job in pipeline.jobs(submission)} == {JobStatus.SUCCEEDED}
    assert pipeline.value("SELECT count(*) FROM results") == len(TEXTS)
    assert pipeline.value("SELECT status FROM runs") == "finished"
    assert pipeline.value("SELECT count(*) FROM deliveries WHERE event = 'run.finished'") == 2
    assert dispatch(context).sent == 0


@pytest.mark.parametrize(("budget_usd", "extra"), [(None, 0), (Decimal(50), 1)])
def test_documents_of_a_message_share_their_statements(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    budget_usd: Decimal | None,
    extra: float,
) -> None:
    """Claims, calls, ends, results and reservations of 16 documents need a few statements.

    Groups fill up, however slow the machine is.
    """
    monkeypatch.setattr(group_commit, "_sleep", lambda _: Event().wait(0.2))
    pipeline = a_pipeline(settings, quoting_the_text, repeat_last=True)
    pipeline.submit(*TEXTS, options=replace(a_run(), use_cache=False, budget_usd=budget_usd))
    chunk_ids = pending(pipeline)

    with counting(pipeline) as counts:
        outcomes = work_together(pipeline, chunk_ids)

    assert set(outcomes) == {ChunkOutcome.ENDED}
    assert counts.statements <= (2 + extra) * len(TEXTS), counts
    assert counts.transactions <= (0.5 + extra / 4) * len(TEXTS), counts


@pytest.mark.parametrize(
    ("text", "script"),
    [
        (PARAGRAPH, [quoting_the_text]),
        (PARAGRAPH, [a_summary("The harbour of Lindau", confidence=1)]),
        (PARAGRAPH, [RefusedError("It does not answer that.")]),
        (f"{PARAGRAPH}\u202e", [quoting_the_text]),
        (SOME_ROWS, [INVALID_ROWS, an_extraction(rows_in(SOME_ROWS)[:5])]),
    ],
    ids=["succeeds", "is unsure", "fails", "is odd", "lacks rows"],
)
def test_the_result_is_equal_to_that_of_a_synthesis(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, text: str, script: list[Line]
) -> None:
    pipeline = a_pipeline(settings, *script, *script)
    kind = AnalysisType.EXTRACTION if text == SOME_ROWS else AnalysisType.SUMMARY
    schema = SCHEMA if text == SOME_ROWS else None
    analysis = AnalysisOptions(schema=schema, confidence_threshold=0.5)
    options = replace(a_run(kind, analysis=analysis), use_cache=False)
    pipeline.analyze(text, options=options)
    at_once = pipeline.rows(RESULTS)

    pipeline.execute("TRUNCATE runs, documents, outbox CASCADE")
    promising_the_synthesis(monkeypatch)
    pipeline.analyze(text, options=replace(options, name="another"))

    assert at_once == pipeline.rows(RESULTS)


def test_only_a_text_that_does_not_fit_is_fanned_out(settings: Settings) -> None:
    """With a model that cannot be opened, fan-out writes the chunk: workers may have its key."""
    keyless = ModelSettings(provider="openai", model="gpt-4o-mini", api_key_env="MISSING_API_KEY")
    changed = settings.model_copy(update={"models": {**settings.models, "keyless": keyless}})
    pipeline = a_pipeline(with_settings(changed, "pipeline", chunk_tokens=100))
    pipeline.submit(PARAGRAPH, options=replace(a_run(), model="keyless"))
    assert pipeline.value(TASKS) == [FAN_OUT]
    assert pipeline.value("SELECT count(*) FROM chunks") == 0

    submission = pipeline.submit(PARAGRAPH, LONG)

    small, large = pipeline.jobs(submission)
    assert (small.status, small.chunk_count, small.open_chunks) == (JobStatus.RUNNING, 1, 1)
    assert (large.status, large.chunk_count, large.open_chunks) == (JobStatus.QUEUED, None, None)
    assert pipeline.value(TASKS) == [ANALYZE_SLICE, FAN_OUT]
    assert pipeline.rows("SELECT position, start_char, end_char FROM chunks") == [
        (0, 0, len(PARAGRAPH))
    ]
    assert fan_out(pipeline.context, small.id) == 0


@pytest.mark.parametrize(
    "statement", ["UPDATE jobs SET status = 'paused'", "UPDATE runs SET status = 'cancelled'"]
)
def test_a_job_stopped_during_a_call_keeps_its_answer(settings: Settings, statement: str) -> None:
    def answer(request: CompletionRequest) -> str:
        pipeline.execute(statement)
        return quoting_the_text(request)

    pipeline = a_pipeline(settings, answer)
    submission = pipeline.submit(PARAGRAPH)

    analyze_chunk(pipeline.context, pending(pipeline)[0])
    before = pipeline.value("SELECT count(*) FROM results")
    run_control.retry(pipeline.context, submission.run_id)
    pipeline.work(submission)

    assert before == 0
    assert pipeline.job(submission).status == JobStatus.SUCCEEDED
    assert len(pipeline.model.requests) == 1


def test_a_retried_job_has_its_previous_result_in_the_history(settings: Settings) -> None:
    pipeline = a_pipeline(settings, quoting_the_text, repeat_last=True)
    submission = pipeline.analyze(PARAGRAPH)
    facts = pipeline.value("SELECT count(*) FROM facts")
    pipeline.execute("UPDATE jobs SET status = 'partial'")
    pipeline.execute("UPDATE chunks SET status = 'failed'")

    run_control.retry(pipeline.context, submission.run_id)
    pipeline.work(submission)

    assert pipeline.job(submission).status == JobStatus.SUCCEEDED
    assert pipeline.value("SELECT count(*) FROM result_history") == 1
    assert pipeline.value("SELECT count(*) FROM facts") == facts


def test_a_result_that_cannot_be_stored_does_not_affect_others(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = a_pipeline(settings, quoting_the_text, repeat_last=True)
    submission = pipeline.submit(*TEXTS[:6])
    bad = pipeline.jobs(submission)[3].id
    save_all = results.save_all

    def refusing(session: Session, new: Sequence[NewResult]) -> None:
        save_all(session, new)
        if bad in {chunk.job_id for chunk in new}:
            raise ValueError("PostgreSQL does not take this result.")

    monkeypatch.setattr(results, "save_all", refusing)
    work_together(pipeline, pending(pipeline))

    assert pipeline.value("SELECT count(*) FROM results") == 5
    assert pipeline.value("SELECT bool_and(status = 'succeeded') FROM chunks")
    assert pipeline.value("SELECT id FROM outbox WHERE task = :task", task=SYNTHESIZE) == bad


def test_a_new_leader_promises_messages_that_are_missing(settings: Settings) -> None:
    """A worker of an older version may have ended the only chunk without a result."""
    pipeline = a_pipeline(settings, quoting_the_text)
    submission = pipeline.submit(PARAGRAPH)
    pipeline.execute("UPDATE chunks SET status = 'failed', error_code = 'x', error_message = 'y'")
    pipeline.execute("DELETE FROM outbox")

    promised = [promise_missing(pipeline.context) for _ in range(2)]
    synthesize(pipeline.context, pipeline.job(submission).id)

    assert promised == [1, 0]
    assert pipeline.job(submission).status == JobStatus.FAILED


def test_a_critique_does_not_wait_for_the_chunks_of_other_jobs(settings: Settings) -> None:
    """Chunks of two jobs share a message; the slow one ends after the critique of the other.

    A critique needs a call to a model, so the end of a chunk alone sends the synthesis.
    """
    is_critiqued = Event()

    def answer(request: CompletionRequest) -> str:
        if request.task.stage is Stage.CRITIQUE:
            is_critiqued.set()
            return '{"violations": []}'
        if "slow" in request.task.text:
            assert is_critiqued.wait(30)
        return quoting_the_text(request)

    pipeline = a_pipeline(settings, answer, repeat_last=True)
    options = a_run(analysis=AnalysisOptions(critique=True))
    alone = pipeline.submit(f"Alone. {PARAGRAPH}", options=options)
    analyze_chunk(pipeline.context, pending(pipeline)[0])
    assert pipeline.job(alone).status == JobStatus.RUNNING
    assert pipeline.value("SELECT count(*) FROM outbox WHERE task = :t", t=SYNTHESIZE) == 1
    submission = pipeline.submit(
        PARAGRAPH, f"A slow text. {PARAGRAPH}", options=replace(options, name="two")
    )

    outcomes = analyze_slice(pipeline.context, ChunkThreads(4), pending(pipeline))

    assert outcomes == [ChunkOutcome.ENDED] * 2
    assert [job.status for job in pipeline.jobs(submission)] == [JobStatus.SUCCEEDED] * 2


def test_runs_that_end_in_one_transaction_are_all_settled(settings: Settings) -> None:
    pipeline = a_pipeline(settings, quoting_the_text, repeat_last=True)
    for text in TEXTS[:5]:
        pipeline.submit(text)

    work_together(pipeline, pending(pipeline))

    assert pipeline.rows("SELECT status, count(*) FROM runs GROUP BY status") == [("finished", 5)]
    assert pipeline.value("SELECT count(*) FROM deliveries") == 10
