"""R01 to R05: the broker loses data, is killed, unavailable or full, or the network fails."""

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
from tests.faults.experiment import MESSAGES, RECOVERY_SECONDS, TOLERANCE, Experiment
from tests.faults.members import Member
from tests.faults.proxy import Proxy, proxy_to

# The wait of a process between two attempts to reconnect.
RECONNECTION_SECONDS = 5.0


def wait_for_percent(cluster: Cluster, percent: int) -> None:
    """Wait until this share of the document is done; with 0, until its first messages are sent."""
    if percent:
        cluster.wait_for_share(percent / 100)
    else:
        cluster.wait_for("SELECT count(*) > 0 FROM chunks")


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
def test_a_flushed_broker_costs_no_calls(
    cluster: Cluster, experiment: Experiment, percent: int
) -> None:
    """R01: FLUSHALL costs two intervals, no document and no call."""
    experiment.begin_with_document(
        f"R01 {percent} %", f"FLUSHALL with {percent} % of the chunks done"
    )
    wait_for_percent(cluster, percent)

    cluster.broker.flush()
    experiment.fault_is_over()

    experiment.finish(bound_seconds=2 * INTERVAL_SECONDS + experiment.undisturbed_seconds)
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1


@pytest.mark.thorough
def test_a_repeatedly_flushed_broker_costs_no_calls(
    cluster: Cluster, experiment: Experiment
) -> None:
    """R01: repeated FLUSHALL during a document costs no call."""
    experiment.begin_with_document("R01 repeated", "FLUSHALL at every eighth of the document")

    for eighth in range(1, 8):
        cluster.wait_for_share(eighth / 8)
        cluster.broker.flush()
    experiment.fault_is_over()

    experiment.finish(bound_seconds=2 * INTERVAL_SECONDS + experiment.undisturbed_seconds)
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1


@pytest.mark.thorough
def test_unclaimed_messages_are_sent_again_after_a_flush(
    cluster: Cluster, experiment: Experiment
) -> None:
    """R01: a document whose message was lost before the first worker started is fanned out."""
    experiment.begin("R01 unclaimed", "FLUSHALL while messages wait for the first worker")
    cluster.start_scheduler()
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for("SELECT bool_and(sends > 0) FROM outbox")

    cluster.broker.flush()
    experiment.fault_is_over()
    cluster.start_worker()

    experiment.finish(bound_seconds=2 * INTERVAL_SECONDS + experiment.undisturbed_seconds)


@pytest.mark.thorough
@pytest.mark.parametrize("memory", ["empty", "kept"])
@pytest.mark.parametrize("percent", [0, 50, 95])
def test_a_restarted_broker_costs_no_calls(
    own_cluster: Cluster, experiment: Experiment, percent: int, memory: str
) -> None:
    """R02: with or without its data, the same worker continues, and no call is repeated."""
    id_ = f"R02 {memory} {percent} %"
    experiment.begin_with_document(id_, f"kill -9 of the broker, memory {memory}")
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
def test_a_broker_outage_of_several_leases(
    own_cluster: Cluster, experiment: Experiment, memory: str
) -> None:
    """R03: commands read PostgreSQL and report the broker; a submission runs later."""
    experiment.begin_with_document(f"R03 {memory}", "broker unavailable for three leases")
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


# `_SILENCE_SECONDS` of messages.py, after which an open connection is closed.
SILENCE_SECONDS = 10.0
# `OVERTAKEN` of recovery/chunks.py: a message that later ones overtake by this time is lost.
OVERTAKEN_SECONDS = 10.0


def wait(seconds: float) -> None:
    """Wait for the duration of the fault; there is no condition to wait for."""
    ends_at = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= ends_at, seconds + 5, "the fault lasts")


@pytest.mark.thorough
@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("seconds", [3.0, 12.0, 25.0])
def test_half_open_broker_connections_are_replaced(
    cluster: Cluster, experiment: Experiment, seconds: float, share: float
) -> None:
    """R05: half-open connections are closed, and the same worker continues."""
    id_ = f"R05 {seconds:g} s {share:.0%}"
    worker = experiment.begin_with_document(id_, f"bytes to the broker lost for {seconds:g} s")
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
        # Celery's loop waits for four responses per message in turn; sending takes two.
        ("delay 50 ms", lambda proxy: proxy.delay(0.05), 24 * 6 * 2 * 0.05),
        # Each message of about 3 kB is read twice and written three times.
        ("drip 20 kB/s", lambda proxy: proxy.drip(20_000), 24 * 5 * 3_000 / 20_000),
    ],
)
def test_a_slow_broker_causes_no_rescues(
    cluster: Cluster,
    experiment: Experiment,
    name: str,
    slow: Callable[[Proxy], None],
    slower_seconds: float,
) -> None:
    """R05: a slow broker takes more time, but causes no repeated calls and no rescues."""
    experiment.begin(f"R05 {name}", f"the broker is slow: {name}")
    slow(cluster.to_broker)
    cluster.start_both()

    cluster.submit(cluster.documents.write(chunks=24))

    experiment.finish(bound_seconds=experiment.undisturbed_seconds + slower_seconds)
    assert cluster.rows("SELECT reason, count FROM incidents") == []
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1


