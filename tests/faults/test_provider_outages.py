"""L02: a provider that is out of order, for a while or again and again."""

from __future__ import annotations

from itertools import pairwise

import pytest
from llmock.pytest_plugin import LLMock

from tests.fakes.processes import wait_until
from tests.faults.allowance import Allowance
from tests.faults.cluster import Cluster
from tests.faults.experiment import Experiment
from tests.faults.peer import ask_the_peer, invariants_beside
from tests.faults.provider import Treatment
from tests.faults.test_broker_connections import wait

CHUNKS = 24
# With so many failures, those under way when it opens included, the breaker is open.
MAX_FAILURES = 9
RECOVERY_SECONDS = 60.0
BREAKER_SECONDS = 3.0
_EVERYTHING = 100_000


def start(cluster: Cluster, breaker_seconds: float) -> None:
    """Start a scheduler, a worker with such a breaker, and a document."""
    cluster.start_scheduler()
    cluster.start_worker(CHORDWISE_LIMITS__BREAKER_SECONDS=str(breaker_seconds))
    cluster.submit(cluster.documents.write(chunks=CHUNKS))


def bursts(cluster: Cluster, apart_seconds: float) -> list[int]:
    """Return how many requests came together, where more than this lay between two."""
    arrivals = [request.arrived_at for request in cluster.provider.requests]
    sizes = [1]
    for before, after in pairwise(arrivals):
        if after - before > apart_seconds:
            sizes.append(0)
        sizes[-1] += 1
    return sizes


@pytest.mark.parametrize(
    ("status", "breaker_seconds", "seconds"),
    [
        (503, BREAKER_SECONDS, 6),
        pytest.param(500, BREAKER_SECONDS, 15, marks=pytest.mark.thorough),
        pytest.param(502, BREAKER_SECONDS, 15, marks=pytest.mark.thorough),
        pytest.param(529, BREAKER_SECONDS, 15, marks=pytest.mark.thorough),
        pytest.param(503, 15.0, 20, marks=pytest.mark.thorough),
    ],
)
def test_an_outage(
    cluster: Cluster, experiment: Experiment, status: int, breaker_seconds: float, seconds: float
) -> None:
    """L02: the breaker opens soon, one call at a time looks, and a minute later all is done."""
    experiment.begin(
        f"L02 {status} {seconds:g} s",
        f"every answer {status} for {seconds:g} s, first break {breaker_seconds:g} s",
    )
    cluster.provider.treat(Treatment(status=status), times=_EVERYTHING)
    start(cluster, breaker_seconds)
    wait_until(lambda: bool(cluster.provider.requests), 60, "the outage begins")

    wait(seconds)
    met = bursts(cluster, breaker_seconds / 2)
    cluster.provider.forgive()
    experiment.fault_is_over()

    experiment.finish(
        Allowance(extra_calls=sum(met)),
        notes=f"failures until it opened, then probes: {', '.join(map(str, met))}",
        bound_seconds=RECOVERY_SECONDS,
        tolerance=1.0,
    )
    assert met[0] <= MAX_FAILURES
    assert set(met[1:]) == {1}


@pytest.mark.thorough
def test_a_flapping_provider(cluster: Cluster, experiment: Experiment) -> None:
    """L02: down, up and down again costs a breaker's count each time, and no document."""
    flaps = 5
    experiment.begin("L02 flapping", f"{flaps} times 2 s of 502 and 2 s of answers")
    start(cluster, BREAKER_SECONDS)
    for _ in range(flaps):
        cluster.provider.treat(Treatment(status=502), times=_EVERYTHING)
        wait(2)
        cluster.provider.forgive()
        wait(2)
    experiment.fault_is_over()

    experiment.finish(
        Allowance(extra_calls=flaps * MAX_FAILURES), bound_seconds=RECOVERY_SECONDS, tolerance=1.0
    )


@pytest.mark.thorough
def test_an_outage_as_a_peer_sees_it(
    cluster: Cluster, experiment: Experiment, llmock: LLMock
) -> None:
    """L02: llmock is down in every way; it finds no storm of retries and every wait kept."""
    experiment.begin("L02 llmock", "2 answers each of 500, 502, 503 and 529 by llmock")
    for status in (500, 502, 503, 529):
        llmock.fail(status, times=2)
    ask_the_peer(cluster, llmock)

    start(cluster, BREAKER_SECONDS)

    experiment.finish(
        bound_seconds=RECOVERY_SECONDS + experiment.undisturbed_seconds,
        invariants=invariants_beside(llmock),
    )
