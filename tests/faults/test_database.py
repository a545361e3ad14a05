"""D: the database dies, restarts, answers commits into the void, falls silent, or is crowded."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from signal import Signals

import pytest

from chordwise.embedded import postgres, processes
from tests.fakes.configuration import CONCURRENCY, LEASE_SECONDS
from tests.fakes.processes import wait_until
from tests.faults.cluster import Cluster
from tests.faults.experiment import RECOVERY_SECONDS, Experiment
from tests.faults.provider import Treatment

SEED = 20261124
# What a worker waits for a silent server, and then for a connection to it: see connections.py.
SILENCE_SECONDS = LEASE_SECONDS * 1.25 + 1 + LEASE_SECONDS
# Longer than recovery, which lets the holders of leases go first after an outage.
AFTER_OUTAGE_SECONDS = 6.0
# Connections that are not used end after two leases, and others may be opened.
TURNS_SECONDS = 4 * LEASE_SECONDS + RECOVERY_SECONDS

# What the connection has sent since its last commit, and how many such answers are lost.
COMMITS = {
    "any": (b"", 20),
    "chunks written": (b"INSERT INTO chunks", 1),
    "claim": (b"UPDATE chunks SET status", 3),
    "ledger": (b"INSERT INTO model_calls", 3),
    "answer": (b"succeeded", 3),
    "result": (b"INSERT INTO results", 1),
    "outbox": (b"UPDATE outbox", 2),
}
IN_THE_SUBSET = ("answer",)


@pytest.mark.thorough
def test_a_database_that_restarts_all_the_time(
    own_cluster: Cluster, experiment: Experiment
) -> None:
    """D01: a minute of stops, crashes and resets costs no call, no attempt and no hand's turn."""
    experiment.begin("D01", "stopped, crashed or cut off every 2–8 s", chunks=144, seed=SEED)
    random = Random(SEED)  # noqa: S311 - to be repeated
    own_cluster.provider.treat(Treatment(delay_seconds=2), times=1_000)
    own_cluster.start_scheduler()
    for _ in range(2):
        own_cluster.start_worker()
    own_cluster.submit(*(own_cluster.documents.write(chunks=12) for _ in range(12)))
    ways = _ways_to_go(own_cluster)

    count, end = 0, time.monotonic() + 60
    while time.monotonic() < end and not _is_done(own_cluster, 0.9):
        time.sleep(random.uniform(2, 8))  # noqa: TID251 - restarts come when they come
        random.choice(ways)()
        time.sleep(random.uniform(0, 2))  # noqa: TID251 - it is away for a moment
        if own_cluster.database.postgres.identity() is None:
            own_cluster.database.start()
        count += 1
    own_cluster.provider.forgive()
    experiment.fault_is_over()

    experiment.finish(
        notes=f"{count} restarts, 12 documents",
        bound_seconds=RECOVERY_SECONDS + AFTER_OUTAGE_SECONDS + experiment.undisturbed_seconds,
    )
    assert count > 4
    assert own_cluster.count("SELECT max(attempts) FROM chunks") == 1


def _is_done(cluster: Cluster, share: float) -> bool:
    query = "SELECT avg((status = 'succeeded')::int)::float FROM chunks"
    done = cluster.value(query)
    return isinstance(done, float) and done >= share


def _ways_to_go(cluster: Cluster) -> list[Callable[[], object]]:
    database = cluster.database

    def stop_at_once() -> None:
        processes.stop(database.postgres.identity(), (Signals.SIGQUIT, 10.0))

    return [database.stop, stop_at_once, database.kill, cluster.to_database.cut]


@pytest.mark.parametrize(
    "commit",
    [
        pytest.param(name, marks=() if name in IN_THE_SUBSET else pytest.mark.thorough)
        for name in COMMITS
    ],
)
def test_a_commit_whose_answer_is_lost(
    cluster: Cluster, experiment: Experiment, commit: str
) -> None:
    """D02: what was committed unseen is found: one row, one call, one attempt."""
    holding, times = COMMITS[commit]
    experiment.begin(f"D02 {commit}", f"{times} answers to COMMIT lost")
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.to_database.drop_answer_after(b"COMMIT\0", times, holding=holding)

    cluster.start_scheduler()
    cluster.start_worker()
    wait_until(lambda: cluster.to_database.answers_dropped == times, 60, "answers are lost")
    experiment.fault_is_over()

    experiment.finish()
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1


