"""R01 to R03: the broker forgets, dies, and stays away."""

from __future__ import annotations

import pytest

from tests.fakes.configuration import INTERVAL_SECONDS, LEASE_SECONDS
from tests.faults.cluster import Cluster
from tests.faults.experiment import RECOVERY_SECONDS, Experiment

# Of everybody who tries to reach it again, and may have just begun to wait.
RECONNECTION_SECONDS = 5.0
_FORGOTTEN = "SELECT count(*) FROM incidents WHERE kind = 'rescue' AND reason = 'broker_forgot'"


def begin(cluster: Cluster, experiment: Experiment, id_: str, injected: str) -> None:
    """Have a scheduler and a worker at a document."""
    experiment.begin(id_, injected)
    cluster.start_scheduler()
    cluster.start_worker()
    cluster.submit(cluster.documents.write(chunks=24))


def wait_for_percent(cluster: Cluster, percent: int) -> None:
    """Wait until so much of the document is done; at 0 its messages have just gone out."""
    if percent:
        cluster.wait_for_share(percent / 100)
    else:
        cluster.wait_for("SELECT count(*) > 0 FROM chunks WHERE sent_at IS NOT NULL")


@pytest.mark.parametrize(
    "percent",
    [
        pytest.param(0, marks=pytest.mark.thorough),
        pytest.param(25, marks=pytest.mark.thorough),
        50,
        pytest.param(75, marks=pytest.mark.thorough),
        pytest.param(95, marks=pytest.mark.thorough),
    ],
)
def test_a_broker_that_forgets_everything(
    cluster: Cluster, experiment: Experiment, percent: int
) -> None:
    """R01: FLUSHALL costs two intervals, no document and no call, and is noticed."""
    begin(cluster, experiment, f"R01 {percent} %", f"FLUSHALL with {percent} % of the chunks done")
    wait_for_percent(cluster, percent)

    cluster.broker.flush()
    experiment.fault_is_over()

    experiment.finish(bound_seconds=2 * INTERVAL_SECONDS + experiment.undisturbed_seconds)
    cluster.wait_for(f"SELECT ({_FORGOTTEN}) = 1", 10)
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1


@pytest.mark.thorough
def test_a_broker_that_forgets_again_and_again(cluster: Cluster, experiment: Experiment) -> None:
    """R01: FLUSHALL again and again while a document is worked on costs no call."""
    begin(cluster, experiment, "R01 repeated", "FLUSHALL at every eighth of the document")

    for eighth in range(1, 8):
        cluster.wait_for_share(eighth / 8)
        cluster.broker.flush()
    experiment.fault_is_over()

    experiment.finish(bound_seconds=2 * INTERVAL_SECONDS + experiment.undisturbed_seconds)
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1


@pytest.mark.thorough
def test_a_broker_that_forgets_what_was_not_taken(cluster: Cluster, experiment: Experiment) -> None:
    """R01: a document whose message is gone before any worker was there is fanned out."""
    experiment.begin("R01 unclaimed", "FLUSHALL while messages wait for the first worker")
    cluster.start_scheduler()
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for("SELECT bool_and(sent_at IS NOT NULL) FROM outbox")

    cluster.broker.flush()
    experiment.fault_is_over()
    cluster.start_worker()

    experiment.finish(bound_seconds=2 * INTERVAL_SECONDS + experiment.undisturbed_seconds)


@pytest.mark.thorough
@pytest.mark.parametrize("memory", ["empty", "kept"])
@pytest.mark.parametrize("percent", [0, 50, 95])
def test_a_broker_killed_and_started_again(
    own_cluster: Cluster, experiment: Experiment, percent: int, memory: str
) -> None:
    """R02: with its memory or without, the same worker goes on, and nothing is asked twice."""
    id_ = f"R02 {memory} {percent} %"
    begin(own_cluster, experiment, id_, f"kill -9 of the broker, whose memory is {memory}")
    wait_for_percent(own_cluster, percent)

    own_cluster.broker.kill()
    own_cluster.broker.start(empty=memory == "empty")
    experiment.fault_is_over()

    experiment.finish(
        bound_seconds=RECOVERY_SECONDS + RECONNECTION_SECONDS + experiment.undisturbed_seconds
    )
    assert own_cluster.count("SELECT max(attempts) FROM chunks") == 1


@pytest.mark.thorough
@pytest.mark.parametrize("memory", ["empty", "kept"])
def test_a_broker_that_is_down_for_several_leases(
    own_cluster: Cluster, experiment: Experiment, memory: str
) -> None:
    """R03: commands answer from PostgreSQL and say what is wrong; a submission runs later."""
    begin(own_cluster, experiment, f"R03 {memory}", "no broker for three leases")
    own_cluster.wait_for_share(0.25)

    own_cluster.broker.kill()
    down_since = own_cluster.value("SELECT now()")
    submitted = own_cluster.run("submit", str(own_cluster.documents.write(chunks=12)))
    listed, examined = own_cluster.run("runs", "latest"), own_cluster.run("doctor")
    own_cluster.wait_for(f"SELECT now() - '{down_since}' > '{3 * LEASE_SECONDS} s'")
    own_cluster.broker.start(empty=memory == "empty")
    experiment.fault_is_over()

    experiment.finish(
        bound_seconds=RECOVERY_SECONDS + RECONNECTION_SECONDS + 2 * experiment.undisturbed_seconds
    )
    assert (submitted.returncode, listed.returncode, examined.returncode) == (0, 0, 69)
    assert "The broker cannot be reached" in examined.stdout
    assert "CHORDWISE_BROKER_URL" in examined.stdout
    assert own_cluster.count("SELECT max(attempts) FROM chunks") == 1
