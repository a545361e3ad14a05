"""R02: the broker comes back with an old memory, or takes its time to read a long one."""

from __future__ import annotations

import shutil
import threading

import pytest
import redis

from tests.fakes.configuration import LEASE_SECONDS
from tests.fakes.processes import wait_until
from tests.faults.cluster import Cluster
from tests.faults.experiment import MESSAGES, RECOVERY_SECONDS, Experiment
from tests.faults.test_broker import RECONNECTION_SECONDS, begin

_MARKED = "SELECT count(*) > 0 FROM broker_markers"
_MEMORY = "appendonlydir"
# What a broker reads in some seconds, of one small key.
_INCREMENTS = 200_000
_TIMES = 30
_COUNT_UP = "for i = 1, ARGV[1] do redis.call('INCR', KEYS[1]) end"
_STALLED_SECONDS = 4.0


def copy_memory(cluster: Cluster) -> None:
    """Keep what the broker has written to its disk by now."""
    with cluster.broker.client() as client:
        wait_until(lambda: client.info("persistence")["aof_pending_bio_fsync"] == 0, 10, "written")
    shutil.copytree(cluster.broker.data / _MEMORY, cluster.folder / "memory")


def return_to_copy(cluster: Cluster) -> None:
    """Kill the broker, and start it with the memory that was copied."""
    cluster.broker.kill()
    shutil.rmtree(cluster.broker.data / _MEMORY)
    shutil.copytree(cluster.folder / "memory", cluster.broker.data / _MEMORY)
    cluster.broker.start()


def lengthen_memory(client: redis.Redis) -> None:
    """Let the broker have much to read when it starts again."""
    client.config_set("auto-aof-rewrite-percentage", 0)
    for _ in range(_TIMES):
        client.eval(_COUNT_UP, 1, "junk", _INCREMENTS)


@pytest.mark.thorough
def test_a_broker_that_remembers_less_than_it_knows(
    own_cluster: Cluster, experiment: Experiment
) -> None:
    """Its marker is right and the messages are gone: they are missed, and sent again."""
    experiment.begin("R02 before", "the broker back with its memory from before the submission")
    own_cluster.start_scheduler()
    own_cluster.start_worker()
    own_cluster.wait_for(_MARKED)
    copy_memory(own_cluster)
    own_cluster.submit(own_cluster.documents.write(chunks=24))
    own_cluster.wait_for_share(0.25)

    return_to_copy(own_cluster)
    experiment.fault_is_over()

    experiment.finish(
        bound_seconds=RECOVERY_SECONDS
        + _STALLED_SECONDS
        + RECONNECTION_SECONDS
        + experiment.undisturbed_seconds
    )
    assert own_cluster.count("SELECT max(attempts) FROM chunks") == 1


@pytest.mark.thorough
def test_a_broker_that_remembers_what_is_done(own_cluster: Cluster, experiment: Experiment) -> None:
    """Messages that were acknowledged come again, beside those that have not been taken yet."""
    begin(own_cluster, experiment, "R02 earlier", "the broker back with its memory of a quarter")
    own_cluster.wait_for_share(0.25)
    copy_memory(own_cluster)
    own_cluster.wait_for_share(0.75)

    return_to_copy(own_cluster)
    experiment.fault_is_over()

    experiment.finish(
        bound_seconds=RECOVERY_SECONDS + RECONNECTION_SECONDS + experiment.undisturbed_seconds
    )
    assert own_cluster.count("SELECT max(attempts) FROM chunks") == 1


@pytest.mark.thorough
def test_a_broker_that_reads_its_memory_for_a_while(
    own_cluster: Cluster, experiment: Experiment
) -> None:
    """While it answers that it is loading, everybody waits; a submission is accepted."""
    begin(own_cluster, experiment, "R02 loading", "kill -9 of the broker, which then loads long")
    own_cluster.wait_for_share(0.25)
    with own_cluster.broker.client() as client:
        lengthen_memory(client)

    own_cluster.broker.kill()
    starting = threading.Thread(target=own_cluster.broker.start)
    starting.start()
    own_cluster.submit(own_cluster.documents.write(chunks=24))
    starting.join()
    experiment.fault_is_over()

    experiment.finish(
        bound_seconds=RECOVERY_SECONDS + RECONNECTION_SECONDS + 2 * experiment.undisturbed_seconds
    )
    assert own_cluster.count("SELECT max(attempts) FROM chunks") == 1


@pytest.mark.thorough
def test_a_broker_that_is_gone_in_the_middle_of_a_fan_out(
    own_cluster: Cluster, experiment: Experiment
) -> None:
    """Half of a chord is out: the rest follows when the broker is back, however long that takes."""
    experiment.begin("R03 fan-out", "no broker for six leases after half of a chord")
    own_cluster.start_scheduler()
    worker = own_cluster.start_worker(f"fan_out.mid_publish:hang:2:{MESSAGES // 2}")
    own_cluster.submit(own_cluster.documents.write(chunks=24))
    wait_until(lambda: "fan_out.mid_publish passed" in worker.text(), 60, "half a chord is sent")

    own_cluster.broker.kill()
    down_since = own_cluster.value("SELECT now()")
    own_cluster.wait_for(f"SELECT now() - '{down_since}' > '{6 * LEASE_SECONDS} s'")
    own_cluster.broker.start()
    experiment.fault_is_over()

    experiment.finish(
        bound_seconds=RECOVERY_SECONDS + RECONNECTION_SECONDS + experiment.undisturbed_seconds
    )
    assert own_cluster.count("SELECT max(attempts) FROM chunks") == 1
