"""P: processes of ours are killed, stopped and continued, at any step of a job's life."""

from __future__ import annotations

import pytest

from tests.faults.cluster import Cluster
from tests.faults.experiment import MESSAGES, Experiment

# The passing of each point at which the worker dies: in the middle where there is a middle.
WORKER_POINTS = {
    "chunk.before_claim": 3,
    "chunk.claimed": 3,
    "call.before_request": 3,
    "call.answered": 3,
    "chunk.before_commit": 3,
    "chunk.committed": 3,
    "chord.before_count": 3,
    "chord.before_publish": 1,
    "chord.published": 1,
    "fan_out.before_chunks": 1,
    "fan_out.mid_publish": MESSAGES // 2,
    "fan_out.published": 1,
    "synthesis.claimed": 1,
    "synthesis.result_saved": 1,
    "synthesis.committed": 1,
    "broker.popped": 4,
}
IN_THE_SUBSET = ("chunk.claimed",)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(point, marks=() if point in IN_THE_SUBSET else pytest.mark.thorough)
        for point in WORKER_POINTS
    ],
)
def test_a_worker_killed_at_any_step(cluster: Cluster, experiment: Experiment, point: str) -> None:
    """P01, P04: SIGKILL costs a lease, and no more than a call for each slot of the worker."""
    passing = WORKER_POINTS[point]
    group = "P04" if point.startswith("broker.") else "P01"
    experiment.begin(f"{group} {point}", f"kill -9 of a worker at passing {passing}")
    cluster.start_scheduler()
    worker = cluster.start_worker(f"{point}:kill:{passing}")
    cluster.submit(cluster.documents.write(chunks=24))

    assert worker.wait_for_end() == -9
    experiment.fault_is_over()
    cluster.start_worker()

    experiment.finish()


@pytest.mark.thorough
@pytest.mark.parametrize(
    "point", ["chunk.claimed", "chunk.before_commit", "synthesis.result_saved", "chunk.committed"]
)
def test_a_worker_killed_over_small_documents(
    cluster: Cluster, experiment: Experiment, point: str
) -> None:
    """P01: documents of one chunk end with it, whole or not at all."""
    experiment.begin(f"P01 small {point}", "kill -9 of a worker over 24 documents of one chunk")
    cluster.start_scheduler()
    worker = cluster.start_worker(f"{point}:kill")
    cluster.submit(*(cluster.documents.write(chunks=1) for _ in range(24)))

    assert worker.wait_for_end() == -9
    experiment.fault_is_over()
    cluster.start_worker()

    experiment.finish()
    promised = "SELECT count(*) FROM outbox WHERE task = 'chordwise.synthesize'"
    assert cluster.count(promised) == 0


@pytest.mark.thorough
def test_a_message_lost_while_others_keep_working(cluster: Cluster, experiment: Experiment) -> None:
    """P04: a message that is nowhere any more is missed, although the queue keeps moving."""
    experiment.begin("P04 beside another", "kill -9 between taking a message and noting it")
    cluster.start_scheduler()
    worker = cluster.start_worker("broker.popped:kill:2")
    cluster.start_worker()
    cluster.submit(cluster.documents.write(chunks=24))

    assert worker.wait_for_end() == -9
    experiment.fault_is_over()

    experiment.finish()
