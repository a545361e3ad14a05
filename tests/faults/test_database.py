"""D: the database is killed, silent, slow, overloaded, locked or migrated under load."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from signal import Signals

import psycopg
import pytest
from psycopg import errors, sql
from pydantic import SecretStr
from sqlalchemy import Engine, make_url

from chordwise.embedded import postgres, processes
from chordwise.storage import migration, revisions
from chordwise.storage.database import driver, open_engine
from tests.fakes.configuration import CONCURRENCY, LEASE_SECONDS
from tests.fakes.later_migrations import LATER, NEWEST, newer_version, take_back
from tests.fakes.processes import wait_until
from tests.faults.cluster import Cluster
from tests.faults.experiment import RECOVERY_SECONDS, Experiment
from tests.faults.provider import Treatment

SEED = 20261124
# How long a worker waits for a silent server, and then for a new connection: see connections.py.
SILENCE_SECONDS = LEASE_SECONDS * 1.25 + 1 + LEASE_SECONDS
# Longer than the time that recovery gives the holders of leases after an outage.
AFTER_OUTAGE_SECONDS = 6.0
# Unused connections are closed after two leases, and other processes may connect.
TURNS_SECONDS = 4 * LEASE_SECONDS + RECOVERY_SECONDS

# A statement sent since the last commit, and the number of lost responses.
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
def test_a_repeatedly_restarted_database_costs_no_calls(
    own_cluster: Cluster, experiment: Experiment
) -> None:
    """D01: a minute of stops, crashes and resets costs no call, no attempt and no intervention."""
    experiment.begin("D01", "stop, crash or disconnection every 2–8 s", chunks=144, seed=SEED)
    random = Random(SEED)  # noqa: S311 - repeatable
    own_cluster.provider.treat(Treatment(delay_seconds=2), times=1_000)
    own_cluster.start_scheduler()
    for _ in range(2):
        own_cluster.start_worker()
    own_cluster.submit(*(own_cluster.documents.write(chunks=12) for _ in range(12)))
    ways = _ways_to_go(own_cluster)

    count, end = 0, time.monotonic() + 60
    while time.monotonic() < end and not _is_done(own_cluster, 0.9):
        time.sleep(random.uniform(2, 8))  # noqa: TID251 - the time between restarts
        random.choice(ways)()
        time.sleep(random.uniform(0, 2))  # noqa: TID251 - the length of an outage
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
def test_a_commit_without_a_response_is_not_repeated(
    cluster: Cluster, experiment: Experiment, commit: str
) -> None:
    """D02: a commit without a response is detected: one row, one call, one attempt."""
    holding, times = COMMITS[commit]
    experiment.begin(f"D02 {commit}", f"COMMIT responses lost: {times}")
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.to_database.drop_answer_after(b"COMMIT\0", times, holding=holding)

    cluster.start_both()
    wait_until(lambda: cluster.to_database.answers_dropped == times, 60, "answers are lost")
    experiment.fault_is_over()

    experiment.finish()
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1


@pytest.mark.thorough
def test_a_submission_without_a_commit_response_is_made_once(
    cluster: Cluster, experiment: Experiment
) -> None:
    """D02: the command finds out whether its commit succeeded, and submits once."""
    experiment.begin("D02 submit", "COMMIT responses of a submission lost")
    for holding in (b"INSERT INTO runs", b"INSERT INTO jobs"):
        cluster.to_database.drop_answer_after(b"COMMIT\0", holding=holding)
        cluster.submit(cluster.documents.write(chunks=12))
    cluster.start_both()
    experiment.fault_is_over()

    experiment.finish()
    assert cluster.to_database.answers_dropped == 2
    # including the canary
    assert cluster.count("SELECT count(*) FROM runs") == 3
    assert cluster.count("SELECT count(*) FROM jobs") == 3


@pytest.mark.thorough
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_half_open_database_connections_are_replaced(
    cluster: Cluster, experiment: Experiment, share: float
) -> None:
    """D half-open: silent connections are closed, and work continues."""
    experiment.begin(f"D half-open {share:.0%}", "bytes lost for three leases")
    cluster.start_both()
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for_share(share)

    cluster.to_database.swallow()
    calls = len(cluster.provider.requests)
    time.sleep(3 * LEASE_SECONDS)  # noqa: TID251 - the length of the outage
    calls = len(cluster.provider.requests) - calls
    cluster.to_database.pass_on()
    experiment.fault_is_over()

    experiment.finish(
        bound_seconds=SILENCE_SECONDS + AFTER_OUTAGE_SECONDS + experiment.undisturbed_seconds,
        notes=f"{calls} calls during the fault",
    )
    assert calls <= CONCURRENCY


@pytest.mark.thorough
@pytest.mark.parametrize("way", ["delay", "drip"])
def test_a_slow_database_connection_causes_no_repetition(
    cluster: Cluster, experiment: Experiment, way: str
) -> None:
    """D slow: slow operations are neither aborted nor repeated."""
    experiment.begin(f"D {way}", "50 ms delay per piece of data" if way == "delay" else "50 kB/s")
    cluster.start_both()
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
def test_processes_share_few_database_connections(
    own_cluster: Cluster, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D05: with nine connections for all, each process gets one in turn, and none crashes."""
    experiment.begin("D05", "max_connections = 9, two workers, scheduler, commands", chunks=48)
    own_cluster.database.stop()
    monkeypatch.setitem(postgres._SETTINGS, "max_connections", "9")
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
        notes=f"done {seconds:.0f} s after the submission, {refused} connections refused"
    )
    assert refused > 0
    assert seconds < TURNS_SECONDS + experiment.undisturbed_seconds
    assert listed == [0, 0, 0]
    assert all(alive)


