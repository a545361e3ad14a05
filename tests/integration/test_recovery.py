"""Tests of work that is delivered twice, postponed, paused, lost or returned."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from chordwise.domain.states import ChunkStatus, JobStatus
from chordwise.errors import ModelAccessError, ModelOverloadedError, RateLimitedError
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.jobs import run_control
from chordwise.pipeline.jobs.analyze_chunk import ChunkOutcome, analyze_chunk
from chordwise.pipeline.jobs.dispatch import dispatch
from chordwise.pipeline.jobs.fan_out import fan_out
from chordwise.pipeline.jobs.synthesize import synthesize
from chordwise.pipeline.recovery.chunks import resend_lost
from chordwise.pipeline.recovery.recover import recover, resume_after_standstill
from chordwise.pipeline.runtime.messages import CHUNK_QUEUE, CONTROL_QUEUE
from chordwise.settings import Settings
from tests.fakes.pipeline import LONG, PARAGRAPH, Pipeline, a_pipeline, quoting_the_text


def test_a_chunk_under_a_valid_lease_is_not_claimed(settings: Settings) -> None:
    pipeline = a_pipeline(settings)
    ((_, chunk_id),) = pipeline.fan_out(PARAGRAPH)
    pipeline.claim(chunk_id)

    assert analyze_chunk(pipeline.context, chunk_id) is ChunkOutcome.NOT_ENDED
    assert pipeline.model.requests == []


def test_a_transient_error_postpones_a_chunk_without_an_attempt(settings: Settings) -> None:
    pipeline = a_pipeline(settings, ModelOverloadedError("Busy."), quoting_the_text)
    submission = pipeline.analyze(PARAGRAPH)
    job = pipeline.job(submission)
    assert job.status == JobStatus.WAITING
    assert pipeline.value("SELECT attempts = 0 AND postponements = 1 FROM chunks")
    pipeline.execute("UPDATE outbox SET sent_at = now()")
    pipeline.execute("UPDATE chunks SET due_at = now() - interval '1 second', sent_at = NULL")

    rescued = recover(pipeline.context)
    pipeline.work_on(job.id)

    assert rescued["due"] == 1
    assert pipeline.job(submission).status == JobStatus.SUCCEEDED


def test_rate_limiting_does_not_count_as_a_postponement(settings: Settings) -> None:
    pipeline = a_pipeline(settings, RateLimitedError("Too many requests."))

    pipeline.analyze(PARAGRAPH)

    assert pipeline.value("SELECT status FROM chunks") == ChunkStatus.WAITING
    assert pipeline.value("SELECT attempts = 0 AND postponements = 0 FROM chunks")


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


def test_recovery_sends_the_lost_message_of_a_queued_job(settings: Settings) -> None:
    pipeline = a_pipeline(settings)
    pipeline.submit(LONG)
    pipeline.execute("DELETE FROM outbox")
    pipeline.execute("UPDATE jobs SET created_at = now() - interval '1 hour'")
    pipeline.execute("UPDATE jobs SET last_progress_at = created_at")

    assert recover(pipeline.context)["job_message_lost"] == 1
    assert pipeline.value("SELECT task FROM outbox") == "chordwise.fan_out"


def test_recovery_sends_a_lost_chunk_again(settings: Settings) -> None:
    pipeline = a_pipeline(settings)
    pipeline.submit(PARAGRAPH)
    dispatch(pipeline.context)
    pipeline.execute("DELETE FROM outbox")
    pipeline.execute("UPDATE chunks SET sent_at = now() - interval '1 hour'")

    while_it_waits = recover(pipeline.context)
    with pipeline.context.messenger._app.connection_for_write() as connection:
        connection.default_channel.queue_purge(CHUNK_QUEUE)
    rescued = recover(pipeline.context)

    assert "chunk_message_lost" not in while_it_waits
    assert rescued["chunk_message_lost"] == 1
    assert pipeline.value("SELECT task FROM outbox") == "chordwise.analyze_slice"


def test_a_due_chunk_counts_as_due_and_not_as_lost(settings: Settings) -> None:
    """The rule for due work sends it, although later messages were processed."""
    pipeline = a_pipeline(settings)
    (_, late), (_, taken), *_ = pipeline.fan_out(LONG)
    pipeline.claim(taken)
    pipeline.execute(
        "UPDATE chunks SET status = 'waiting', due_at = now() - interval '1 second',"
        " sent_at = now() - interval '1 minute' WHERE id = :id",
        id=late,
    )

    with pipeline.context.database.write() as session:
        lost = resend_lost(pipeline.context, session)

    assert lost == 0
    assert recover(pipeline.context)["due"] == 1


def test_a_document_whose_splitting_ends_workers_is_quarantined(settings: Settings) -> None:
    """Each attempt counts, although recovery has just sent the job again."""
    pipeline = a_pipeline(settings)
    job = pipeline.jobs(pipeline.submit(LONG))[0]
    begun: list[bool] = []
    for _ in range(4):
        begun.append(pipeline.context.stores.fan_outs.begin(job.id) is not None)
        pipeline.execute("UPDATE jobs SET last_progress_at = now() - interval '2 hours'")
        pipeline.execute("UPDATE jobs SET created_at = now() - interval '2 hours'")
        pipeline.execute("DELETE FROM outbox")
        recover(pipeline.context)

    fan_out(pipeline.context, job.id)

    assert begun == [True, True, True, False]
    assert pipeline.value("SELECT status FROM jobs") == "quarantined"


def test_recovery_detects_a_broker_that_lost_data(settings: Settings, valkey: redis.Redis) -> None:
    """If the marker is missing, all unclaimed work is sent again at once."""
    pipeline = a_pipeline(settings)
    submission = pipeline.submit(PARAGRAPH, f"Another text. {PARAGRAPH}")
    recover(pipeline.context)
    fan_out(pipeline.context, pipeline.jobs(submission)[0].id)
    pipeline.execute("DELETE FROM outbox")
    valkey.flushall()

    assert recover(pipeline.context)["broker_data_lost"] == 2
    assert "broker_data_lost" not in recover(pipeline.context)


def test_a_new_leader_sends_unclaimed_work(settings: Settings) -> None:
    pipeline = a_pipeline(settings)
    submission = pipeline.submit(PARAGRAPH, f"Another text. {PARAGRAPH}")
    fan_out(pipeline.context, pipeline.jobs(submission)[0].id)
    pipeline.execute("DELETE FROM outbox")

    assert [resume_after_standstill(pipeline.context) for _ in range(2)] == [2, 0]
    assert pipeline.value("SELECT count(*) FROM outbox") == 2


def test_a_new_leader_does_not_send_work_in_progress(settings: Settings) -> None:
    """As long as one lease is valid, a worker exists to receive the messages."""
    pipeline = a_pipeline(settings)
    submission = pipeline.submit(PARAGRAPH, f"Another text. {PARAGRAPH}")
    job = pipeline.jobs(submission)[0]
    fan_out(pipeline.context, job.id)
    (chunk_id,) = pipeline.open_chunks(job.id)
    pipeline.claim(chunk_id)
    pipeline.execute("DELETE FROM outbox")

    assert resume_after_standstill(pipeline.context) == 0


def test_only_one_synthesis_is_run(settings: Settings) -> None:
    """Both the callback of the chord and the message of the outbox may arrive."""
    pipeline = a_pipeline(settings, quoting_the_text)
    submission = pipeline.analyze(PARAGRAPH)
    job = pipeline.job(submission)

    synthesize(pipeline.context, job.id)

    assert pipeline.value("SELECT count(*) FROM results") == 1
    assert pipeline.value("SELECT count(*) FROM result_history") == 0


def test_a_synthesis_waits_for_every_chunk(small_chunks: Settings) -> None:
    pipeline = a_pipeline(small_chunks, quoting_the_text, repeat_last=True)
    (job_id, chunk_id), *_ = pipeline.fan_out(LONG)
    analyze_chunk(pipeline.context, chunk_id)

    synthesize(pipeline.context, job_id)

    assert pipeline.value("SELECT status FROM jobs") == JobStatus.RUNNING
    assert pipeline.value("SELECT count(*) FROM results") == 0


def test_a_shutdown_releases_its_chunks(settings: Settings) -> None:
    def shut_down(request: CompletionRequest) -> str:
        assert pipeline.context.leases.release_all() == 1
        return quoting_the_text(request)

    pipeline = a_pipeline(settings, shut_down)
    ((_, chunk_id),) = pipeline.fan_out(PARAGRAPH)
    pipeline.execute("DELETE FROM outbox")

    assert analyze_chunk(pipeline.context, chunk_id) is ChunkOutcome.NOT_ENDED
    assert pipeline.value("SELECT status = 'pending' AND attempts = 0 FROM chunks")
    assert pipeline.value("SELECT reason FROM outbox") == "shutdown"


LONG_AGO = "UPDATE jobs SET last_progress_at = now() - interval '1 hour'"


@pytest.fixture(name="pipeline")
def _pipeline(settings: Settings) -> Pipeline:
    return a_pipeline(settings, quoting_the_text, repeat_last=True)


def without_synthesis(pipeline: Pipeline) -> uuid.UUID:
    """Return the id of a job whose chunks have ended and whose synthesis was not sent."""
    work = pipeline.fan_out(LONG)
    for _, chunk_id in work:
        analyze_chunk(pipeline.context, chunk_id)
    pipeline.execute("DELETE FROM outbox")
    return work[0][0]


def occupy_a_worker(pipeline: Pipeline) -> None:
    ((_, chunk_id),) = pipeline.fan_out(f"Another text. {PARAGRAPH}")
    pipeline.claim(chunk_id)
    pipeline.execute("DELETE FROM outbox")


@contextmanager
def queued(pipeline: Pipeline, count: int) -> Iterator[None]:
    with pipeline.context.messenger._app.connection_for_write() as connection:
        channel = connection.default_channel
        channel.client.rpush(CONTROL_QUEUE, *["a message"] * count)
        yield
        channel.queue_purge(CONTROL_QUEUE)


def test_a_lost_synthesis_is_sent_again_unless_the_queue_is_long(pipeline: Pipeline) -> None:
    """If thousands of messages wait before it, sending it again would only lengthen the queue."""
    without_synthesis(pipeline)
    occupy_a_worker(pipeline)
    pipeline.execute(LONG_AGO)

    with queued(pipeline, 501):
        in_the_crowd = recover(pipeline.context)
    with queued(pipeline, 500):
        rescued = recover(pipeline.context)

    assert "synthesis_missing" not in in_the_crowd
    assert rescued["synthesis_missing"] == 1
    assert pipeline.value("SELECT task FROM outbox") == "chordwise.synthesize"


@pytest.mark.parametrize(
    "state",
    [
        "status = 'waiting', due_at = now() - interval '1 second'",
        "status = 'synthesizing', lease_until = now() - interval '1 second'",
    ],
    ids=["due", "abandoned"],
)
def test_a_synthesis_without_a_message_is_sent_regardless(pipeline: Pipeline, state: str) -> None:
    """It was postponed, or its worker died: it is sent once."""
    job_id = without_synthesis(pipeline)
    occupy_a_worker(pipeline)
    pipeline.execute("UPDATE jobs SET last_progress_at = now() - interval '1 minute'")
    pipeline.execute(f"UPDATE jobs SET {state} WHERE id = :id", id=job_id)  # noqa: S608 - our own words

    with queued(pipeline, 501):
        rescued = recover(pipeline.context)
        pipeline.execute("DELETE FROM outbox")  # the broker has it
        again = recover(pipeline.context)

    assert rescued["synthesis_missing"] == 1
    assert again == {}
