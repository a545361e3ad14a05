"""R06 and R08: messages are delivered again after their work, and Celery's chord state is lost."""

from __future__ import annotations

from uuid import UUID

import pytest
import redis
from pydantic import SecretStr

from chordwise import settings as settings_module
from chordwise.pipeline.runtime import messages
from chordwise.pipeline.runtime.messages import Messenger
from tests.fakes.configuration import CONCURRENCY, INTERVAL_SECONDS
from tests.fakes.processes import wait_until
from tests.faults import quiescence
from tests.faults.allowance import NOTHING_SPECIAL
from tests.faults.cluster import Cluster
from tests.faults.experiment import Experiment
from tests.faults.provider import HOLD

_QUEUE = f"chordwise:{messages.CHUNK_QUEUE}"
_CHORDS = "chordwise:celery-taskset-meta-*"
_RESULTS = "chordwise:celery-task-meta-*"
_TIMES = 3


def begin_with_copies(
    cluster: Cluster, experiment: Experiment, id_: str, injected: str
) -> list[bytes]:
    """Start a document whose first calls are held; return the waiting messages.

    They remain in the queue. Each names as many chunks as the worker has slots.
    """
    cluster.provider.treat(HOLD, times=CONCURRENCY)
    experiment.begin_with_document(id_, injected)
    with cluster.broker.client() as client:
        wait_until(lambda: client.llen(_QUEUE) > 1, 60, "messages for chunks wait")
        waiting = client.lrange(_QUEUE, 0, -1)
    return [message for message in waiting if isinstance(message, bytes)]


def deliver(cluster: Cluster, copies: list[bytes], *tasks: str) -> None:
    """Put copies of messages into their queue, and send messages for tasks of the only job."""
    job_id = UUID(str(cluster.value("SELECT id FROM jobs ORDER BY id LIMIT 1")))
    app = messages.open_app(settings_module.load(broker_url=SecretStr(cluster.broker.valkey.url())))
    with cluster.broker.client() as client:
        if copies:
            client.lpush(_QUEUE, *copies)
    for task in tasks:
        for _ in range(_TIMES):
            Messenger(app).send(task, [job_id])
    app.close()


def forget(client: redis.Redis, pattern: str) -> int:
    keys = list(client.scan_iter(match=pattern, count=1_000))
    return int(client.delete(*keys)) if keys else 0


@pytest.mark.thorough
@pytest.mark.parametrize("later", ["at once", "a day later"])
def test_messages_for_finished_work_have_no_effect(
    cluster: Cluster, experiment: Experiment, later: str
) -> None:
    """R06: repeated messages of each kind cause no call and no write."""
    injected = f"{_TIMES} copies of each message of a finished job"
    copies = begin_with_copies(cluster, experiment, f"R06 {later}", injected) * _TIMES
    cluster.provider.forgive()
    cluster.wait_until_finished()
    assert list(quiescence.nothing_waits(cluster, NOTHING_SPECIAL)) == []
    if later == "a day later":
        with cluster.broker.client() as client:
            assert forget(client, _RESULTS) > 0
            forget(client, _CHORDS)
    # Shortly after the end of the run, the scheduler records that no process waits for it.
    before, requests = quiescence._steady_contents(cluster), len(cluster.provider.requests)

    deliver(cluster, copies, messages.FAN_OUT, messages.SYNTHESIZE)
    assert list(quiescence.nothing_waits(cluster, NOTHING_SPECIAL)) == []
    wait_until(lambda: quiescence._unacknowledged(cluster) == 0, 20, "all are acknowledged")

    assert quiescence._contents(cluster) == before
    assert len(cluster.provider.requests) == requests
    experiment.fault_is_over()
    experiment.finish(notes=f"{len(copies) + 2 * _TIMES} messages")


@pytest.mark.thorough
def test_a_repeated_fan_out_has_no_effect(cluster: Cluster, experiment: Experiment) -> None:
    """R06: a repeated fan-out sends no message and makes no call while chunks are analyzed."""
    injected = f"{_TIMES} more fan-outs of a running job"
    copies = begin_with_copies(cluster, experiment, "R06 fan-out", injected)

    deliver(cluster, copies, messages.FAN_OUT, messages.SYNTHESIZE)
    cluster.provider.forgive()
    experiment.fault_is_over()

    experiment.finish(bound_seconds=2 * INTERVAL_SECONDS + experiment.undisturbed_seconds)
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1


@pytest.mark.thorough
@pytest.mark.parametrize(("what", "pattern"), [("chords", _CHORDS), ("results", _RESULTS)])
@pytest.mark.parametrize("percent", [25, 95])
def test_lost_chord_state_does_not_delay_the_synthesis(
    cluster: Cluster, experiment: Experiment, percent: int, what: str, pattern: str
) -> None:
    """R08: without the chord's counter or results, the synthesis is not delayed."""
    id_ = f"R08 {what} {percent} %"
    experiment.begin_with_document(
        id_, f"keys of {what} deleted with {percent} % of the chunks done"
    )
    cluster.wait_for_share(percent / 100)

    with cluster.broker.client() as client:
        assert forget(client, pattern) > 0
    experiment.fault_is_over()

    experiment.finish(bound_seconds=2 * INTERVAL_SECONDS + experiment.undisturbed_seconds)
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1


@pytest.mark.thorough
def test_celery_state_is_not_needed(cluster: Cluster, experiment: Experiment) -> None:
    """R08: a broker that only keeps messages is sufficient."""
    experiment.begin_with_document("R08 always", "keys of chords and results deleted continuously")

    def forget_until_finished() -> bool:
        for pattern in (_CHORDS, _RESULTS):
            forget(client, pattern)
        return cluster.value("SELECT bool_and(status = 'finished') FROM runs") is True

    with cluster.broker.client() as client:
        wait_until(forget_until_finished, 60, "the document is finished")

    experiment.finish()
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1
