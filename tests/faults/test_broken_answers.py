"""L05: answers that break off, are cut, or come twice."""

from __future__ import annotations

import pytest

from tests.fakes.configuration import CONCURRENCY
from tests.faults.allowance import Allowance
from tests.faults.cluster import Cluster
from tests.faults.experiment import Experiment
from tests.faults.provider import Treatment
from tests.faults.wire import BROKEN

CHUNKS = 24
_GOOD = Treatment()
_FAILED = "SELECT error_code, count(*) FROM model_calls WHERE error_code IS NOT NULL GROUP BY 1"
# Of a chunk whose answers were all broken, which then waited to be taken up again.
_POSTPONED = "SELECT count(*) FROM chunks WHERE attempts > 1"


def survive(cluster: Cluster, experiment: Experiment, broken: list[Treatment]) -> None:
    """Break every second answer until all were broken; each is asked for again, none is stored."""
    for treatment in broken:
        cluster.provider.treat(treatment)
        cluster.provider.treat(_GOOD)
    cluster.start_scheduler()
    cluster.start_worker()

    cluster.submit(cluster.documents.write(chunks=CHUNKS))

    experiment.finish(Allowance(extra_calls=len(broken)))
    assert cluster.rows(_FAILED) == [("model_transport", len(broken))]
    assert cluster.count(_POSTPONED) <= len(broken) // CONCURRENCY


@pytest.mark.thorough
def test_every_broken_answer_once(cluster: Cluster, experiment: Experiment) -> None:
    """L05: whatever is wrong with it, half an answer is no answer, and asked for again."""
    experiment.begin("L05 each", f"{len(BROKEN)} ways to break an answer, one after the other")

    survive(cluster, experiment, list(BROKEN.values()))


@pytest.mark.thorough
@pytest.mark.parametrize("name", BROKEN)
def test_one_broken_answer_again_and_again(
    cluster: Cluster, experiment: Experiment, name: str
) -> None:
    """L05: the same for each way alone, on connections that were in use before."""
    experiment.begin(f"L05 {name}", f"every second of 16 answers broken: {name}")

    survive(cluster, experiment, [BROKEN[name]] * 8)
