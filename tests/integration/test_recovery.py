"""Tests of work that is delivered twice, postponed, paused, lost or returned."""

from __future__ import annotations

import pytest

from chordwise.domain.states import ChunkStatus, JobStatus
from chordwise.errors import (
    ModelAccessError,
    ModelError,
    ModelOverloadedError,
    RateLimitedError,
)
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.jobs import run_control
from chordwise.pipeline.jobs.analyze_chunk import ChunkOutcome, analyze_chunk
from chordwise.pipeline.jobs.dispatch import dispatch
from chordwise.pipeline.jobs.fan_out import fan_out
from chordwise.pipeline.jobs.synthesize import synthesize
from chordwise.pipeline.recovery.recover import recover
from chordwise.settings import Settings
from tests.fakes.pipeline import LONG, PARAGRAPH, a_pipeline, quoting_the_text


@pytest.mark.parametrize(
    ("error", "postponements"),
    [(ModelOverloadedError("Busy."), 1), (RateLimitedError("Too many requests."), 0)],
)
def test_a_transient_error_postpones_a_chunk_without_an_attempt(
    settings: Settings, error: ModelError, postponements: int
) -> None:
    """Rate limiting does not count as a postponement."""
    pipeline = a_pipeline(settings, error, quoting_the_text)
    submission = pipeline.analyze(PARAGRAPH)
    job = pipeline.job(submission)
    assert job.status == JobStatus.WAITING
    counted = "SELECT status, attempts, postponements FROM chunks"
    assert pipeline.rows(counted) == [(ChunkStatus.WAITING, 0, postponements)]
    early = dispatch(pipeline.context).sent
    for table in ("outbox", "chunks"):
        pipeline.execute(f"UPDATE {table} SET due_at = now() - interval '1 second'")  # noqa: S608 - our own words

    sent = dispatch(pipeline.context).sent
    pipeline.work_on(job.id)

    assert (early, sent) == (0, 1)
    assert pipeline.job(submission).status == JobStatus.SUCCEEDED


def test_a_rejected_key_pauses_the_run_until_a_retry(settings: Settings) -> None:
    pipeline = a_pipeline(
        settings, ModelAccessError("The key is refused."), quoting_the_text, quoting_the_text
    )
    submission = pipeline.analyze(PARAGRAPH, f"Another text. {PARAGRAPH}")
    assert [job.status for job in pipeline.jobs(submission)] == [JobStatus.PAUSED] * 2
    assert pipeline.value("SELECT status FROM runs") == "paused"
    assert len(pipeline.model.requests) == 1

    retried = run_control.retry(pipeline.context, submission.run_id)
    pipeline.work(submission)

    assert retried == 2
    assert [job.status for job in pipeline.jobs(submission)] == [JobStatus.SUCCEEDED] * 2
    assert pipeline.value("SELECT status FROM runs") == "finished"


def test_a_chunk_that_kills_its_workers_is_quarantined(settings: Settings) -> None:
    pipeline = a_pipeline(settings)
    ((job_id, chunk_id),) = pipeline.fan_out(PARAGRAPH)
    for _ in range(3):
        pipeline.claim(chunk_id)
        pipeline.expire_leases()
        recover(pipeline.context)

    synthesize(pipeline.context, job_id)

    assert pipeline.value("SELECT status FROM chunks") == ChunkStatus.QUARANTINED
    assert pipeline.rows("SELECT status, error_code FROM jobs") == [
        (JobStatus.QUARANTINED, "worker_lost")
    ]


def test_a_document_whose_splitting_ends_workers_is_quarantined(settings: Settings) -> None:
    """Each attempt counts; the message is repeated when the attempt has made no progress."""
    pipeline = a_pipeline(settings)
    job = pipeline.jobs(pipeline.submit(LONG))[0]
    begun: list[bool] = []
    for _ in range(4):
        begun.append(pipeline.context.stores.fan_outs.begin(job.id) is not None)
        pipeline.execute("UPDATE jobs SET last_progress_at = now() - interval '2 hours'")
        pipeline.execute("UPDATE outbox SET due_at = now()")
        dispatch(pipeline.context)

    fan_out(pipeline.context, job.id)

    assert begun == [True, True, True, False]
    assert pipeline.value("SELECT status FROM jobs") == "quarantined"


def test_only_one_synthesis_is_run(small_chunks: Settings) -> None:
    """It waits for every chunk; the callback of the chord and a message may both arrive."""
    pipeline = a_pipeline(small_chunks, quoting_the_text, repeat_last=True)
    chunks = pipeline.fan_out(LONG)
    job_id = chunks[0][0]
    results = "SELECT (SELECT count(*) FROM results), (SELECT count(*) FROM result_history)"
    for _, chunk_id in chunks:
        synthesize(pipeline.context, job_id)
        assert pipeline.value("SELECT status FROM jobs") == JobStatus.RUNNING
        assert pipeline.rows(results) == [(0, 0)]
        analyze_chunk(pipeline.context, chunk_id)

    for _ in range(2):
        synthesize(pipeline.context, job_id)

        assert pipeline.rows(results) == [(1, 0)]


def test_a_shutdown_releases_its_chunks(settings: Settings) -> None:
    def shut_down(request: CompletionRequest) -> str:
        assert pipeline.context.leases.release_all() == 1
        return quoting_the_text(request)

    pipeline = a_pipeline(settings, shut_down)
    ((_, chunk_id),) = pipeline.fan_out(PARAGRAPH)

    assert analyze_chunk(pipeline.context, chunk_id) is ChunkOutcome.NOT_ENDED
    assert pipeline.value("SELECT status = 'pending' AND attempts = 0 FROM chunks")
    assert pipeline.value("SELECT reason FROM outbox") == "shutdown"
