"""P06: a worker stands still for longer than its lease, and then goes on as if nothing had been."""

from __future__ import annotations

import pytest

from tests.fakes.configuration import CONCURRENCY, LEASE_SECONDS
from tests.faults.cluster import Cluster
from tests.faults.experiment import RECOVERY_SECONDS, Experiment
from tests.faults.provider import HOLD

_HELD = "SELECT count(*) FROM chunks WHERE status = 'running'"
_TAKEN_OVER = "SELECT count(*) = {held} FROM chunks WHERE attempts = 2"
_ALL_LOST = "SELECT sum(count) = {held} FROM incidents WHERE kind = 'lease_lost'"


@pytest.mark.thorough
@pytest.mark.parametrize("when", ["while others are at it", "after others have ended it"])
def test_a_worker_frozen_past_its_lease(
    cluster: Cluster, experiment: Experiment, when: str
) -> None:
    """P06: its answers come too late and are thrown away, and each lost lease is counted."""
    experiment.begin(f"P06 {when}", "SIGSTOP past the lease, then SIGCONT")
    cluster.start_scheduler()
    cluster.provider.treat(HOLD, times=CONCURRENCY)
    frozen = cluster.start_worker()
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for(f"SELECT count(*) = {CONCURRENCY} FROM model_calls")  # noqa: S608 - a number of ours

    frozen.freeze()
    # One for each slot, and those of a slice that was to be next.
    held = cluster.count(_HELD)
    assert CONCURRENCY <= held <= 2 * CONCURRENCY
    cluster.provider.release()  # its answers are there when it wakes up
    if when.startswith("while"):
        cluster.provider.delay_seconds = 2.0
    cluster.start_worker()
    if when.startswith("while"):
        cluster.wait_for(_TAKEN_OVER.format(held=held))
    else:
        cluster.wait_until_finished()
    frozen.thaw()
    experiment.fault_is_over()

    experiment.finish(bound_seconds=RECOVERY_SECONDS + 2 * 24 / CONCURRENCY)
    assert frozen.is_alive
    cluster.wait_for(_ALL_LOST.format(held=held))
    assert cluster.logs().count("lease.lost") == held


@pytest.mark.thorough
@pytest.mark.parametrize("point", ["chunk.before_commit", "synthesis.result_saved"])
def test_a_worker_frozen_in_the_middle_of_a_transaction(
    cluster: Cluster, experiment: Experiment, point: str
) -> None:
    """P06: the rows that it has locked do not keep others from finishing the document."""
    experiment.begin(f"P06 {point}", "SIGSTOP inside a transaction, then SIGCONT")
    cluster.start_scheduler()
    frozen = cluster.start_worker(f"{point}:freeze")
    cluster.submit(cluster.documents.write(chunks=24))
    frozen.wait_until_frozen()
    experiment.fault_is_over()
    cluster.start_worker()

    cluster.wait_until_finished(90)
    frozen.thaw()

    experiment.finish(
        bound_seconds=LEASE_SECONDS + RECOVERY_SECONDS + experiment.undisturbed_seconds
    )
    assert frozen.is_alive
