"""Tests that a slow or unavailable broker does not cause repeated or endless messages."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from threading import Event
from typing import cast

import pytest

from chordwise.pipeline.jobs.analyze_chunk import analyze_chunk
from chordwise.pipeline.jobs.dispatch import MIN_WINDOW, dispatch
from chordwise.pipeline.jobs.fan_out import fan_out
from chordwise.pipeline.jobs.synthesize import synthesize
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.messages import (
    ANALYZE_SLICE,
    CHUNK_QUEUE,
    MAX_SLICE,
    SYNTHESIZE,
    Messenger,
    sliced,
)
from chordwise.settings import Settings
from chordwise.storage import outbox
from chordwise.storage.outbox import Urgency
from tests.fakes.pipeline import (
    LONG,
    PARAGRAPH,
    Pipeline,
    a_pipeline,
    quoting_the_text,
    with_settings,
)
from worker.tasks import analyze_slice
from worker.threads import ChunkThreads


class SlowMessenger:
    """Takes as long for each message as a broker that is almost out of reach."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.sent: list[tuple[str, Sequence[uuid.UUID]]] = []
        self.is_idle = lambda: True
        self._seconds = seconds

    def send(self, task: str, ids: Sequence[uuid.UUID], *, is_nightly: bool = False) -> None:  # noqa: ARG002 - as sent
        Event().wait(self._seconds)
        self.sent.append((task, ids))


def with_messenger(pipeline: Pipeline, messenger: SlowMessenger) -> Context:
    return replace(pipeline.context, messenger=cast("Messenger", messenger))


