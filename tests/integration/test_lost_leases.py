"""Leases that were lost are counted: once each, whoever notices, and no others."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

from chordwise.domain.states import ChunkStatus
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.jobs.analyze_chunk import ChunkOutcome, analyze_chunk
from chordwise.pipeline.jobs.fan_out import fan_out
from chordwise.pipeline.runtime.leases import Lease
from chordwise.settings import Settings
from tests.fakes.pipeline import AWAY, LONG, PARAGRAPH, Pipeline, a_pipeline, quoting_the_text
from tests.fakes.processes import wait_until

LOSSES = "SELECT coalesce(string_agg(reason || count, ' '), '') FROM incidents"


def a_chunk(pipeline: Pipeline) -> uuid.UUID:
    """Fan a document of one chunk out; return the chunk."""
    job = pipeline.job(pipeline.submit(PARAGRAPH))
    fan_out(pipeline.context, job.id)
    (chunk_id,) = pipeline.open_chunks(job.id)
    return chunk_id


def test_a_late_answer_is_counted_as_a_lost_lease(settings: Settings) -> None:
    """The heartbeat comes after the answer: one loss, of which the answer has told."""

    def slowly(request: CompletionRequest) -> str:
        pipeline.expire_leases()
        pipeline.claim(chunk_id)
        return quoting_the_text(request)

    pipeline = a_pipeline(settings, slowly)
    chunk_id = a_chunk(pipeline)

    outcome = analyze_chunk(pipeline.context, chunk_id)

    pipeline.context.leases.beat()
    pipeline.context.leases.beat()
    assert outcome is ChunkOutcome.NOT_ENDED
    assert pipeline.value("SELECT status || attempts FROM chunks") == f"{ChunkStatus.RUNNING}2"
    assert pipeline.value(LOSSES) == "answer1"


def test_a_heartbeat_counts_a_lost_lease_once(settings: Settings) -> None:
    """The heartbeat comes first: what the answer finds out later is known already."""

    def more_slowly(request: CompletionRequest) -> str:
        pipeline.expire_leases()
        pipeline.claim(chunk_id)
        pipeline.context.leases.beat()
        return quoting_the_text(request)

    pipeline = a_pipeline(settings, more_slowly)
    chunk_id = a_chunk(pipeline)

    analyze_chunk(pipeline.context, chunk_id)

    pipeline.context.leases.beat()
    assert pipeline.value(LOSSES) == "heartbeat1"


def test_work_that_has_just_ended_is_not_lost(settings: Settings) -> None:
    """A heartbeat between the end and the release of the lease takes it for what it is."""
    pipeline = a_pipeline(settings, quoting_the_text)
    chunk_id = a_chunk(pipeline)
    analyze_chunk(pipeline.context, chunk_id)
    token = pipeline.value("SELECT lease_token FROM chunks")
    assert isinstance(token, uuid.UUID)
    lease = Lease(job_id=uuid.uuid4(), chunk_id=chunk_id, token=token)

    with pipeline.context.leases.holding(lease):
        pipeline.context.leases.beat()

    assert not lease.lost
    assert pipeline.value(LOSSES) == ""


def test_what_was_taken_over_is_not_asked(small_chunks: Settings) -> None:
    """A chunk that waits for its permit when another worker takes it over is asked by that one."""
    is_asked, may_answer = threading.Event(), threading.Event()

    def slowly(request: CompletionRequest) -> str:
        is_asked.set()
        assert may_answer.wait(30)
        return quoting_the_text(request)

    alone = AWAY.model_copy(update={"max_in_flight": 1})
    pipeline = a_pipeline(small_chunks, slowly, repeat_last=True, named=alone)
    job = pipeline.job(pipeline.submit(LONG))
    fan_out(pipeline.context, job.id)
    first, second = pipeline.open_chunks(job.id)[:2]

    with ThreadPoolExecutor(2) as workers:
        workers.submit(analyze_chunk, pipeline.context, first)
        assert is_asked.wait(30)
        waiting = workers.submit(analyze_chunk, pipeline.context, second)
        claimed = "SELECT count(*) = 2 FROM chunks WHERE status = 'running'"
        wait_until(lambda: pipeline.value(claimed) is True, 30, claimed)
        pipeline.expire_leases()
        pipeline.claim(second)
        may_answer.set()
        assert waiting.result(30) is ChunkOutcome.NOT_ENDED

    assert len(pipeline.model.requests) == 1
    assert pipeline.value("SELECT count(*) FROM model_calls") == 1
