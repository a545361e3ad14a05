"""Tests that a slow or unavailable broker does not cause repeated or endless messages."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from threading import Event
from typing import cast

import pytest

from chordwise.pipeline.jobs.analyze_chunk import analyze_chunk
from chordwise.pipeline.jobs.dispatch import dispatch
from chordwise.pipeline.jobs.fan_out import fan_out
from chordwise.pipeline.jobs.synthesize import synthesize
from chordwise.pipeline.recovery.recover import recover
from chordwise.pipeline.runtime.messages import CHUNK_QUEUE, FAN_OUT, MAX_SLICE, Messenger, sliced
from chordwise.settings import Settings
from tests.fakes.pipeline import LONG, a_pipeline, quoting_the_text, with_settings
from worker.chunk_threads import ChunkThreads
from worker.tasks import analyze_slice

TEXTS = [f"{number}. {LONG}" for number in range(4)]
LONG_AGO = """
UPDATE jobs SET created_at = now() - interval '1 hour', last_progress_at = now() - interval '1 hour'
"""


class SlowMessenger:
    """Takes a third of a second for each message."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def send(self, task: str, ids: Sequence[str]) -> None:
        Event().wait(0.3)
        self.sent.append(f"{task} {ids}")


def test_sent_messages_are_recorded_in_short_transactions(settings: Settings) -> None:
    """They last at most a quarter of a lease, and every message is sent once."""
    pipeline = a_pipeline(with_settings(settings, "pipeline", lease_seconds=1.0))
    pipeline.submit(*TEXTS)
    messenger = SlowMessenger()
    context = replace(pipeline.context, messenger=cast("Messenger", messenger))

    assert dispatch(context) == 1
    assert pipeline.value("SELECT count(*) FROM outbox WHERE sent_at IS NOT NULL") == 1
    while dispatch(context):
        continue
    assert len(messenger.sent) == len(set(messenger.sent)) == len(TEXTS)


@pytest.mark.parametrize("got_lost", [False, True])
def test_each_job_has_one_pending_message(settings: Settings, *, got_lost: bool) -> None:
    pipeline = a_pipeline(settings)
    pipeline.submit(*TEXTS)
    if got_lost:
        pipeline.execute("UPDATE outbox SET sent_at = now()")

    for _ in range(3):
        pipeline.execute(LONG_AGO)
        recover(pipeline.context)

    assert pipeline.value("SELECT count(*) FROM outbox WHERE sent_at IS NULL") == len(TEXTS)


def test_the_body_of_a_chord_makes_the_delayed_message_unnecessary(settings: Settings) -> None:
    """The delayed message is dropped if the synthesis is finished when it becomes due."""
    pipeline = a_pipeline(
        with_settings(settings, "pipeline", chunk_tokens=75), quoting_the_text, repeat_last=True
    )
    job = pipeline.job(pipeline.submit(LONG))
    messenger = SlowMessenger()
    context = replace(pipeline.context, messenger=cast("Messenger", messenger))
    dispatch(context)
    fan_out(pipeline.context, job.id)
    for chunk_id in pipeline.open_chunks(job.id):
        analyze_chunk(pipeline.context, chunk_id)

    early = dispatch(context)
    synthesize(pipeline.context, job.id)
    pipeline.execute("UPDATE outbox SET due_at = now()")
    late = dispatch(context)

    assert int(str(pipeline.value("SELECT chunk_count FROM jobs"))) > MAX_SLICE
    assert (early, late) == (0, 1)
    assert messenger.sent == [f"{FAN_OUT} ['{job.id}']"]
    assert pipeline.value("SELECT bool_and(sent_at IS NOT NULL) FROM outbox")


@pytest.mark.parametrize(("chunk_tokens", "status"), [(400, "succeeded"), (75, "running")])
def test_one_message_completes_a_job(settings: Settings, chunk_tokens: int, status: str) -> None:
    """The synthesis follows the last chunk without a message, or is the body of a chord."""
    narrow = with_settings(settings, "pipeline", chunk_tokens=chunk_tokens)
    pipeline = a_pipeline(narrow, quoting_the_text, repeat_last=True)
    job = pipeline.job(pipeline.submit(LONG))
    messenger = SlowMessenger()
    context = replace(pipeline.context, messenger=cast("Messenger", messenger))
    dispatch(context)
    fan_out(pipeline.context, job.id)

    for ids in sliced(pipeline.open_chunks(job.id)):
        analyze_slice(pipeline.context, ChunkThreads(4), ids)
    dispatch(context)

    assert pipeline.value("SELECT status FROM jobs") == status
    assert messenger.sent == [f"{FAN_OUT} ['{job.id}']"]
    promised = "SELECT count(*) FROM outbox WHERE sent_at IS NULL AND due_at > now()"
    assert pipeline.value(promised) == 1


def test_the_message_that_splits_a_short_document_completes_its_job(settings: Settings) -> None:
    pipeline = a_pipeline(
        with_settings(settings, "pipeline", chunk_tokens=400), quoting_the_text, repeat_last=True
    )
    job = pipeline.job(pipeline.submit(LONG))
    messenger = SlowMessenger()
    context = replace(pipeline.context, messenger=cast("Messenger", messenger))

    analyzed = fan_out(context, job.id, partial(analyze_slice, context, ChunkThreads(4)))

    assert pipeline.value("SELECT status FROM jobs") == "succeeded"
    assert pipeline.value("SELECT count(*) FROM chunks WHERE sent_at IS NULL") == analyzed
    assert not messenger.sent


def test_a_long_document_is_a_few_small_messages(settings: Settings) -> None:
    messenger = a_pipeline(settings).context.messenger
    slices = [[uuid.uuid4() for _ in range(MAX_SLICE)] for _ in range(4)]
    with messenger._client() as client:
        client.delete(CHUNK_QUEUE)

        messenger.start_chord(uuid.uuid4(), slices)

        found = client.lrange(f"chordwise:{CHUNK_QUEUE}", 0, -1)
        client.delete(CHUNK_QUEUE)
    assert len(found) == len(slices)
    assert max(map(len, found)) <= 64 * MAX_SLICE + 2_500, list(map(len, found))
