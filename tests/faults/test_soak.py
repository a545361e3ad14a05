"""The soak test: random kills while documents are submitted, then a check of the invariants."""

from __future__ import annotations

import secrets
import time
from random import Random

import pytest

from tests.faults.allowance import Allowance
from tests.faults.cluster import Cluster
from tests.faults.experiment import RECOVERY_SECONDS, Experiment
from tests.faults.monkey import Fault, Kind, Monkey

_SECONDS_BETWEEN = (3.0, 12.0)
_MAX_CHUNKS = 24


def one_round(cluster: Cluster, monkey: Monkey, random: Random) -> None:
    """Submit a document, wait a little, and inject a fault."""
    cluster.submit(cluster.documents.write(chunks=random.randint(1, _MAX_CHUNKS)))
    time.sleep(random.uniform(*_SECONDS_BETWEEN))  # noqa: TID251 - the time between faults
    monkey.strike(Fault(kind=random.choice(list(Kind)), seconds=random.uniform(0.5, 5)))


@pytest.mark.thorough
@pytest.mark.timeout(0)
def test_the_invariants_hold_after_continuous_kills(
    request: pytest.FixtureRequest, own_cluster: Cluster, experiment: Experiment
) -> None:
    """After minutes of kills the invariants hold, and a new document is processed."""
    minutes: float = request.config.getoption("--soak-minutes", 0.0)
    if not minutes:
        pytest.skip("make soak MINUTES=30")
    number = request.config.getoption("--fault-seed", None)
    number = secrets.randbelow(1_000_000) if number is None else number
    experiment.begin("soak", f"random kills for {minutes:g} min", seed=number)
    random, monkey = Random(number), Monkey(cluster=own_cluster)  # noqa: S311 - repeatable
    own_cluster.start_scheduler()
    for _ in range(2):
        own_cluster.start_worker()

    end = time.monotonic() + minutes * 60
    while time.monotonic() < end:
        one_round(own_cluster, monkey, random)
    experiment.fault_is_over()

    experiment.finish(
        Allowance(extra_calls=monkey.extra_calls),
        notes=f"{len(monkey.deeds)} faults, {len(own_cluster.documents.digests)} documents",
        timeout_seconds=180,
        bound_seconds=2 * RECOVERY_SECONDS + 60,
    )
