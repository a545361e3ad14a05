"""L01: a provider that refuses nearly everything for a while, and says when to come back."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from llmock.pytest_plugin import LLMock

from tests.fakes.configuration import CONCURRENCY
from tests.fakes.processes import wait_until
from tests.faults.allowance import Allowance
from tests.faults.cluster import Cluster
from tests.faults.experiment import Experiment
from tests.faults.peer import ask_the_peer, invariants_beside
from tests.faults.provider import Treatment
from tests.faults.test_broker_connections import wait

CHUNKS = 36
# Of twenty requests in a storm one is answered.
REFUSED = 19
# `LONGEST_PAUSE_SECONDS` of permits.py: whatever a provider asks for, it is asked again then.
CAP_SECONDS = 300.0
_GOOD = Treatment()
_BY_THE_PEER = 6
_REFUSALS = "SELECT count(*) FROM model_calls WHERE error_code = 'rate_limited'"
_FORMS = ("0", "-1", "soon", "1e999")


def refusal(retry_after: str) -> Treatment:
    """Return a 429 with this header."""
    return Treatment(status=429, headers={"Retry-After": retry_after})


def start(cluster: Cluster, chunks: int) -> None:
    """Start a scheduler, a worker and a document."""
    cluster.start_scheduler()
    cluster.start_worker()
    cluster.submit(cluster.documents.write(chunks=chunks))


def begin_storm(cluster: Cluster, retry_after: float, seconds: float) -> None:
    """Refuse 95 % from now on, before anybody has asked."""
    for _ in range(int(seconds)):
        cluster.provider.treat(refusal(f"{retry_after:g}"), times=REFUSED)
        cluster.provider.treat(_GOOD)


def end_storm(cluster: Cluster, seconds: float) -> int:
    """End it so long after its first request; return how many requests came meanwhile."""
    wait_until(lambda: bool(cluster.provider.requests), 60, "the storm begins")
    wait(seconds)
    cluster.provider.forgive()
    return len(cluster.provider.requests)


@pytest.mark.thorough
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize(
    ("seconds", "retry_after", "chunks", "pace_seconds"), [(10, 2, CHUNKS, 60), (300, 20, 120, 300)]
)
def test_a_storm_of_refusals(
    cluster: Cluster,
    experiment: Experiment,
    seconds: float,
    retry_after: float,
    chunks: int,
    pace_seconds: float,
) -> None:
    """L01: no worker asks more often than it may, nothing fails, and the pace comes back.

    What was found out in the storm is far too slow, and is doubled every ten seconds after it.
    """
    experiment.begin(
        f"L01 storm {seconds:g} s",
        f"95 % of the requests refused, Retry-After {retry_after:g} s",
        chunks=chunks,
    )
    begin_storm(cluster, retry_after, seconds)
    start(cluster, chunks)

    asked = end_storm(cluster, seconds)
    experiment.fault_is_over()

    experiment.finish(
        Allowance(extra_calls=chunks // 2),
        notes=f"{asked} requests meanwhile",
        patience_seconds=2 * pace_seconds + 60,
        bound_seconds=pace_seconds + experiment.undisturbed_seconds,
    )
    assert asked <= 1.2 * seconds / retry_after + CONCURRENCY
    assert len(cluster.provider.requests) < 1.5 * chunks


@pytest.mark.thorough
def test_every_form_of_retry_after(cluster: Cluster, experiment: Experiment) -> None:
    """L01: a date is kept to; what is no wait leaves us to our own."""
    experiment.begin("L01 forms", "Retry-After as a date, 0, -1 and nonsense")
    date = formatdate(time.time() + 20, usegmt=True)
    for form in (*_FORMS, date):
        cluster.provider.treat(refusal(form), times=2)
        cluster.provider.treat(_GOOD, times=2)

    start(cluster, 24)

    refused = 2 * (len(_FORMS) + 1)
    experiment.finish(
        Allowance(extra_calls=refused), bound_seconds=60 + experiment.undisturbed_seconds
    )
    assert cluster.count(_REFUSALS) == refused


@pytest.mark.thorough
@pytest.mark.timeout(1_200)
def test_a_retry_after_of_a_day(cluster: Cluster, experiment: Experiment) -> None:
    """L01: no caller is sent away for more than five minutes."""
    experiment.begin("L01 99999", "one answer of 429 with Retry-After 99999")
    cluster.provider.treat(refusal("99999"))

    start(cluster, 24)

    experiment.finish(
        Allowance(extra_calls=1),
        patience_seconds=2 * CAP_SECONDS,
        bound_seconds=CAP_SECONDS + experiment.undisturbed_seconds,
    )


@pytest.mark.thorough
def test_a_storm_as_a_peer_sees_it(
    cluster: Cluster, experiment: Experiment, llmock: LLMock
) -> None:
    """L01: llmock refuses, then tells its limits; it finds every Retry-After kept."""
    experiment.begin(
        "L01 llmock", f"{_BY_THE_PEER} refusals by llmock, Retry-After 1 s, then 240 per minute"
    )
    llmock.limits(rpm=240).rate_limit(times=_BY_THE_PEER, retry_after=1)
    ask_the_peer(cluster, llmock)

    start(cluster, 12)

    experiment.finish(
        bound_seconds=60 + experiment.undisturbed_seconds, invariants=invariants_beside(llmock)
    )
    assert cluster.count(_REFUSALS) == _BY_THE_PEER
