"""P12: a worker has two processes, and one of them is killed."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from tests.fakes.processes import wait_until
from tests.faults.cluster import Cluster
from tests.faults.experiment import Experiment
from tests.faults.members import Member

_LOST = "SELECT coalesce(sum(count), 0)::int FROM incidents WHERE kind = 'process_lost'"


def start_worker_of_two(cluster: Cluster) -> tuple[Member, psutil.Process]:
    """Start a worker and wait for its second process, which is returned as well."""
    worker = cluster.start_worker(CHORDWISE_WORKER__PROCESSES="2")
    wait_until(lambda: worker.text().count("worker.started") == 2, 60, "both processes start")
    (sibling,) = psutil.Process(worker.process.pid).children()
    return worker, sibling


@pytest.mark.thorough
def test_the_second_process_of_a_worker_is_killed(cluster: Cluster, experiment: Experiment) -> None:
    """P12: the first one goes on, counts the loss, and starts another second one."""
    experiment.begin("P12 second", "kill -9 of the second process of a worker")
    cluster.start_scheduler()
    worker, sibling = start_worker_of_two(cluster)
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for_share(0.1)

    sibling.kill()
    worker.disturbed += 1
    experiment.fault_is_over()

    experiment.finish()
    assert worker.is_alive
    assert cluster.count(_LOST) == 1
    assert worker.text().count("worker.started") == 3


@pytest.mark.thorough
def test_the_first_process_of_a_worker_is_killed(cluster: Cluster, experiment: Experiment) -> None:
    """P12: the second one leaves by itself, and another worker does what is left."""
    experiment.begin("P12 first", "kill -9 of the first process of a worker")
    cluster.start_scheduler()
    worker, sibling = start_worker_of_two(cluster)
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for_share(0.1)

    os.kill(worker.process.pid, signal.SIGKILL)
    assert worker.process.wait() == -signal.SIGKILL
    wait_until(lambda: not sibling.is_running(), 20, "the second process leaves")
    experiment.fault_is_over()
    cluster.start_worker()

    experiment.finish()
