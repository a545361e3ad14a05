"""P05: workers are asked to leave while they have much to do."""

from __future__ import annotations

import pytest

from tests.fakes.configuration import CONCURRENCY
from tests.fakes.processes import wait_until
from tests.faults.cluster import Cluster
from tests.faults.experiment import RECOVERY_SECONDS, Experiment
from tests.faults.members import Member
from tests.faults.provider import HOLD

ROUNDS = 10
MAX_DELAY_SECONDS = 30.0
_ATTEMPTS = "SELECT coalesce(max(attempts), 0) FROM chunks"
_HANDED_BACK = "SELECT count(*) FROM chunks WHERE status = 'pending' AND started_at IS NOT NULL"
# From the fan-out of its document to its answer.
_DELAY = "extract(epoch FROM c.finished_at - j.started_at)::float"
_DELAYS = (
    f"SELECT percentile_cont(0.95) WITHIN GROUP (ORDER BY {_DELAY}), max({_DELAY})"  # noqa: S608 - constants of ours
    " FROM chunks AS c JOIN jobs AS j ON j.id = c.job_id"
)


def started_worker(cluster: Cluster) -> Member:
    """Start a worker and wait until it works."""
    worker = cluster.start_worker()
    wait_until(lambda: worker.has_started, 30, "the worker starts")
    return worker


@pytest.mark.thorough
@pytest.mark.parametrize("grace", [1, 5])
def test_a_worker_asked_to_leave_in_the_middle(
    cluster: Cluster, experiment: Experiment, grace: int
) -> None:
    """P05: what it cannot finish goes back at once; no attempt is lost, and the exit code is 0."""
    experiment.begin(f"P05 grace {grace} s", "SIGTERM with calls longer than the grace")
    cluster.provider.treat(HOLD, times=CONCURRENCY)
    cluster.start_scheduler()
    worker = cluster.start_worker(CHORDWISE_WORKER__SHUTDOWN_GRACE_SECONDS=str(grace))
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for(f"SELECT count(*) = {CONCURRENCY} FROM model_calls")  # noqa: S608 - a number of ours

    assert worker.terminate() == 0
    experiment.fault_is_over()

    assert cluster.count("SELECT count(*) FROM chunks WHERE status = 'running'") == 0
    # One for each slot, and those of a slice that was to be next.
    handed_back = cluster.count(_HANDED_BACK)
    assert CONCURRENCY <= handed_back <= 2 * CONCURRENCY
    cluster.provider.forgive()
    cluster.start_worker()
    experiment.finish()
    assert cluster.count(_ATTEMPTS) == 1
    assert cluster.count("SELECT count FROM incidents WHERE kind = 'handed_back'") == handed_back


@pytest.mark.thorough
def test_all_workers_are_restarted_in_turn_again_and_again(
    cluster: Cluster, experiment: Experiment
) -> None:
    """P05: ten rounds over both workers delay no chunk by half a minute, and lose no attempt."""
    experiment.begin("P05 rolling", f"{ROUNDS} rolling restarts of two workers")
    cluster.provider.delay_seconds = 1.5
    cluster.start_scheduler()
    workers = [started_worker(cluster) for _ in range(2)]

    for _ in range(ROUNDS):
        cluster.submit(cluster.documents.write(chunks=12))
        for place, worker in enumerate(workers):
            assert worker.terminate() == 0
            workers[place] = started_worker(cluster)
    experiment.fault_is_over()

    cluster.wait_until_finished()
    ((most_of_them, all_of_them),) = cluster.rows(_DELAYS)
    assert isinstance(most_of_them, float)
    assert isinstance(all_of_them, float)
    experiment.finish(
        notes=f"delay of a chunk: p95 {most_of_them:.1f} s, at most {all_of_them:.1f} s",
        bound_seconds=RECOVERY_SECONDS + MAX_DELAY_SECONDS,
    )
    assert all_of_them < MAX_DELAY_SECONDS
    assert cluster.count(_ATTEMPTS) == 1
