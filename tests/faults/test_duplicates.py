"""P11 and R07: duplicate, early and late messages, and messages of other programs."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import pytest
from pydantic import SecretStr

from chordwise import settings as settings_module
from chordwise.domain.json_values import JsonValue
from chordwise.pipeline.runtime import messages
from chordwise.pipeline.runtime.messages import CHUNK_QUEUE, CONTROL_QUEUE, Messenger
from tests.fakes.configuration import CONCURRENCY
from tests.fakes.forged_messages import CANARY, FORGED, malformed_messages
from tests.fakes.processes import wait_until
from tests.faults.cluster import COUNT_RECEIVED, Cluster
from tests.faults.experiment import RECOVERY_SECONDS, Experiment

_QUEUE = f"chordwise:{messages.CHUNK_QUEUE}"
_TIMES = 3
_SYNTHESIZING = "SELECT bool_and(status = 'synthesizing') FROM jobs"
_SYNTHESES = """
SELECT count(*) FROM model_calls
WHERE stage = 'synthesize' AND job_id = (SELECT id FROM jobs ORDER BY id LIMIT 1)"""
_CALL_SECONDS = 1.0


def next_message(cluster: Cluster) -> bytes:
    """Return the next message for a chunk without removing it from the queue."""
    with cluster.broker.client() as client:
        wait_until(lambda: client.llen(_QUEUE) > 0, 30, "messages for chunks wait")
        message = client.lindex(_QUEUE, -1)
    assert isinstance(message, bytes)
    return message


def deliver_again(cluster: Cluster, message: bytes) -> None:
    """Put copies of a message at the head of the queue, and wait until they are received."""
    with cluster.broker.client() as client:
        client.rpush(_QUEUE, *[message] * _TIMES)
        wait_until(lambda: message not in client.lrange(_QUEUE, 0, -1), 30, "they are received")


def chunks_of(message: bytes) -> list[str]:
    chunk_ids, *_ = json.loads(base64.b64decode(json.loads(message)["body"]))
    return list(chunk_ids)


def status_of(cluster: Cluster, message: bytes) -> object:
    """Return the status of the first chunk of a message."""
    chunk_id = chunks_of(message)[0]
    return cluster.value(f"SELECT status FROM chunks WHERE id = '{chunk_id}'")  # noqa: S608 - an id of the test


def chunks_and_canary(cluster: Cluster) -> int:
    """Return the number of chunks, including that of the oracle's document."""
    return cluster.count("SELECT count(*) FROM chunks")


def repeated(cluster: Cluster) -> int:
    """Return how many messages the scheduler has sent again, for work that waited for a slot."""
    lines = [line for line in cluster.logs().splitlines() if "dispatch.repeated" in line]
    return sum(int(number) for line in lines for number in re.findall(r"count\W+(\d+)", line))


@contextmanager
def messenger(cluster: Cluster) -> Iterator[Messenger]:
    """Open a messenger that bypasses the proxy."""
    url = SecretStr(cluster.broker.valkey.url())
    app = messages.open_app(settings_module.load(broker_url=url))
    yield Messenger(app)
    app.close()


def call_back(cluster: Cluster) -> None:
    """Send the callback of the only job, several times."""
    with messenger(cluster) as sending:
        for _ in range(_TIMES):
            sending.send(messages.SYNTHESIZE, [UUID(str(cluster.value("SELECT id FROM jobs")))])


def begin(cluster: Cluster, experiment: Experiment, id_: str, injected: str) -> None:
    """Start a worker and a document whose calls take a second each."""
    experiment.begin(id_, injected)
    cluster.provider.delay_seconds = _CALL_SECONDS
    cluster.start_scheduler()
    cluster.start_worker(COUNT_RECEIVED)
    cluster.submit(cluster.documents.write(chunks=24))


def finish(cluster: Cluster, experiment: Experiment) -> None:
    """Check that nothing was called or counted twice, and that the synthesis ran once."""
    experiment.fault_is_over()
    experiment.finish(bound_seconds=RECOVERY_SECONDS + 2 * 24 * _CALL_SECONDS / CONCURRENCY)
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1
    assert cluster.count(_SYNTHESES) == 1


@pytest.mark.thorough
def test_copies_of_a_running_header_are_not_counted(
    cluster: Cluster, experiment: Experiment
) -> None:
    """Celery counts each header task that returns, so a copy of a running one must not return."""
    begin(cluster, experiment, "P11 running header", f"{_TIMES} copies while the header runs")
    message = next_message(cluster)

    deliver_again(cluster, message)

    # All copies have left the queue, each into a free slot, while the first is still running.
    wait_until(lambda: status_of(cluster, message) != "pending", 5, "the chunk is claimed")
    assert status_of(cluster, message) == "running"
    finish(cluster, experiment)
    copied = _TIMES * len(chunks_of(message))
    assert cluster.received == chunks_and_canary(cluster) + copied + repeated(cluster)


