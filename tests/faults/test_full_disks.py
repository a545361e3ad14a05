"""D04: the disk of the database's tables or of its WAL is full, and is freed later."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.fakes.configuration import CONCURRENCY, LEASE_SECONDS
from tests.fakes.processes import wait_until
from tests.faults.cluster import Cluster
from tests.faults.disks import SmallDisk
from tests.faults.experiment import RECOVERY_SECONDS, Experiment

OUTAGE_SECONDS = 4 * LEASE_SECONDS
AFTER_OUTAGE_SECONDS = 6.0
_FULL = "No space left on device"


@pytest.mark.thorough
def test_no_calls_are_made_while_the_tables_have_no_room(
    disk: SmallDisk, own_cluster: Cluster, experiment: Experiment
) -> None:
    """D04: no call is made while its answer cannot be stored; work continues once there is room."""
    experiment.begin("D04 data", f"disk of the tables full for {OUTAGE_SECONDS:.0f} s", chunks=144)
    _move_tables(own_cluster, disk)
    _start_work(own_cluster)

    disk.fill()
    wait_until(lambda: _FULL in own_cluster.logs(), 40, "a page is full")
    _wait_for_the_last_page(own_cluster)
    calls = _asked_meanwhile(own_cluster)
    full = own_cluster.logs().count(_FULL)
    disk.make_room()
    experiment.fault_is_over()

    experiment.finish(
        notes=f"{calls} calls during the fault, {full} disk full errors",
        bound_seconds=RECOVERY_SECONDS + AFTER_OUTAGE_SECONDS + experiment.undisturbed_seconds,
    )
    assert calls <= CONCURRENCY
    assert all(member.is_alive for member in own_cluster.members.all)


@pytest.mark.thorough
def test_a_full_disk_of_the_wal_is_an_outage(
    disk: SmallDisk, own_cluster: Cluster, experiment: Experiment
) -> None:
    """D04: a server that panics because its disk is full, and is restarted, counts as an outage.

    It writes its WAL in segments of 16 MB, and stops when it cannot create one.
    """
    experiment.begin("D04 log", f"disk of the WAL full for {OUTAGE_SECONDS:.0f} s", chunks=144)
    _move_log(own_cluster, disk)
    _start_work(own_cluster)

    disk.fill()
    _use_up_log(own_cluster)
    calls = _asked_meanwhile(own_cluster)
    died = own_cluster.database.postgres.identity() is None or not _can_be_written(own_cluster)
    disk.make_room()
    if own_cluster.database.postgres.identity() is None:
        own_cluster.database.start()
    experiment.fault_is_over()

    experiment.finish(
        notes=f"{calls} calls during the fault",
        bound_seconds=RECOVERY_SECONDS + AFTER_OUTAGE_SECONDS + experiment.undisturbed_seconds,
    )
    assert died
    assert all(member.is_alive for member in own_cluster.members.all)


def _start_work(cluster: Cluster) -> None:
    """Start long work, so that the disk becomes full during it."""
    cluster.start_both()
    cluster.submit(*(cluster.documents.write(chunks=36) for _ in range(4)))
    cluster.wait_for_share(0.05)


def _asked_meanwhile(cluster: Cluster) -> int:
    """Return the number of calls during the outage."""
    begun = len(cluster.provider.requests)
    time.sleep(OUTAGE_SECONDS)  # noqa: TID251 - the length of the outage
    return len(cluster.provider.requests) - begun


def _wait_for_the_last_page(cluster: Cluster) -> None:
    """Wait until no calls are made: pages of tables have room after the disk is full."""
    seen = [len(cluster.provider.requests)]

    def is_quiet() -> bool:
        time.sleep(2 * LEASE_SECONDS)  # noqa: TID251 - longer than any pause between two attempts
        seen.append(len(cluster.provider.requests))
        return seen[-1] == seen[-2]

    wait_until(is_quiet, 60, "every page is full")


def _move_tables(cluster: Cluster, disk: SmallDisk) -> None:
    _give_to_server(cluster, disk.folder)
    name = sql.Identifier(cluster.name)
    location = sql.Literal(str(disk.folder))
    with cluster.database.connect() as connection:
        connection.execute(sql.SQL("CREATE TABLESPACE small LOCATION {}").format(location))
        connection.execute(sql.SQL("ALTER DATABASE {} SET TABLESPACE small").format(name))


def _move_log(cluster: Cluster, disk: SmallDisk) -> None:
    cluster.database.stop()
    log = cluster.database.data / "pg_wal"
    shutil.move(log, disk.folder / "pg_wal")
    for path in (disk.folder, *disk.folder.rglob("*")):
        _give_to_server(cluster, path)
    log.symlink_to(disk.folder / "pg_wal")
    cluster.database.start()


def _give_to_server(cluster: Cluster, path: Path) -> None:
    owner = cluster.database.data.stat()
    os.chown(path, owner.st_uid, owner.st_gid)


def _use_up_log(cluster: Cluster) -> None:
    """Write until the server cannot create a segment, as other databases on it might."""

    def is_used_up() -> bool:
        try:
            with cluster.database.connect() as connection:
                connection.execute("SELECT pg_switch_wal()")
                connection.execute("CREATE TABLE IF NOT EXISTS filler AS SELECT 1 AS number")
                connection.execute("INSERT INTO filler SELECT generate_series(1, 50000)")
        except psycopg.OperationalError:
            return True
        return False

    wait_until(is_used_up, 60, "the log's disk is full")


def _can_be_written(cluster: Cluster) -> bool:
    try:
        with cluster.database.connect() as connection:
            connection.execute("CREATE TABLE room AS SELECT 1 AS number")
    except psycopg.OperationalError:
        return False
    return True
