"""Forged messages in a real broker are rejected, logged without content, and counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from chordwise.domain.json_values import JsonValue
from chordwise.pipeline.runtime.messages import ANALYZE_SLICE, CHUNK_QUEUE, CONTROL_QUEUE, FAN_OUT
from tests.conftest import Servers
from tests.e2e.conftest import Stage
from tests.fakes.forged_messages import CANARY, FORGED, an_id, envelope
from tests.fakes.processes import wait_until

COUNTS = "SELECT json_object_agg(reason, count) FROM incidents WHERE kind = 'rejected_message'"


@pytest.fixture
def broker(servers: Servers) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(servers.valkey.url()) as client:
        yield client


def forge(broker: redis.Redis, *messages: JsonValue, queue: str = CHUNK_QUEUE) -> None:
    for message in messages:
        broker.lpush(f"chordwise:{queue}", json.dumps(message))


@contextmanager
def working(stage: Stage) -> Iterator[None]:
    """Run a worker and a scheduler inside the block; both must still be alive at its end."""
    started = [stage.processes.start(name) for name in ("scheduler", "worker")]
    yield
    assert [process.poll() for process in started] == [None, None]


def counted(stage: Stage) -> dict[str, int]:
    counts = stage.value(COUNTS)
    return counts if isinstance(counts, dict) else {}


def finish_a_good_document(stage: Stage, text: str) -> None:
    (stage.folder / "good.txt").write_text(text, "utf-8")
    stage.submit("good.txt")
    stage.wait_for("SELECT bool_and(status = 'finished') FROM runs")
    assert stage.value("SELECT bool_and(status = 'succeeded') FROM jobs")


def replay(stage: Stage, broker: redis.Redis) -> None:
    """Send messages of finished work again: they cause no call, no write and no incident."""
    written = stage.value("SELECT json_agg(chunks.xmin::text) FROM chunks")
    calls = stage.count("SELECT count(*) FROM model_calls")
    ids = stage.value("SELECT json_build_array(id) FROM chunks LIMIT 1")
    assert isinstance(ids, list)

    forge(broker, *[envelope(ANALYZE_SLICE, ids) for _ in range(3)])
    forge(broker, envelope(ANALYZE_SLICE, [an_id()]))  # its rejection shows that all are done
    wait_until(lambda: sum(counted(stage).values()) >= 1, 30, "the last one is counted")
    wait_until(lambda: broker.hlen("chordwise:unacked") == 0, 10, "all are acknowledged")

    assert counted(stage) == {"unknown_work": 1}
    assert stage.count("SELECT count(*) FROM model_calls") == calls
    assert stage.value("SELECT json_agg(chunks.xmin::text) FROM chunks") == written


def test_forged_messages_are_rejected_and_counted(stage: Stage, broker: redis.Redis) -> None:
    """Each message leaves the broker, none ends the worker, and a valid document is finished.

    A replayed message is not counted as rejected.
    """
    with working(stage):
        finish_a_good_document(stage, "The harbour was rebuilt in 1856.")
        replay(stage, broker)
        broker.lpush(f"chordwise:{CHUNK_QUEUE}", b"\xff\xfe", CANARY.encode(), b"[" * 100_000)
        forge(broker, *[message for _, message in FORGED])
        forge(broker, envelope(FAN_OUT, [an_id()]), queue=CONTROL_QUEUE)
        expected = Counter(reason for reason, _ in FORGED) + Counter(envelope=3, unknown_work=2)

        wait_until(lambda: sum(counted(stage).values()) >= expected.total(), 30, "all are counted")
        finish_a_good_document(stage, "The harbour of Lindau was rebuilt in 1856.")
        wait_until(lambda: broker.hlen("chordwise:unacked") == 0, 10, "all are acknowledged")

    assert counted(stage) == expected
    assert stage.processes.logs().count("message.rejected") == expected.total()
    assert CANARY not in stage.processes.logs()
    assert "Traceback" not in stage.processes.logs()
    assert broker.llen(f"chordwise:{CHUNK_QUEUE}") == 0
