"""N01: hosts that are lost, and whose network is cut."""

from __future__ import annotations

import pytest

from tests.fakes.configuration import CONCURRENCY
from tests.fakes.processes import wait_until
from tests.faults.allowance import Allowance
from tests.faults.cluster import Cluster
from tests.faults.experiment import RECOVERY_SECONDS, Experiment
from tests.faults.hosts import host
from tests.faults.test_schedulers import TAKEOVER_SECONDS, leader


@pytest.mark.thorough
@pytest.mark.parametrize("lost", ["leader", "other"])
def test_a_lost_host_and_a_cut_network_lose_nothing(
    cluster: Cluster, experiment: Experiment, lost: str
) -> None:
    """N01: two schedulers and three workers on two hosts; one is cut off, the other is lost."""
    experiment.begin(
        f"N01 {lost}", f"host of the {lost} scheduler killed, network of the other cut", chunks=96
    )
    with host(cluster) as first, host(cluster) as second:
        first.start("scheduler")
        wait_until(lambda: leader(cluster) != 0, 60, "the first scheduler leads")
        second.start("scheduler")
        for place in (first, second, second):
            place.start("worker")
        cluster.submit(*(cluster.documents.write(chunks=8) for _ in range(12)))
        cluster.wait_for_share(0.1)
        killed, kept = (first, second) if lost == "leader" else (second, first)

        kept.cut()
        done = cluster.count("SELECT count(*) FROM chunks WHERE status = 'succeeded'")
        wait_until(
            lambda: cluster.count("SELECT count(*) FROM chunks WHERE status = 'succeeded'") > done,
            60,
            "the host that is connected goes on",
        )
        killed.kill()
        kept.reconnect()
        experiment.fault_is_over()

        experiment.finish(
            Allowance(extra_calls=CONCURRENCY * len(kept.members)),
            timeout_seconds=180,
            bound_seconds=TAKEOVER_SECONDS + RECOVERY_SECONDS + experiment.undisturbed_seconds,
        )
