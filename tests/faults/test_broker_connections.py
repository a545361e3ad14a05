"""R05 and more: what lies between our processes and the broker is silent, slow, or broken."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.fakes.configuration import LEASE_SECONDS
from tests.fakes.processes import wait_until
from tests.faults.cluster import Cluster
from tests.faults.experiment import RECOVERY_SECONDS, Experiment
from tests.faults.members import Member
from tests.faults.proxy import Proxy, proxy_to

# `_SILENCE_SECONDS` of messages.py, after which an open connection is given up.
SILENCE_SECONDS = 10.0
# Of everybody who tries to reach the broker again, and may have just begun to wait.
RECONNECTION_SECONDS = 5.0
# `OVERTAKEN` of recovery/chunks.py: by so much later messages show that one is lost.
OVERTAKEN_SECONDS = 10.0


def begin(cluster: Cluster, experiment: Experiment, id_: str, injected: str) -> Member:
    """Have a scheduler and a worker at a document; return the worker."""
    experiment.begin(id_, injected)
    cluster.start_scheduler()
    worker = cluster.start_worker()
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
    """R05: connections that are open and dead are given up, and the same worker goes on."""
    id_ = f"R05 {seconds:g} s {share:.0%}"
    worker = begin(cluster, experiment, id_, f"bytes to the broker vanish for {seconds:g} s")
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
    cluster.start_scheduler()
    cluster.start_worker()

    cluster.submit(cluster.documents.write(chunks=24))

    experiment.finish(bound_seconds=experiment.undisturbed_seconds + slower_seconds)
    assert cluster.rows("SELECT reason, count FROM incidents") == []
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1


@pytest.mark.thorough
def test_connections_that_break_again_and_again(cluster: Cluster, experiment: Experiment) -> None:
    """Resets of all connections to the broker, often: all is done, and nothing is asked twice."""
    worker = begin(cluster, experiment, "R05 resets", "connections to the broker reset every 0.5 s")

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