@pytest.mark.thorough
def test_repeated_connection_resets_cause_no_repeated_calls(
    cluster: Cluster, experiment: Experiment
) -> None:
    """R05: frequent resets of all connections to the broker cause no repeated calls."""
    worker = experiment.begin_with_document(
        "R05 resets", "connections to the broker reset every 0.5 s"
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
    """Start a worker with a separate connection to the broker."""
    with proxy_to(cluster.broker.target) as apart:
        url = f"redis://:{cluster.broker.password}@127.0.0.1:{apart.port}/0"
        worker = cluster.start_worker(CHORDWISE_BROKER_URL=url)
        wait_until(lambda: worker.has_started, 30, "the worker starts")
        yield worker, apart


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "break_off"), [("refused", Proxy.refuse), ("silent", Proxy.swallow)]
)
def test_one_of_two_workers_loses_the_broker_and_reconnects(
    cluster: Cluster, experiment: Experiment, name: str, break_off: Callable[[Proxy], None]
) -> None:
    """R05: it completes its chunks, the other worker does the rest, and it reconnects."""
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


_MEMORY = "appendonlydir"
# A broker reads these increments of one small key in some seconds.
_INCREMENTS = 200_000
_TIMES = 30
_COUNT_UP = "for i = 1, ARGV[1] do redis.call('INCR', KEYS[1]) end"
_STALLED_SECONDS = 4.0


def copy_memory(cluster: Cluster) -> None:
    """Copy the data that the broker has written to its disk so far."""
    with cluster.broker.client() as client:
        wait_until(lambda: client.info("persistence")["aof_pending_bio_fsync"] == 0, 10, "written")
    shutil.copytree(cluster.broker.data / _MEMORY, cluster.folder / "memory")


def return_to_copy(cluster: Cluster) -> None:
    """Kill the broker, and start it with the copied data."""
    cluster.broker.kill()
    shutil.rmtree(cluster.broker.data / _MEMORY)
    shutil.copytree(cluster.folder / "memory", cluster.broker.data / _MEMORY)
    cluster.broker.start()


def lengthen_memory(client: redis.Redis) -> None:
    """Make the broker's log so long that loading it takes some seconds."""
    client.config_set("auto-aof-rewrite-percentage", 0)
    for _ in range(_TIMES):
        client.eval(_COUNT_UP, 1, "junk", _INCREMENTS)


