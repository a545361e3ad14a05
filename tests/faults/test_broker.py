"""R01 to R05: the broker forgets, dies, stays away, fills up, and is behind a bad network."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis

from tests.fakes.configuration import INTERVAL_SECONDS, LEASE_SECONDS
from tests.fakes.processes import wait_until
from tests.faults.cluster import Cluster
from tests.faults.experiment import MESSAGES, RECOVERY_SECONDS, Experiment
from tests.faults.members import Member
from tests.faults.proxy import Proxy, proxy_to

# Of each process that reconnects, which may have just begun to wait.
RECONNECTION_SECONDS = 5.0
_FORGOTTEN = "SELECT count(*) FROM incidents WHERE kind = 'rescue' AND reason = 'broker_data_lost'"


def begin(cluster: Cluster, experiment: Experiment, id_: str, injected: str) -> None:
    """Have a scheduler and a worker at a document."""
    experiment.begin(id_, injected)
    cluster.start_both()
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
    """R02: with its memory or without, the same worker continues, and nothing is asked twice."""
    id_ = f"R02 {memory} {percent} %"
    begin(own_cluster, experiment, id_, f"kill -9 of the broker, memory {memory}")
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
    begin(own_cluster, experiment, f"R03 {memory}", "broker unavailable for three leases")
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


# `_SILENCE_SECONDS` of messages.py, after which an open connection is given up.
SILENCE_SECONDS = 10.0
# Of each process that reconnects, which may have just begun to wait.
# `OVERTAKEN` of recovery/chunks.py: by so much later messages show that one is lost.
OVERTAKEN_SECONDS = 10.0


def begin_beside(cluster: Cluster, experiment: Experiment, id_: str, injected: str) -> Member:
    """Have a scheduler and a worker at a document; return the worker."""
    experiment.begin(id_, injected)
    worker = cluster.start_both()
    cluster.submit(cluster.documents.write(chunks=24))
    return worker


def wait(seconds: float) -> None:
    """Let the fault last; nothing tells when it has lasted long enough."""
    ends_at = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= ends_at, seconds + 5, "the fault lasts")


@pytest.mark.thorough
@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("seconds", [3.0, 12.0, 25.0])
def test_a_silent_network(
    cluster: Cluster, experiment: Experiment, seconds: float, share: float
) -> None:
    """R05: connections that are open and dead are given up, and the same worker continues."""
    id_ = f"R05 {seconds:g} s {share:.0%}"
    worker = begin_beside(cluster, experiment, id_, f"bytes to the broker lost for {seconds:g} s")
    cluster.wait_for_share(share)

    cluster.to_broker.swallow()
    wait(seconds)
    cluster.to_broker.pass_on()
    experiment.fault_is_over()

    experiment.finish(
        bound_seconds=RECOVERY_SECONDS
        + SILENCE_SECONDS
        + RECONNECTION_SECONDS
        + experiment.undisturbed_seconds
    )
    assert worker.is_alive


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "slow", "slower_seconds"),
    [
        # Four answers for each message, one after the other in Celery's loop, and two to send it.
        ("delay 50 ms", lambda proxy: proxy.delay(0.05), 24 * 6 * 2 * 0.05),
        # Each message is read twice and written three times, at about 3 kB.
        ("drip 20 kB/s", lambda proxy: proxy.drip(20_000), 24 * 5 * 3_000 / 20_000),
    ],
)
def test_a_slow_network(
    cluster: Cluster,
    experiment: Experiment,
    name: str,
    slow: Callable[[Proxy], None],
    slower_seconds: float,
) -> None:
    """A broker that is far away costs time, and neither calls nor rescues."""
    experiment.begin(f"R05 {name}", f"the broker is slow: {name}")
    slow(cluster.to_broker)
    cluster.start_both()

    cluster.submit(cluster.documents.write(chunks=24))

    experiment.finish(bound_seconds=experiment.undisturbed_seconds + slower_seconds)
    assert cluster.rows("SELECT reason, count FROM incidents") == []
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1


@pytest.mark.thorough
def test_connections_that_break_again_and_again(cluster: Cluster, experiment: Experiment) -> None:
    """Resets of all connections to the broker, often: all is done, and nothing is asked twice."""
    worker = begin_beside(
        cluster, experiment, "R05 resets", "connections to the broker reset every 0.5 s"
    )

    for _ in range(12):
        cluster.to_broker.cut()
        wait(0.5)
    experiment.fault_is_over()

    experiment.finish(
        bound_seconds=RECOVERY_SECONDS + RECONNECTION_SECONDS + experiment.undisturbed_seconds
    )
    assert worker.is_alive
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1


@contextmanager
def worker_apart(cluster: Cluster) -> Iterator[tuple[Member, Proxy]]:
    """Start a worker with a connection to the broker of its own."""
    with proxy_to(cluster.broker.target) as apart:
        url = f"redis://:{cluster.broker.password}@127.0.0.1:{apart.port}/0"
        worker = cluster.start_worker(CHORDWISE_BROKER_URL=url)
        wait_until(lambda: worker.has_started, 30, "the worker starts")
        yield worker, apart


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "break_off"), [("refused", Proxy.refuse), ("silent", Proxy.swallow)]
)
def test_one_of_two_workers_loses_the_broker(
    cluster: Cluster, experiment: Experiment, name: str, break_off: Callable[[Proxy], None]
) -> None:
    """What it holds it finishes and stores; the other one does the rest; then it is back."""
    experiment.begin(f"R05 one {name}", f"one of two workers: the broker {name} for three leases")
    cluster.start_scheduler()
    with worker_apart(cluster) as (worker, apart):
        cluster.start_worker()
        cluster.submit(cluster.documents.write(chunks=48))
        cluster.wait_for_share(0.25)

        break_off(apart)
        wait(3 * LEASE_SECONDS)
        apart.pass_on()
        experiment.fault_is_over()

        experiment.finish(
            bound_seconds=RECOVERY_SECONDS + OVERTAKEN_SECONDS + 2 * experiment.undisturbed_seconds
        )
        assert worker.is_alive
        assert cluster.count("SELECT max(attempts) FROM chunks") == 1
        cluster.members.all[-1].terminate()
        cluster.submit(cluster.documents.write(chunks=6))
        cluster.wait_until_finished(30)


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
    experiment.begin("R02 before", "broker restarted with its data from before the submission")
    own_cluster.start_both()
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
    begin(
        own_cluster,
        experiment,
        "R02 earlier",
        "broker restarted with its data at a quarter of the chunks",
    )
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
    """While it answers that it is loading, all processes wait; a submission is accepted."""
    begin(own_cluster, experiment, "R02 loading", "kill -9 of the broker, which then loads slowly")
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
    experiment.begin("R03 fan-out", "broker unavailable for six leases after half of a chord")
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


# The longest pause of Celery between two tries to write a result, and of a reconnection.
PAUSE_SECONDS = 5.0
_FULL_SECONDS = 3 * LEASE_SECONDS
_NOTHING = 1
_TEN_MESSAGES = 35_000


@contextmanager
def full(cluster: Cluster, bytes_left: int | None = None) -> Iterator[None]:
    """Leave the broker no room, or a little, from the block's begin until three leases later."""
    begun_at = time.monotonic()
    limit = _NOTHING if bytes_left is None else cluster.broker.memory_used() + bytes_left
    cluster.broker.configure("maxmemory", str(limit))
    yield
    wait_until(
        lambda: time.monotonic() - begun_at > _FULL_SECONDS, _FULL_SECONDS + 5, "three leases"
    )
    cluster.broker.configure("maxmemory", "0")


