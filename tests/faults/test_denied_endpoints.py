"""L08: a key that is refused pauses all that ask with it: one request, and not one for each."""

from __future__ import annotations

import pytest

from tests.faults import strange_answers as strange
from tests.faults.allowance import Allowance
from tests.faults.cluster import Cluster
from tests.faults.experiment import Experiment
from tests.faults.test_broker_connections import wait

REFUSALS = {
    "401": strange.refuses(401, "invalid_api_key", "Incorrect API key provided."),
    "403": strange.refuses(403, "forbidden", "The key may not do this."),
    "404": strange.refuses(404, "model_not_found", "The model peer does not exist."),
    "429": strange.refuses(429, "insufficient_quota", "You exceeded your current quota."),
}
CODES = {"429": "quota_exceeded"}
RUNS = 4
CHUNKS = 50
WORKERS = 2
PAUSE_SECONDS = 3.0
_ALL_PAUSED = "SELECT count(*) = {} AND bool_and(status = 'paused') FROM runs"
_ALWAYS = 99_999


def submit(cluster: Cluster, runs: int, chunks: int) -> list[str]:
    """Submit so many runs of a document each."""
    return [cluster.submit(cluster.documents.write(chunks=chunks)) for _ in range(runs)]


def retry(cluster: Cluster, *run_ids: str) -> None:
    """Take runs up again."""
    for run_id in run_ids:
        assert cluster.run("retry", "--no-wait", run_id).returncode == 0


@pytest.mark.thorough
@pytest.mark.parametrize("status", REFUSALS)
def test_a_refused_key(cluster: Cluster, experiment: Experiment, status: str) -> None:
    """L08: of 200 chunks in four runs and eight slots one is asked about, before and after."""
    chunks = RUNS * CHUNKS
    experiment.begin(
        f"L08 {status}", f"{status} for {chunks} chunks of {RUNS} runs, then no more", chunks=chunks
    )
    cluster.provider.treat(REFUSALS[status], times=_ALWAYS)
    cluster.start_scheduler()
    run_ids = submit(cluster, RUNS, CHUNKS)
    for _ in range(WORKERS):
        cluster.start_worker()

    cluster.wait_for(_ALL_PAUSED.format(RUNS))
    said = cluster.rows("SELECT DISTINCT status, error_code, error_message, hint FROM jobs")
    assert [row[:2] for row in said] == [("paused", CODES.get(status, "model_access"))]
    assert said[0][3], "there is no hint"
    assert cluster.count("SELECT count(*) FROM chunks WHERE status = 'failed'") == 0
    refused = len(cluster.provider.requests)
    assert refused == 1
    retry(cluster, run_ids[0])
    cluster.wait_for(_ALL_PAUSED.format(RUNS))
    refused_again = len(cluster.provider.requests)
    assert refused_again == refused + 1
    cluster.provider.forgive()
    experiment.fault_is_over()
    retry(cluster, *run_ids)

    experiment.finish(
        Allowance(extra_calls=refused_again),
        notes=f"{refused} request refused, {refused_again - refused} more after a retry in vain",
    )


@pytest.mark.thorough
def test_a_broker_that_forgets_a_pause(cluster: Cluster, experiment: Experiment) -> None:
    """L08: losing the pause costs one more request."""
    experiment.begin(
        "L08 401 forgotten", "401 for two runs, and a broker that forgets between them"
    )
    cluster.provider.treat(REFUSALS["401"], times=_ALWAYS)
    cluster.start_scheduler()
    cluster.start_worker()
    first = submit(cluster, 1, 12)
    cluster.wait_for(_ALL_PAUSED.format(1))
    assert len(cluster.provider.requests) == 1

    cluster.broker.flush()
    second = submit(cluster, 1, 12)
    cluster.wait_for(_ALL_PAUSED.format(2))
    assert len(cluster.provider.requests) == 2
    cluster.provider.forgive()
    experiment.fault_is_over()
    retry(cluster, *first, *second)

    experiment.finish(Allowance(extra_calls=2))


@pytest.mark.thorough
def test_a_pause_that_ends_by_itself(cluster: Cluster, experiment: Experiment) -> None:
    """L08: after its time a new run asks without anybody's help."""
    experiment.begin("L08 401 later", f"401 for one run, mended; pause {PAUSE_SECONDS:g} s")
    cluster.provider.treat(REFUSALS["401"], times=_ALWAYS)
    cluster.start_scheduler()
    cluster.start_worker(CHORDWISE_LIMITS__PAUSE_SECONDS=str(PAUSE_SECONDS))
    paused = submit(cluster, 1, 12)
    cluster.wait_for(_ALL_PAUSED.format(1))
    cluster.provider.forgive()

    wait(PAUSE_SECONDS)
    submit(cluster, 1, 12)
    cluster.wait_for("SELECT count(*) = 1 FROM runs WHERE status = 'finished'")
    experiment.fault_is_over()
    retry(cluster, *paused)

    experiment.finish(Allowance(extra_calls=1))
