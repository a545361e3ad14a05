"""D03: somebody else's transactions stand in the way, in the other order or for long."""

from __future__ import annotations

import time

import psycopg
import pytest
from psycopg import errors, sql

from tests.fakes.configuration import LEASE_SECONDS
from tests.fakes.processes import wait_until
from tests.faults.cluster import Cluster
from tests.faults.experiment import RECOVERY_SECONDS, Experiment
from tests.faults.provider import Treatment

ROUNDS = 4
AFTER_OUTAGE_SECONDS = 6.0
_SOMEBODY_WAITS = (
    "SELECT count(*) > 0 FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)"
    " WHERE NOT l.granted AND a.datname = current_database()"
)


@pytest.mark.thorough
@pytest.mark.parametrize("table", ["jobs", "chunks"])
def test_rows_that_are_locked_for_long(
    cluster: Cluster, experiment: Experiment, table: str
) -> None:
    """Answers wait for the lock in bounded steps; nothing is asked again or fails."""
    experiment.begin(f"D03 {table} locked", f"all {table} locked for three leases")
    cluster.start_scheduler()
    cluster.start_worker()
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for_share(0.3)

    with cluster.database.connect(cluster.name) as other, other.transaction():
        other.execute(sql.SQL("SELECT id FROM {} FOR UPDATE").format(sql.Identifier(table)))
        asked = len(cluster.provider.requests)
        time.sleep(3 * LEASE_SECONDS)  # noqa: TID251 - the lock is held for so long
        asked = len(cluster.provider.requests) - asked
    experiment.fault_is_over()

    experiment.finish(
        bound_seconds=RECOVERY_SECONDS + AFTER_OUTAGE_SECONDS + experiment.undisturbed_seconds,
        notes=f"{asked} calls meanwhile",
    )
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1


@pytest.mark.thorough
def test_rows_that_are_locked_in_the_other_order(cluster: Cluster, experiment: Experiment) -> None:
    """A transaction that is ended as a deadlock's victim is repeated."""
    experiment.begin("D03 deadlock", f"{ROUNDS} times chunks locked before their job")
    cluster.provider.treat(Treatment(delay_seconds=1), times=1_000)
    cluster.start_scheduler()
    cluster.start_worker()
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for_share(0.05)

    for _ in range(ROUNDS):
        _provoke(cluster)
    cluster.provider.forgive()
    experiment.fault_is_over()

    victims = cluster.logs().count("deadlock detected")
    experiment.finish(notes=f"{_deadlocks(cluster)} deadlocks, {victims} in our logs")
    assert _deadlocks(cluster) > 0
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1


def _provoke(cluster: Cluster) -> None:
    """Lock what is at work, wait until somebody waits for it, and want what that one has."""
    with cluster.database.connect(cluster.name) as other:
        # Patience decides whose wait is looked at first: the victim should be one of ours.
        other.execute("SET deadlock_timeout = '60s'")
        other.execute("SET lock_timeout = '10s'")
        try:
            with other.transaction():
                other.execute("SELECT id FROM chunks WHERE status = 'running' FOR UPDATE")
                wait_until(lambda: cluster.value(_SOMEBODY_WAITS) is True, 20, "somebody waits")
                other.execute("SELECT id FROM jobs FOR UPDATE")
        except (errors.DeadlockDetected, errors.LockNotAvailable):
            return


def _deadlocks(cluster: Cluster) -> int:
    return cluster.count(
        "SELECT deadlocks::int FROM pg_stat_database WHERE datname = current_database()"
    )


@pytest.mark.thorough
def test_transactions_that_cannot_be_put_in_order(cluster: Cluster, experiment: Experiment) -> None:
    """Serialization failures are repeated like every trouble of the database's."""
    experiment.begin("D03 serializable", "every transaction serializable")
    with cluster.database.connect() as other:
        statement = sql.SQL("ALTER DATABASE {} SET default_transaction_isolation = 'serializable'")
        other.execute(statement.format(sql.Identifier(cluster.name)))
    cluster.start_scheduler()
    for _ in range(2):
        cluster.start_worker()
    cluster.submit(cluster.documents.write(chunks=24))
    experiment.fault_is_over()

    cluster.wait_until_finished(60)
    rollbacks = cluster.count(
        "SELECT xact_rollback::int FROM pg_stat_database WHERE datname = current_database()"
    )
    experiment.finish(
        notes=f"{rollbacks} transactions rolled back",
        bound_seconds=RECOVERY_SECONDS + 2 * experiment.undisturbed_seconds,
    )


@pytest.mark.thorough
def test_a_statement_that_takes_too_long(cluster: Cluster, experiment: Experiment) -> None:
    """A table that is locked as a whole stops statements for as long as they may take, no more."""
    experiment.begin("D03 table locked", "model_calls locked as a whole for two leases")
    cluster.start_scheduler()
    cluster.start_worker()
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for_share(0.3)

    with cluster.database.connect(cluster.name) as other, other.transaction():
        other.execute("LOCK TABLE model_calls IN ACCESS EXCLUSIVE MODE")
        longest = _longest_wait(cluster, 2 * LEASE_SECONDS)
    experiment.fault_is_over()

    experiment.finish(
        bound_seconds=RECOVERY_SECONDS + AFTER_OUTAGE_SECONDS + experiment.undisturbed_seconds,
        notes=f"longest wait {longest:.1f} s",
    )
    assert 0 < longest < LEASE_SECONDS


def _longest_wait(cluster: Cluster, seconds: float) -> float:
    """Return how long the longest statement has waited for a lock during so many seconds."""
    query = (
        "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - query_start)), 0)::float"
        " FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    longest, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            found = cluster.value(query)
        except psycopg.OperationalError:
            continue
        longest = max(longest, found if isinstance(found, float) else 0.0)
        time.sleep(0.1)  # noqa: TID251 - as often as is precise enough
    return longest
