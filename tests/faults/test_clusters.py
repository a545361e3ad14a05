"""A cluster on servers of its own survives what is done to them."""

from __future__ import annotations

import pytest

from tests.faults.cluster import Cluster
from tests.faults.experiment import Experiment


@pytest.mark.thorough
def test_both_servers_are_killed_while_a_document_is_at_work(
    own_cluster: Cluster, experiment: Experiment
) -> None:
    """PostgreSQL and an empty Valkey come back, and the document is finished without hands."""
    experiment.begin("R02 D01", "kill -9 of broker (restarted empty) and database")
    own_cluster.start_scheduler()
    own_cluster.start_worker()
    own_cluster.submit(own_cluster.documents.write(chunks=24))
    own_cluster.wait_for_share(0.25)

    own_cluster.broker.kill()
    own_cluster.database.kill()
    own_cluster.database.start()
    own_cluster.broker.start(empty=True)
    experiment.fault_is_over()

    experiment.finish()
