"""R04: the broker reaches its `maxmemory` at different moments, and is given room again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fakes.configuration import LEASE_SECONDS
from tests.fakes.processes import wait_until
from tests.faults.cluster import Cluster
from tests.faults.experiment import MESSAGES, RECOVERY_SECONDS, Experiment

# The longest pause of Celery between two tries to write a result, and of a reconnection.
PAUSE_SECONDS = 5.0
_FULL_SECONDS = 3 * LEASE_SECONDS
_NOTHING = 1
_TEN_MESSAGES = 35_000


@contextmanager
def full(cluster: Cluster, bytes_left: int | None = None) -> Iterator[None]:
    """Leave the broker no room, or a little, from the block's begin until three leases later."""
    begun_at = time.monotonic()
    limit = _NOTHING if bytes_left is None else cluster.broker.memory_used() + bytes_left
    cluster.broker.configure("maxmemory", str(limit))
    yield
    wait_until(
        lambda: time.monotonic() - begun_at > _FULL_SECONDS, _FULL_SECONDS + 5, "three leases"
    )
    cluster.broker.configure("maxmemory", "0")


def finish(cluster: Cluster, experiment: Experiment) -> None:
    """Nothing was lost, asked twice, or waited for in vain, and every process lives."""
    experiment.fault_is_over()
    experiment.finish(
        bound_seconds=RECOVERY_SECONDS + PAUSE_SECONDS + experiment.undisturbed_seconds
    )
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1
    assert all(member.is_alive for member in cluster.members.all)


@pytest.mark.thorough
@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_a_broker_without_room(own_cluster: Cluster, experiment: Experiment, share: float) -> None:
    """Messages that are there are worked on; what cannot be noted stands in PostgreSQL."""
    experiment.begin(f"R04 {share:.0%}", "no room in the broker for three leases")
    own_cluster.start_scheduler()
    own_cluster.start_worker()
    own_cluster.submit(own_cluster.documents.write(chunks=24))
    own_cluster.wait_for_share(share)

    with full(own_cluster):
        pass

    finish(own_cluster, experiment)


@pytest.mark.thorough
def test_a_submission_to_a_broker_without_room(
    own_cluster: Cluster, experiment: Experiment
) -> None:
    """It is accepted, waits in the outbox, and runs when there is room; doctor names the cause."""
    experiment.begin("R04 submit", "no room in the broker before a submission")
    own_cluster.start_scheduler()
    own_cluster.start_worker()
    wait_until(lambda: all(each.has_started for each in own_cluster.members.all), 30, "all start")

    with full(own_cluster):
        own_cluster.submit(own_cluster.documents.write(chunks=24))
        examined = own_cluster.run("doctor")

    finish(own_cluster, experiment)
    assert examined.returncode == 69
    assert "The broker is full" in examined.stdout


@pytest.mark.thorough
def test_processes_that_start_before_a_broker_without_room(
    own_cluster: Cluster, experiment: Experiment
) -> None:
    """The worker consumes what comes, and the scheduler sends when there is room."""
    experiment.begin("R04 start", "no room in the broker while worker and scheduler start")

    with full(own_cluster):
        own_cluster.start_scheduler()
        own_cluster.start_worker()
        own_cluster.submit(own_cluster.documents.write(chunks=24))

    finish(own_cluster, experiment)


@pytest.mark.thorough
def test_a_broker_that_fills_up_in_the_middle_of_a_fan_out(
    own_cluster: Cluster, experiment: Experiment
) -> None:
    """A chord that was sent in parts is completed, and no chunk of it is asked about twice."""
    experiment.begin("R04 fan-out", "no room in the broker after half of a chord")
    own_cluster.start_scheduler()
    worker = own_cluster.start_worker(f"fan_out.mid_publish:hang:{PAUSE_SECONDS}:{MESSAGES // 2}")
    own_cluster.submit(own_cluster.documents.write(chunks=24))
    wait_until(lambda: "fan_out.mid_publish passed" in worker.text(), 60, "half a chord is sent")

    with full(own_cluster):
        pass

    finish(own_cluster, experiment)


@pytest.mark.thorough
def test_a_broker_at_its_brink(own_cluster: Cluster, experiment: Experiment) -> None:
    """Room that comes and goes with every message costs time and nothing else."""
    experiment.begin("R04 brink", "room for ten messages while ten documents come", chunks=48)
    own_cluster.start_scheduler()
    own_cluster.start_worker()
    wait_until(lambda: all(each.has_started for each in own_cluster.members.all), 30, "all start")

    with full(own_cluster, _TEN_MESSAGES):
        own_cluster.submit(*(own_cluster.documents.write(chunks=5) for _ in range(10)))

    finish(own_cluster, experiment)
