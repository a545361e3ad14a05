"""Jobs whose chunks have all ended get their synthesis, and behind a long queue only once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from chordwise.pipeline.jobs.analyze_chunk import analyze_chunk
from chordwise.pipeline.jobs.fan_out import fan_out
from chordwise.pipeline.recovery.recover import recover
from chordwise.pipeline.runtime.messages import CONTROL_QUEUE
from chordwise.settings import Settings
from chordwise.storage.jobs import Job
from tests.fakes.pipeline import LONG, PARAGRAPH, Pipeline, a_pipeline, quoting_the_text

LONG_AGO = "UPDATE jobs SET last_progress_at = now() - interval '1 hour'"


@pytest.fixture
def pipeline(settings: Settings) -> Pipeline:
    """Return a pipeline whose model always answers the same."""
    return a_pipeline(settings, quoting_the_text, repeat_last=True)


def without_synthesis(pipeline: Pipeline) -> Job:
    """Return a job whose chunks have ended and whose synthesis nobody has sent."""
    job = pipeline.job(pipeline.submit(LONG))
    fan_out(pipeline.context, job.id)
    for chunk_id in pipeline.open_chunks(job.id):
        analyze_chunk(pipeline.context, chunk_id)
    pipeline.execute("DELETE FROM outbox")
    return job


def occupy_a_worker(pipeline: Pipeline) -> None:
    """Let somebody hold a lease on a chunk of another job."""
    job = pipeline.job(pipeline.submit(f"Another text. {PARAGRAPH}"))
    fan_out(pipeline.context, job.id)
    pipeline.claim(pipeline.open_chunks(job.id)[0])
    pipeline.execute("DELETE FROM outbox")


@contextmanager
def queued(pipeline: Pipeline, count: int) -> Iterator[None]:
    """Let so many messages wait for a worker."""
    with pipeline.context.messenger._app.connection_for_write() as connection:
        channel = connection.default_channel
        channel.client.rpush(CONTROL_QUEUE, *["a message"] * count)
        yield
        channel.queue_purge(CONTROL_QUEUE)


def test_recovery_finishes_what_the_chord_dropped(pipeline: Pipeline) -> None:
    """All chunks ended and no synthesis came: recovery sends it."""
    without_synthesis(pipeline)
    pipeline.execute(LONG_AGO)

    rescued = recover(pipeline.context)

    assert rescued["synthesis_missing"] == 1
    assert pipeline.value("SELECT task FROM outbox") == "chordwise.synthesize"


def test_a_synthesis_in_a_long_queue_is_not_sent_again(pipeline: Pipeline) -> None:
    """Thousands wait for it to be their turn: sent again they would only make it longer."""
    without_synthesis(pipeline)
    occupy_a_worker(pipeline)
    pipeline.execute(LONG_AGO)

    with queued(pipeline, 501):
        in_the_crowd = recover(pipeline.context)
    with queued(pipeline, 500):
        rescued = recover(pipeline.context)

    assert "synthesis_missing" not in in_the_crowd
    assert rescued["synthesis_missing"] == 1


@pytest.mark.parametrize(
    "state",
    [
        "status = 'waiting', due_at = now() - interval '1 second'",
        "status = 'synthesizing', lease_until = now() - interval '1 second'",
    ],
    ids=["due", "abandoned"],
)
def test_a_synthesis_without_a_message_waits_for_no_queue(pipeline: Pipeline, state: str) -> None:
    """Nothing is in the queue for who put it off, or took it up and died: it is sent, once."""
    job = without_synthesis(pipeline)
    occupy_a_worker(pipeline)
    pipeline.execute("UPDATE jobs SET last_progress_at = now() - interval '1 minute'")
    pipeline.execute(f"UPDATE jobs SET {state} WHERE id = :id", id=job.id)  # noqa: S608 - our own words

    with queued(pipeline, 501):
        rescued = recover(pipeline.context)
        pipeline.execute("DELETE FROM outbox")  # the broker has it
        again = recover(pipeline.context)

    assert rescued["synthesis_missing"] == 1
    assert again == {}
