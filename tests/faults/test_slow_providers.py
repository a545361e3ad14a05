"""L03, L04: a provider that says nothing, or one byte after the other."""

from __future__ import annotations

import pytest

from tests.fakes.configuration import CONCURRENCY
from tests.faults.allowance import Allowance
from tests.faults.cluster import Cluster
from tests.faults.experiment import Experiment
from tests.faults.provider import Treatment
from tests.faults.wire import SLOW

DEADLINE_SECONDS = 4.0
TOLERANCE = 0.1
_FAILED = "SELECT count(*) FROM model_calls WHERE error_code IS NOT NULL"
_WAITED = """
SELECT min(latency_ms) / 1000.0::float8, max(latency_ms) / 1000.0::float8 FROM model_calls
WHERE error_code = 'model_timeout'"""
_DEADLINE = {"CHORDWISE_MODELS__PEER__TIMEOUT_SECONDS": str(DEADLINE_SECONDS)}


def assert_deadline_kept(cluster: Cluster, failed: int) -> None:
    """Every failed call has failed at its deadline, give or take a tenth."""
    assert cluster.count(_FAILED) == failed
    shortest, longest = cluster.rows(_WAITED)[0]
    assert isinstance(shortest, float)
    assert isinstance(longest, float)
    assert shortest >= DEADLINE_SECONDS * (1 - TOLERANCE)
    assert longest <= DEADLINE_SECONDS * (1 + TOLERANCE)


def hold_all_slots(cluster: Cluster, experiment: Experiment, slow: list[Treatment]) -> None:
    """Let every slot meet one of these; they are free again after the deadline."""
    for treatment in slow:
        cluster.provider.treat(treatment)
    cluster.start_scheduler()
    cluster.start_worker(**_DEADLINE)

    cluster.submit(cluster.documents.write(chunks=24))

    experiment.finish(
        Allowance(extra_calls=len(slow)),
        bound_seconds=experiment.undisturbed_seconds + DEADLINE_SECONDS,
    )
    assert_deadline_kept(cluster, len(slow))
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1


@pytest.mark.thorough
def test_every_slot_meets_another_slowness(cluster: Cluster, experiment: Experiment) -> None:
    """L03, L04: one deadline for the whole call, and every slot is free after it."""
    experiment.begin("L03 L04 each", "each slot: no word, or a byte of head or body every 0.5 s")

    hold_all_slots(cluster, experiment, [*SLOW.values(), SLOW["no word"]])


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("id_", "name"), [("L03", "no word"), ("L04", "the head"), ("L04", "the body")]
)
def test_all_slots_meet_the_same_slowness(
    cluster: Cluster, experiment: Experiment, id_: str, name: str
) -> None:
    """L03, L04: the same for each kind alone."""
    experiment.begin(f"{id_} {name}", f"all slots wait for a slow provider: {name}")

    hold_all_slots(cluster, experiment, [SLOW[name]] * CONCURRENCY)


@pytest.mark.thorough
def test_a_network_that_swallows_requests(cluster: Cluster, experiment: Experiment) -> None:
    """L03: connections that are open and dead end at the deadline, and new ones are made."""
    experiment.begin("L03 swallowed", "bytes to the provider vanish until the first calls fail")
    cluster.start_scheduler()
    cluster.start_worker(**_DEADLINE)
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for_share(0.25)

    cluster.to_provider.swallow()
    cluster.wait_for(f"SELECT ({_FAILED}) > 0")
    cluster.to_provider.pass_on()
    experiment.fault_is_over()

    experiment.finish(
        Allowance(extra_calls=2 * CONCURRENCY),
        bound_seconds=experiment.undisturbed_seconds + DEADLINE_SECONDS,
    )
    assert_deadline_kept(cluster, cluster.count(_FAILED))