def test_messages_that_were_not_sent_in_time_follow(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorded sending is withdrawn, and every message is sent once."""
    pipeline = a_pipeline(settings)
    pipeline.submit(*(f"{number}. {LONG}" for number in range(4)))
    messenger = SlowMessenger(seconds=0.3)
    context = with_messenger(pipeline, messenger)
    monkeypatch.setattr("chordwise.pipeline.jobs.dispatch._MAX_SECONDS", 0.25)

    assert dispatch(context).sent == 1
    assert pipeline.value("SELECT count(*) FROM outbox WHERE sends > 0") == 1
    while dispatch(context).sent:
        continue
    assert len(messenger.sent) == len({ids[0] for _, ids in messenger.sent}) == 4


def test_a_message_is_repeated_after_growing_waits_until_its_work_begins(
    settings: Settings,
) -> None:
    pipeline = a_pipeline(settings, quoting_the_text)
    submission = pipeline.submit(PARAGRAPH)
    messenger = SlowMessenger()
    context = with_messenger(pipeline, messenger)
    waits = "SELECT round(extract(epoch FROM due_at - clock_timestamp())) FROM outbox"
    seconds = []
    for _ in range(8):
        assert dispatch(context).sent == 1
        assert dispatch(context).sent == 0
        seconds.append(pipeline.value(waits))
        pipeline.execute("UPDATE outbox SET due_at = now()")

    pipeline.work(submission)

    assert seconds == [10, 20, 40, 80, 160, 320, 640, 640]
    assert pipeline.value("SELECT count(*) FROM outbox") == 0


def test_while_messages_wait_in_the_broker_others_are_not_repeated(settings: Settings) -> None:
    """Those may still wait there: they are repeated only when they are overdue for long."""
    pipeline = a_pipeline(settings)
    pipeline.submit(PARAGRAPH)
    messenger = SlowMessenger()
    messenger.is_idle = lambda: False
    context = with_messenger(pipeline, messenger)
    dispatch(context)
    pipeline.execute("UPDATE outbox SET due_at = now() - interval '59 seconds'")

    early = dispatch(context).sent
    pipeline.execute("UPDATE outbox SET due_at = now() - interval '61 seconds'")

    assert (early, dispatch(context).sent) == (0, 1)


def test_the_broker_holds_a_window_and_urgent_messages_come_first(settings: Settings) -> None:
    pipeline = a_pipeline(settings)
    messenger = SlowMessenger()
    context = with_messenger(pipeline, messenger)
    many = [uuid.uuid4() for _ in range(3 * MIN_WINDOW)]
    with pipeline.context.database.write() as session:
        outbox.promise(session, ANALYZE_SLICE, many, reason="test", urgency=Urgency.NIGHTLY)
    for _ in range(5):
        dispatch(context)
    urgent = uuid.uuid4()
    with pipeline.context.database.write() as session:
        outbox.promise(session, ANALYZE_SLICE, [urgent], reason="test", urgency=Urgency.NEW)

    assert sum(len(ids) for _, ids in messenger.sent) == MIN_WINDOW
    assert dispatch(context).sent == 1
    assert messenger.sent[-1] == (ANALYZE_SLICE, [urgent])


def test_the_chord_of_a_long_document_does_not_delay_begun_work(settings: Settings) -> None:
    pipeline = a_pipeline(settings)
    messenger = SlowMessenger()
    context = with_messenger(pipeline, messenger)
    chord = {uuid.uuid4(): Urgency.NEW for _ in range(2 * MIN_WINDOW)}
    new, expired = uuid.uuid4(), uuid.uuid4()
    with pipeline.context.database.write() as session:
        outbox.record_sent(session, ANALYZE_SLICE, chord, timedelta(seconds=10))
        outbox.promise(session, ANALYZE_SLICE, [new], reason="test", urgency=Urgency.NEW)
        outbox.promise(session, ANALYZE_SLICE, [expired], reason="test")

    dispatch(context)

    assert messenger.sent == [(ANALYZE_SLICE, [expired])]


def test_workers_take_urgent_messages_before_nightly_ones(settings: Settings) -> None:
    messenger = a_pipeline(settings).context.messenger
    nightly, urgent = uuid.uuid4(), uuid.uuid4()
    with messenger._app.connection_for_read() as connection:
        queue = connection.SimpleQueue(CHUNK_QUEUE, no_ack=True)
        queue.queue.purge()
        assert messenger.is_idle()

        messenger.send(ANALYZE_SLICE, [nightly], is_nightly=True)
        assert not messenger.is_idle()
        messenger.send(ANALYZE_SLICE, [urgent])
        taken = [queue.get(timeout=5).payload[0][0] for _ in range(2)]

    assert taken == [str(urgent), str(nightly)]
    assert messenger.is_idle()


def test_the_body_of_a_chord_makes_the_delayed_message_unnecessary(settings: Settings) -> None:
    pipeline = a_pipeline(
        with_settings(settings, "pipeline", chunk_tokens=75), quoting_the_text, repeat_last=True
    )
    job = pipeline.job(pipeline.submit(LONG))
    fan_out(pipeline.context, job.id)
    for chunk_id in pipeline.open_chunks(job.id):
        analyze_chunk(pipeline.context, chunk_id)

    promised = pipeline.value("SELECT task FROM outbox WHERE due_at > now()")
    synthesize(pipeline.context, job.id)

    assert int(str(pipeline.value("SELECT chunk_count FROM jobs"))) > MAX_SLICE
    assert promised == SYNTHESIZE
    assert pipeline.value("SELECT count(*) FROM outbox") == 0


@pytest.mark.parametrize(("chunk_tokens", "status"), [(400, "succeeded"), (75, "running")])
def test_one_message_completes_a_job(settings: Settings, chunk_tokens: int, status: str) -> None:
    """The synthesis follows the last chunk without a message, or is the body of a chord."""
    narrow = with_settings(settings, "pipeline", chunk_tokens=chunk_tokens)
    pipeline = a_pipeline(narrow, quoting_the_text, repeat_last=True)
    job = pipeline.job(pipeline.submit(LONG))
    fan_out(pipeline.context, job.id)

    for ids in sliced(pipeline.open_chunks(job.id)):
        analyze_slice(pipeline.context, ChunkThreads(4), ids)

    assert pipeline.value("SELECT status FROM jobs") == status
    promised = "SELECT count(*) FROM outbox WHERE due_at > now()"
    assert pipeline.value(promised) == (status == "running")


def test_the_message_that_splits_a_short_document_completes_its_job(settings: Settings) -> None:
    pipeline = a_pipeline(
        with_settings(settings, "pipeline", chunk_tokens=400), quoting_the_text, repeat_last=True
    )
    job = pipeline.job(pipeline.submit(LONG))
    messenger = SlowMessenger()
    context = with_messenger(pipeline, messenger)

    analyzed = fan_out(context, job.id, partial(analyze_slice, context, ChunkThreads(4)))

    assert pipeline.value("SELECT status FROM jobs") == "succeeded"
    assert pipeline.value("SELECT count(*) FROM chunks WHERE attempts = 1") == analyzed
    assert pipeline.value("SELECT count(*) FROM outbox") == 0
    assert not messenger.sent


def test_a_long_document_is_a_few_small_messages(settings: Settings) -> None:
    messenger = a_pipeline(settings).context.messenger
    slices = [[uuid.uuid4() for _ in range(MAX_SLICE)] for _ in range(4)]
    with messenger._app.connection_for_write() as connection:
        client = connection.default_channel.client
        client.delete(CHUNK_QUEUE)

        messenger.start_chord(uuid.uuid4(), slices)

        messages = client.lrange(f"chordwise:{CHUNK_QUEUE}", 0, -1)
        client.delete(CHUNK_QUEUE)
    assert len(messages) == len(slices)
    assert max(map(len, messages)) <= 64 * MAX_SLICE + 2_500, list(map(len, messages))