ROUNDS = 4
_A_LOCK_IS_AWAITED = (
    "SELECT count(*) > 0 FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)"
    " WHERE NOT l.granted AND a.datname = current_database()"
)


@pytest.mark.thorough
@pytest.mark.parametrize("table", ["jobs", "chunks"])
def test_long_row_locks_are_waited_for(
    cluster: Cluster, experiment: Experiment, table: str
) -> None:
    """D03: storing an answer waits for the lock in bounded steps; no call is repeated or fails."""
    experiment.begin(f"D03 {table} locked", f"all {table} locked for three leases")
    cluster.start_both()
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for_share(0.3)

    with cluster.database.connect(cluster.name) as other, other.transaction():
        other.execute(sql.SQL("SELECT id FROM {} FOR UPDATE").format(sql.Identifier(table)))
        calls = len(cluster.provider.requests)
        time.sleep(3 * LEASE_SECONDS)  # noqa: TID251 - the time of the lock
        calls = len(cluster.provider.requests) - calls
    experiment.fault_is_over()

    experiment.finish(
        bound_seconds=RECOVERY_SECONDS + AFTER_OUTAGE_SECONDS + experiment.undisturbed_seconds,
        notes=f"{calls} calls during the fault",
    )
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1


@pytest.mark.thorough
def test_deadlocks_are_retried(cluster: Cluster, experiment: Experiment) -> None:
    """D03: the transaction that a deadlock aborts is repeated."""
    experiment.begin("D03 deadlock", f"chunks locked before their job, {ROUNDS} times")
    cluster.provider.treat(Treatment(delay_seconds=1), times=1_000)
    cluster.start_both()
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for_share(0.05)

    for _ in range(ROUNDS):
        _provoke(cluster)
    cluster.provider.forgive()
    experiment.fault_is_over()

    victims = cluster.logs().count("deadlock detected")
    experiment.finish(notes=f"{_deadlocks(cluster)} deadlocks, {victims} in the logs of Chordwise")
    assert _deadlocks(cluster) > 0
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1


def _provoke(cluster: Cluster) -> None:
    """Lock a running row, wait until a session waits for that lock, and request its row."""
    with cluster.database.connect(cluster.name) as other:
        # The session with the shorter timeout detects the deadlock and is aborted: Chordwise's own.
        other.execute("SET deadlock_timeout = '60s'")
        other.execute("SET lock_timeout = '10s'")
        try:
            with other.transaction():
                other.execute("SELECT id FROM chunks WHERE status = 'running' FOR UPDATE")
                wait_until(lambda: cluster.value(_A_LOCK_IS_AWAITED) is True, 20, "a session waits")
                other.execute("SELECT id FROM jobs FOR UPDATE")
        except (errors.DeadlockDetected, errors.LockNotAvailable):
            return


def _deadlocks(cluster: Cluster) -> int:
    return cluster.count(
        "SELECT deadlocks::int FROM pg_stat_database WHERE datname = current_database()"
    )