@pytest.mark.thorough
def test_a_submission_whose_commit_is_answered_into_the_void(
    cluster: Cluster, experiment: Experiment
) -> None:
    """D02: a command that is not told whether it has submitted finds out, and submits once."""
    experiment.begin("D02 submit", "the answers to a submission's COMMITs lost")
    for holding in (b"INSERT INTO runs", b"INSERT INTO jobs"):
        cluster.to_database.drop_answer_after(b"COMMIT\0", holding=holding)
        cluster.submit(cluster.documents.write(chunks=12))
    cluster.start_scheduler()
    cluster.start_worker()
    experiment.fault_is_over()

    experiment.finish()
    assert cluster.to_database.answers_dropped == 2
    # and the canary's
    assert cluster.count("SELECT count(*) FROM runs") == 3
    assert cluster.count("SELECT count(*) FROM jobs") == 3


@pytest.mark.thorough
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_database_that_falls_silent(
    cluster: Cluster, experiment: Experiment, share: float
) -> None:
    """D half-open: connections that say nothing any more are given up, and work goes on."""
    experiment.begin(f"D half-open {share:.0%}", "bytes vanish for three leases")
    cluster.start_scheduler()
    cluster.start_worker()
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for_share(share)

    cluster.to_database.swallow()
    asked = len(cluster.provider.requests)
    time.sleep(3 * LEASE_SECONDS)  # noqa: TID251 - the outage lasts so long
    asked = len(cluster.provider.requests) - asked
    cluster.to_database.pass_on()
    experiment.fault_is_over()

    experiment.finish(
        bound_seconds=SILENCE_SECONDS + AFTER_OUTAGE_SECONDS + experiment.undisturbed_seconds,
        notes=f"{asked} calls meanwhile",
    )
    assert asked <= CONCURRENCY


@pytest.mark.thorough
@pytest.mark.parametrize("way", ["delay", "drip"])
def test_a_slow_way_to_the_database(cluster: Cluster, experiment: Experiment, way: str) -> None:
    """D slow: what takes long takes long, and nothing is given up or done twice."""
    experiment.begin(f"D {way}", "50 ms for each piece" if way == "delay" else "50 kB/s")
    cluster.start_scheduler()
    cluster.start_worker()
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for_share(0.2)

    if way == "delay":
        cluster.to_database.delay(0.05)
    else:
        cluster.to_database.drip(50_000)
    cluster.wait_for_share(0.8)
    cluster.to_database.pass_on()
    experiment.fault_is_over()

    experiment.finish()
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1


@pytest.mark.thorough
def test_a_database_with_few_connections(
    own_cluster: Cluster, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D05: with ten connections for all, each process has a turn, and none crashes."""
    experiment.begin("D05", "max_connections = 10, two workers, scheduler, commands", chunks=48)
    own_cluster.database.stop()
    monkeypatch.setitem(postgres._SETTINGS, "max_connections", "10")
    own_cluster.database.start()
    members = [own_cluster.start_scheduler(), *(own_cluster.start_worker() for _ in range(2))]
    for _ in range(2):
        own_cluster.submit(own_cluster.documents.write(chunks=24))

    begun = time.monotonic()
    own_cluster.wait_until_finished(90)
    seconds = time.monotonic() - begun
    listed = [own_cluster.run("runs").returncode for _ in range(3)]
    alive = [member.is_alive for member in members]
    own_cluster.database.stop()
    monkeypatch.setitem(postgres._SETTINGS, "max_connections", "200")
    own_cluster.database.start()
    experiment.fault_is_over()

    refused = own_cluster.logs().count("too many clients")
    experiment.finish(
        notes=f"done {seconds:.0f} s after the submission, {refused} times refused meanwhile"
    )
    assert refused > 0
    assert seconds < TURNS_SECONDS + experiment.undisturbed_seconds
    assert listed == [0, 0, 0]
    assert all(alive)
