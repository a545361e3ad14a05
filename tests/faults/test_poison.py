"""P03: a chunk that ends every worker which touches it, and its innocent neighbours."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from tests.fakes.processes import wait_until
from tests.faults.allowance import Allowance
from tests.faults.cluster import API_KEY, Cluster
from tests.faults.experiment import RECOVERY_SECONDS, Experiment
from tests.faults.members import Member
from tests.faults.provider import Request

POISON = "The poisonous paragraph begins here."
MAX_EXECUTIONS = 3
NEIGHBOURS = 40
CHUNKS_OF_A_NEIGHBOUR = 3
_MEDIAN_LATENCY = """
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - created_at))
FROM jobs WHERE run_id = '{run_id}'"""


@dataclass(slots=True, kw_only=True)
class Poisoning:
    """Kills the worker that asks about the poison, as the poison would, and starts another one.

    Each worker has a key of its own, so that a request tells whose it is.
    """

    cluster: Cluster
    workers: dict[str, Member] = field(default_factory=dict)
    executions: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start_worker(self) -> None:
        """Start a worker that can be told from the others."""
        key = f"{API_KEY}-{len(self.workers)}"
        self.workers[f"Bearer {key}"] = self.cluster.start_worker(
            CHORDWISE_MODELS__PEER__API_KEY=key
        )

    def act(self, request: Request) -> None:
        """Kill whoever asks about the poison."""
        if POISON in request.prompt:
            with self._lock:
                self.executions += 1
                self.workers[request.authorization].kill()
                self.start_worker()


def median_latency(cluster: Cluster, run_id: str) -> float:
    """Wait for a run; return the median of how long its documents took."""
    cluster.wait_for(f"SELECT status = 'finished' FROM runs WHERE id = '{run_id}'", 120)  # noqa: S608 - an id of ours
    latency = cluster.value(_MEDIAN_LATENCY.format(run_id=run_id))
    assert isinstance(latency, float)
    return latency


def submit_neighbours(cluster: Cluster) -> str:
    """Submit many small documents."""
    documents = [cluster.documents.write(chunks=CHUNKS_OF_A_NEIGHBOUR) for _ in range(NEIGHBOURS)]
    return cluster.submit(*documents)


@pytest.mark.thorough
def test_a_chunk_that_ends_every_worker(cluster: Cluster, experiment: Experiment) -> None:
    """P03: it is set aside after three executions; others keep their results and their pace."""
    experiment.begin("P03", "a chunk that kills its worker whenever it is asked about")
    poisoning = Poisoning(cluster=cluster)
    cluster.provider.delay_seconds = 0.5
    cluster.start_scheduler()
    for _ in range(2):
        poisoning.start_worker()
    wait_until(lambda: all(each.has_started for each in poisoning.workers.values()), 30, "a start")
    undisturbed = median_latency(cluster, submit_neighbours(cluster))

    cluster.provider.on_arrival = poisoning.act
    experiment.fault_is_over()
    cluster.submit(cluster.documents.write(chunks=6, saying=POISON))
    latency = median_latency(cluster, submit_neighbours(cluster))

    experiment.finish(
        Allowance(ends=frozenset({"succeeded", "partial"})),
        notes=f"median latency of others {undisturbed:.1f} s, then {latency:.1f} s",
        bound_seconds=MAX_EXECUTIONS * RECOVERY_SECONDS + 2 * undisturbed,
    )
    assert poisoning.executions == MAX_EXECUTIONS
    assert cluster.rows("SELECT position, error_code FROM chunks WHERE status <> 'succeeded'") == [
        (0, "worker_lost")
    ]
    assert cluster.count("SELECT count(*) FROM jobs WHERE status = 'partial'") == 1
    assert latency < 2 * undisturbed