@pytest.mark.thorough
def test_serialization_failures_are_retried(cluster: Cluster, experiment: Experiment) -> None:
    """D03: serialization failures are retried like other errors of the database."""
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
def test_a_locked_table_blocks_statements_until_their_timeout(
    cluster: Cluster, experiment: Experiment
) -> None:
    """D03: a locked table blocks statements no longer than their timeout."""
    experiment.begin("D03 table locked", "table model_calls locked for two leases")
    cluster.start_both()
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
    """Return the longest time that a statement waited for a lock within `seconds`."""
    query = (
        "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - query_start)), 0)::float"
        " FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    longest, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            waited = cluster.value(query)
        except psycopg.OperationalError:
            continue
        longest = max(longest, waited if isinstance(waited, float) else 0.0)
        time.sleep(0.1)  # noqa: TID251 - the sampling interval
    return longest


MIGRATIONS = 3
VARIABLE = "CHORDWISE_DATABASE_URL"
ROLE = "only_reads"
PASSWORD = "not-the-right-one-4c1e"  # noqa: S105 - planted


@contextmanager
def owner(cluster: Cluster) -> Iterator[Engine]:
    """Open the database as its owner, bypassing the proxy."""
    engine = open_engine(SecretStr(cluster.database.postgres.url(cluster.name)), pool_size=1)
    yield engine
    engine.dispose()


@pytest.mark.thorough
def test_old_workers_continue_during_migrations(
    tmp_path: Path, cluster: Cluster, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D06: old workers continue, another one starts on the newer schema, and none fails."""
    experiment.begin(
        "D06", f"{MIGRATIONS} upgrades and downgrades, then an upgrade, under load", chunks=48
    )
    newer_version(tmp_path, monkeypatch, NEWEST)
    cluster.start_both()
    for _ in range(2):
        cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for_share(0.1)

    with owner(cluster) as engine:
        for _ in range(MIGRATIONS):
            migration.migrate(engine)
            take_back(engine, NEWEST)
        migration.migrate(engine)
        in_the_middle = cluster.value("SELECT bool_or(status <> 'succeeded') FROM chunks")
        with engine.connect() as connection:
            revision = revisions.current(driver(connection))
    beside = cluster.start_worker()
    experiment.fault_is_over()

    experiment.finish()
    assert in_the_middle is True
    assert revision == LATER
    assert beside.has_started
    assert "defect" not in cluster.logs()
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1


def _wrong_password(cluster: Cluster) -> str:
    return _address(cluster, password=PASSWORD)


def _without_rights(cluster: Cluster) -> str:
    _make_role(cluster, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}")
    return _address(cluster, username=ROLE, password=PASSWORD)


def _read_only(cluster: Cluster) -> str:
    _make_role(
        cluster,
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO {}",
        "ALTER ROLE {} SET default_transaction_read_only = on",
    )
    return _address(cluster, username=ROLE, password=PASSWORD)


WRONG_ADDRESSES = {
    "wrong password": _wrong_password,
    "missing privileges": _without_rights,
    "read-only": _read_only,
}


@pytest.mark.thorough
@pytest.mark.parametrize("case", WRONG_ADDRESSES)
def test_processes_refuse_an_unusable_database_role(
    own_cluster: Cluster, experiment: Experiment, case: str
) -> None:
    """D07: the process exits with 78 and names the setting; nothing is changed."""
    experiment.begin(f"D07 {case}", case, chunks=12)
    wrong = {VARIABLE: WRONG_ADDRESSES[case](own_cluster)}
    own_cluster.submit(own_cluster.documents.write(chunks=12))

    refused = [own_cluster.start_worker(**wrong), own_cluster.start_scheduler(**wrong)]
    codes = [member.wait_for_end() for member in refused]
    own_cluster.start_both()
    experiment.fault_is_over()

    experiment.finish(notes=f"exit codes {codes}")
    assert codes == [78, 78]
    assert all(VARIABLE in member.text() for member in refused)
    assert all(PASSWORD not in member.text() for member in refused)


def _make_role(cluster: Cluster, *statements: str) -> None:
    name = sql.Identifier(ROLE)
    create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
    with cluster.database.connect(cluster.name) as connection:
        connection.execute(create.format(name, sql.Literal(PASSWORD)))
        for statement in statements:
            connection.execute(statement.format(ROLE).encode())


def _address(cluster: Cluster, **changes: str) -> str:
    url = make_url(cluster.members.environment[VARIABLE])
    changed = url.set(username=changes.get("username", url.username), password=changes["password"])
    return changed.render_as_string(hide_password=False)