@pytest.mark.thorough
def test_copies_of_a_completed_header_are_not_counted(
    cluster: Cluster, experiment: Experiment
) -> None:
    """An ended header counts once, even if it is delivered again."""
    begin(cluster, experiment, "P11 completed header", f"{_TIMES} copies of a completed header")
    message = next_message(cluster)
    cluster.wait_for_share(0.5)
    assert status_of(cluster, message) == "succeeded"

    deliver_again(cluster, message)

    finish(cluster, experiment)
    copied = _TIMES * len(chunks_of(message))
    assert cluster.received == chunks_and_canary(cluster) + copied + repeated(cluster)


@pytest.mark.thorough
def test_an_early_callback_does_not_synthesize(cluster: Cluster, experiment: Experiment) -> None:
    """The synthesis is refused while chunks are open, and runs later."""
    begin(
        cluster,
        experiment,
        "P11 early callback",
        f"{_TIMES} callbacks with a quarter of the chunks done",
    )
    cluster.wait_for_share(0.25)

    call_back(cluster)

    finish(cluster, experiment)


@pytest.mark.thorough
def test_concurrent_callbacks_synthesize_once(cluster: Cluster, experiment: Experiment) -> None:
    """One callback synthesizes, and the model is called once."""
    begin(cluster, experiment, "P11 callback twice", f"{_TIMES} callbacks during the running one")
    cluster.wait_for(_SYNTHESIZING)

    call_back(cluster)

    finish(cluster, experiment)


_REJECTED = "SELECT json_object_agg(reason, count) FROM incidents WHERE kind = 'rejected_message'"
_NO_JSON = (b"\xff\xfe", CANARY.encode(), b"[" * 100_000)
_AN_ENDED_CHUNK = """
SELECT json_build_array(job_id, id) FROM chunks WHERE status = 'succeeded' LIMIT 1"""


def begin_forging(cluster: Cluster, experiment: Experiment, id_: str, injected: str) -> None:
    """Start a scheduler and a worker, and wait until a quarter of a document is done."""
    experiment.begin(id_, injected)
    cluster.start_both()
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for_share(0.25)


def forge(cluster: Cluster, *messages: JsonValue | bytes) -> None:
    """Put each message at both ends of both queues."""
    with cluster.broker.client() as client:
        for message in messages:
            written = message if isinstance(message, bytes) else json.dumps(message)
            for queue in (CHUNK_QUEUE, CONTROL_QUEUE):
                client.lpush(f"chordwise:{queue}", written)
                client.rpush(f"chordwise:{queue}", written)


def rejected(cluster: Cluster) -> Counter[str]:
    """Return the number of rejected messages by reason."""
    counts = cluster.value(_REJECTED)
    return Counter(counts if isinstance(counts, dict) else {})


def finish_forging(cluster: Cluster, experiment: Experiment, expected: Counter[str]) -> None:
    """Wait until all rejections are counted; check that work continued without a log of content."""
    wait_until(
        lambda: rejected(cluster).total() >= expected.total(), 60, "all rejections are counted"
    )
    experiment.fault_is_over()
    experiment.finish(notes=f"{expected.total()} messages")
    assert rejected(cluster) == expected
    assert CANARY not in cluster.logs()
    assert all(member.is_alive for member in cluster.members.all)


@pytest.mark.thorough
def test_forged_messages_are_rejected(cluster: Cluster, experiment: Experiment) -> None:
    """R07: each is rejected, logged without content, and counted; every document is finished."""
    begin_forging(
        cluster, experiment, "R07 forged", "invalid JSON, pickle, 10 MB, unknown tasks, SQL as ids"
    )
    expected = Counter(reason for reason, _ in FORGED) + Counter(envelope=len(_NO_JSON))

    forge(cluster, *_NO_JSON, *(message for _, message in FORGED))

    finish_forging(
        cluster, experiment, Counter({reason: 4 * many for reason, many in expected.items()})
    )


@pytest.mark.thorough
def test_messages_with_foreign_options_are_rejected(
    cluster: Cluster, experiment: Experiment
) -> None:
    """R07: valid ids do not make Celery's other options acceptable, whatever they would call."""
    begin_forging(cluster, experiment, "R07 options", "messages with valid ids and foreign options")
    ids = cluster.value(_AN_ENDED_CHUNK)
    assert isinstance(ids, list)
    messages = list(malformed_messages(*ids))

    forge(cluster, *messages)

    finish_forging(cluster, experiment, Counter(options=4 * len(messages)))