def finish(cluster: Cluster, experiment: Experiment) -> None:
    """Nothing was lost or asked twice, no wait was endless, and every process lives."""
    experiment.fault_is_over()
    experiment.finish(
        bound_seconds=RECOVERY_SECONDS + PAUSE_SECONDS + experiment.undisturbed_seconds
    )
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1
    assert all(member.is_alive for member in cluster.members.all)


@pytest.mark.thorough
@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_a_broker_without_room(own_cluster: Cluster, experiment: Experiment, share: float) -> None:
    """Messages that are there are worked on; what cannot be noted stands in PostgreSQL."""
    experiment.begin(f"R04 {share:.0%}", "broker full for three leases")
    own_cluster.start_both()
    own_cluster.submit(own_cluster.documents.write(chunks=24))
    own_cluster.wait_for_share(share)

    with full(own_cluster):
        pass

    finish(own_cluster, experiment)


@pytest.mark.thorough
def test_a_submission_to_a_broker_without_room(
    own_cluster: Cluster, experiment: Experiment
) -> None:
    """It is accepted, waits in the outbox, and runs when there is room; doctor names the cause."""
    experiment.begin("R04 submit", "broker full before a submission")
    own_cluster.start_both()
    wait_until(lambda: all(each.has_started for each in own_cluster.members.all), 30, "all start")

    with full(own_cluster):
        own_cluster.submit(own_cluster.documents.write(chunks=24))
        examined = own_cluster.run("doctor")

    finish(own_cluster, experiment)
    assert examined.returncode == 69
    assert "The broker is full" in examined.stdout


@pytest.mark.thorough
def test_processes_that_start_before_a_broker_without_room(
    own_cluster: Cluster, experiment: Experiment
) -> None:
    """The worker consumes what comes, and the scheduler sends when there is room."""
    experiment.begin("R04 start", "broker full while worker and scheduler start")

    with full(own_cluster):
        own_cluster.start_both()
        own_cluster.submit(own_cluster.documents.write(chunks=24))

    finish(own_cluster, experiment)


@pytest.mark.thorough
def test_a_broker_that_fills_up_in_the_middle_of_a_fan_out(
    own_cluster: Cluster, experiment: Experiment
) -> None:
    """A chord that was sent in parts is completed, and no chunk of it is asked about twice."""
    experiment.begin("R04 fan-out", "broker full after half of a chord")
    own_cluster.start_scheduler()
    worker = own_cluster.start_worker(f"fan_out.mid_publish:hang:{PAUSE_SECONDS}:{MESSAGES // 2}")
    own_cluster.submit(own_cluster.documents.write(chunks=24))
    wait_until(lambda: "fan_out.mid_publish passed" in worker.text(), 60, "half a chord is sent")

    with full(own_cluster):
        pass

    finish(own_cluster, experiment)


@pytest.mark.thorough
def test_a_broker_at_its_brink(own_cluster: Cluster, experiment: Experiment) -> None:
    """Room that comes and goes with every message costs time and nothing else."""
    experiment.begin(
        "R04 nearly full", "room for ten messages while ten documents are submitted", chunks=48
    )
    own_cluster.start_both()
    wait_until(lambda: all(each.has_started for each in own_cluster.members.all), 30, "all start")

    with full(own_cluster, _TEN_MESSAGES):
        own_cluster.submit(*(own_cluster.documents.write(chunks=5) for _ in range(10)))

    finish(own_cluster, experiment)