@pytest.mark.thorough
def test_a_broker_restored_to_before_the_submission(
    own_cluster: Cluster, experiment: Experiment
) -> None:
    """R02: messages that are missing from it are sent again."""
    experiment.begin("R02 before", "broker restarted with its data from before the submission")
    own_cluster.start_both()
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
def test_a_broker_restored_to_an_earlier_state(
    own_cluster: Cluster, experiment: Experiment
) -> None:
    """R02: acknowledged messages are delivered again, beside those that are still waiting."""
    experiment.begin_with_document(
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
def test_a_broker_that_loads_slowly_is_waited_for(
    own_cluster: Cluster, experiment: Experiment
) -> None:
    """R02: while it responds with LOADING, all processes wait, and a submission is accepted."""
    experiment.begin_with_document("R02 loading", "kill -9 of the broker, which then loads slowly")
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
def test_a_fan_out_continues_after_a_broker_outage(
    own_cluster: Cluster, experiment: Experiment
) -> None:
    """R03: half of a chord is sent; the rest follows when the broker is available again."""
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


# Celery's longest pause between two attempts to write a result or to reconnect.
PAUSE_SECONDS = 5.0
_FULL_SECONDS = 3 * LEASE_SECONDS
_NOTHING = 1
_TEN_MESSAGES = 35_000


@contextmanager
def full(cluster: Cluster, bytes_left: int | None = None) -> Iterator[None]:
    """Leave the broker no memory, or a little, for three leases from the start of the block."""
    begun_at = time.monotonic()
    limit = _NOTHING if bytes_left is None else cluster.broker.memory_used() + bytes_left
    cluster.broker.configure("maxmemory", str(limit))
    yield
    wait_until(
        lambda: time.monotonic() - begun_at > _FULL_SECONDS, _FULL_SECONDS + 5, "three leases"
    )
    cluster.broker.configure("maxmemory", "0")


def finish(cluster: Cluster, experiment: Experiment) -> None:
    """Check that nothing was lost or repeated, every wait ended, and every process is alive."""
    experiment.fault_is_over()
    experiment.finish(
        bound_seconds=RECOVERY_SECONDS + PAUSE_SECONDS + experiment.undisturbed_seconds
    )
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1
    assert all(member.is_alive for member in cluster.members.all)


@pytest.mark.thorough
@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_a_full_broker_causes_no_repeated_calls(
    own_cluster: Cluster, experiment: Experiment, share: float
) -> None:
    """R04: received messages are processed; state that the broker rejects is kept in PostgreSQL."""
    experiment.begin(f"R04 {share:.0%}", "broker full for three leases")
    own_cluster.start_both()
    own_cluster.submit(own_cluster.documents.write(chunks=24))
    own_cluster.wait_for_share(share)

    with full(own_cluster):
        pass

    finish(own_cluster, experiment)


@pytest.mark.thorough
def test_a_submission_waits_for_a_full_broker(own_cluster: Cluster, experiment: Experiment) -> None:
    """R04: it waits in the outbox until the broker has room; `doctor` names the cause."""
    experiment.begin("R04 submit", "broker full before a submission")
    own_cluster.start_both()
    wait_until(
        lambda: all(member.has_started for member in own_cluster.members.all), 30, "all start"
    )

    with full(own_cluster):
        own_cluster.submit(own_cluster.documents.write(chunks=24))
        examined = own_cluster.run("doctor")

    finish(own_cluster, experiment)
    assert examined.returncode == 69
    assert "The broker is full" in examined.stdout


@pytest.mark.thorough
def test_processes_start_with_a_full_broker(own_cluster: Cluster, experiment: Experiment) -> None:
    """R04: the worker consumes messages, and the scheduler sends once there is room."""
    experiment.begin("R04 start", "broker full while worker and scheduler start")

    with full(own_cluster):
        own_cluster.start_both()
        own_cluster.submit(own_cluster.documents.write(chunks=24))

    finish(own_cluster, experiment)


@pytest.mark.thorough
def test_a_fan_out_continues_after_the_broker_was_full(
    own_cluster: Cluster, experiment: Experiment
) -> None:
    """R04: a partly sent chord is completed, and no chunk of it is called twice."""
    experiment.begin("R04 fan-out", "broker full after half of a chord")
    own_cluster.start_scheduler()
    worker = own_cluster.start_worker(f"fan_out.mid_publish:hang:{PAUSE_SECONDS}:{MESSAGES // 2}")
    own_cluster.submit(own_cluster.documents.write(chunks=24))
    wait_until(lambda: "fan_out.mid_publish passed" in worker.text(), 60, "half a chord is sent")

    with full(own_cluster):
        pass

    finish(own_cluster, experiment)


@pytest.mark.thorough
def test_a_nearly_full_broker_causes_no_repeated_calls(
    own_cluster: Cluster, experiment: Experiment
) -> None:
    """R04: memory that is exhausted again and again only costs time."""
    experiment.begin(
        "R04 nearly full", "room for ten messages while ten documents are submitted", chunks=48
    )
    own_cluster.start_both()
    wait_until(
        lambda: all(member.has_started for member in own_cluster.members.all), 30, "all start"
    )

    with full(own_cluster, _TEN_MESSAGES):
        own_cluster.submit(*(own_cluster.documents.write(chunks=5) for _ in range(10)))

    finish(own_cluster, experiment)


_URGENT_SECONDS = 2.0
_BEGAN_AFTER = """
SELECT CAST(extract(epoch FROM min(c.started_at) - min(j.created_at)) AS float)
FROM jobs AS j INNER JOIN chunks AS c ON c.job_id = j.id WHERE j.run_id = '{}'
"""


@pytest.mark.thorough
def test_an_urgent_run_begins_before_a_nightly_one(
    cluster: Cluster, experiment: Experiment
) -> None:
    """R09: it waits for the calls in flight, but for no message of the nightly run."""
    experiment.begin("R09 urgent", "an urgent document behind 600 nightly ones", chunks=600)
    cluster.start_both()
    cluster.provider.delay_seconds = 0.1
    nightly = [cluster.documents.write(chunks=1) for _ in range(600)]
    cluster.submit(*nightly, options=("--nightly",))
    cluster.wait_for("SELECT count(*) > 20 FROM chunks WHERE status = 'succeeded'")
    experiment.fault_is_over()

    run_id = cluster.submit(cluster.documents.write(chunks=1))

    cluster.wait_for(f"SELECT status = 'finished' FROM runs WHERE id = '{run_id}'")  # noqa: S608 - its own id
    seconds = cluster.value(_BEGAN_AFTER.format(run_id))
    left = cluster.count("SELECT count(*) FROM chunks WHERE status = 'pending'")
    experiment.finish(notes=f"began after {seconds:.2f} s")
    assert isinstance(seconds, float)
    assert seconds <= _URGENT_SECONDS * TOLERANCE
    assert left > 100
