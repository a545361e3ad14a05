"""R07: somebody else writes into the queues, in the middle of our work."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from chordwise.domain.json_values import JsonValue
from chordwise.pipeline.runtime.messages import CHUNK_QUEUE, CONTROL_QUEUE
from tests.fakes.forged_messages import CANARY, FORGED, bent
from tests.fakes.processes import wait_until
from tests.faults.cluster import Cluster
from tests.faults.experiment import Experiment

_REJECTED = "SELECT json_object_agg(reason, count) FROM incidents WHERE kind = 'rejected_message'"
_NO_JSON = (b"\xff\xfe", CANARY.encode(), b"[" * 100_000)
_AN_ENDED_CHUNK = """
SELECT json_build_array(job_id, id) FROM chunks WHERE status = 'succeeded' LIMIT 1"""


def begin(cluster: Cluster, experiment: Experiment, id_: str, injected: str) -> None:
    """Have a scheduler and a worker in the middle of a document."""
    experiment.begin(id_, injected)
    cluster.start_scheduler()
    cluster.start_worker()
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
    """Return how many messages were counted as rejected, by reason."""
    found = cluster.value(_REJECTED)
    return Counter(found if isinstance(found, dict) else {})


def finish(cluster: Cluster, experiment: Experiment, expected: Counter[str]) -> None:
    """Wait until all are counted; the work went on, and their content stands nowhere."""
    wait_until(
        lambda: rejected(cluster).total() >= expected.total(), 60, "all rejections are counted"
    )
    experiment.fault_is_over()
    experiment.finish(notes=f"{expected.total()} messages")
    assert rejected(cluster) == expected
    assert CANARY not in cluster.logs()
    assert all(member.is_alive for member in cluster.members.all)


@pytest.mark.thorough
def test_forged_messages_between_ours(cluster: Cluster, experiment: Experiment) -> None:
    """Each is rejected, logged without content, and counted; every document goes through."""
    begin(cluster, experiment, "R07 forged", "no JSON, pickle, 10 MB, unknown tasks, SQL for ids")
    expected = Counter(reason for reason, _ in FORGED) + Counter(envelope=len(_NO_JSON))

    forge(cluster, *_NO_JSON, *(message for _, message in FORGED))

    finish(cluster, experiment, Counter({reason: 4 * many for reason, many in expected.items()}))


@pytest.mark.thorough
def test_bent_messages_for_real_work(cluster: Cluster, experiment: Experiment) -> None:
    """Right ids do not let Celery's other options through, whatever they would call."""
    begin(cluster, experiment, "R07 bent", "messages with right ids, and options that are not ours")
    ids = cluster.value(_AN_ENDED_CHUNK)
    assert isinstance(ids, list)
    messages = list(bent(*ids))

    forge(cluster, *messages)

    finish(cluster, experiment, Counter(options=4 * len(messages)))
