"""R: the broker forgets, dies, fills up or falls silent."""

from __future__ import annotations

from tests.faults.cluster import Cluster
from tests.faults.experiment import Experiment


def test_a_broker_that_forgets_everything_half_way(
    cluster: Cluster, experiment: Experiment
) -> None:
    """R01: FLUSHALL with half of the chunks done costs no document and no call."""
    experiment.begin("R01 50 %", "FLUSHALL with half of the chunks done")
    cluster.start_scheduler()
    cluster.start_worker()
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for_share(0.5)

    cluster.broker.flush()
    experiment.fault_is_over()

    experiment.finish()
