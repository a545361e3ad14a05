"""P09: the clock of one process is hours away from the others'."""

from __future__ import annotations

import re
import time

import pytest

from tests.fakes.processes import wait_until
from tests.faults.allowance import Allowance
from tests.faults.cluster import Cluster
from tests.faults.experiment import RECOVERY_SECONDS, Experiment

# Longer than the interval at which Celery looks for messages that were held too long.
_SECONDS_AT_WORK = 15.0
_COUNT_RECEIVED = "; chunk.before_claim:hang:0:*"
_RECEIVED = re.compile(r"chunk\.before_claim passed")


def received(cluster: Cluster) -> int:
    """Return how often workers have begun with a chunk of a message."""
    return len(_RECEIVED.findall(cluster.logs()))


@pytest.mark.thorough
@pytest.mark.parametrize("shift", ["+7200", "-7200"])
@pytest.mark.parametrize("role", ["worker", "scheduler"])
def test_a_process_whose_clock_is_wrong(
    cluster: Cluster, experiment: Experiment, role: str, shift: str
) -> None:
    """P09: leases live on the database's clock; messages come twice at worst, and cost nothing."""
    experiment.begin(f"P09 {role} {shift}", f"the clock of a {role} is wrong by {shift} s")
    cluster.provider.delay_seconds = 2.0
    wrong = f"clock:{shift}"
    cluster.start_scheduler(wrong if role == "scheduler" else "")
    cluster.start_worker(f"{wrong if role == 'worker' else 'clock:0'}{_COUNT_RECEIVED}")
    cluster.start_worker(f"clock:0{_COUNT_RECEIVED}")
    begun = time.monotonic()
    cluster.submit(cluster.documents.write(chunks=72))
    experiment.fault_is_over()

    cluster.wait_until_finished(90)
    wait_until(lambda: time.monotonic() > begun + _SECONDS_AT_WORK, 30, "Celery has looked")
    chunks = cluster.count("SELECT count(*) FROM chunks")
    experiment.finish(
        Allowance(extra_calls=0),
        notes=f"{received(cluster) - chunks} chunks came twice",
        bound_seconds=RECOVERY_SECONDS + 2.0 * chunks / 8 + 10,
    )
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1
