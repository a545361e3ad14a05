"""D: the database's tables change under load, or do not let us work in the first place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import Engine, make_url

from chordwise.storage import migration, revisions
from chordwise.storage.database import open_engine
from tests.fakes.later_migrations import LATER, NEWEST, newer_version, take_back
from tests.faults.cluster import Cluster
from tests.faults.experiment import Experiment

ROUNDS = 3
VARIABLE = "CHORDWISE_DATABASE_URL"
ROLE = "only_reads"
PASSWORD = "not-the-right-one-4c1e"  # noqa: S105 - planted


@contextmanager
def owner(cluster: Cluster) -> Iterator[Engine]:
    """Open the database as its owner, around the proxy."""
    engine = open_engine(SecretStr(cluster.database.postgres.url(cluster.name)), pool_size=1)
    yield engine
    engine.dispose()


@pytest.mark.thorough
def test_migrations_up_down_and_up_under_load(
    tmp_path: Path, cluster: Cluster, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D06: old workers go on, another old one starts on the newer schema, and none fails."""
    experiment.begin("D06", f"{ROUNDS} times up and down, and up, under load", chunks=48)
    newer_version(tmp_path, monkeypatch, NEWEST)
    cluster.start_scheduler()
    cluster.start_worker()
    for _ in range(2):
        cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for_share(0.1)

    with owner(cluster) as engine:
        for _ in range(ROUNDS):
            migration.migrate(engine)
            take_back(engine, NEWEST)
        migration.migrate(engine)
        in_the_middle = cluster.value("SELECT bool_or(status <> 'succeeded') FROM chunks")
        with engine.connect() as connection:
            found = revisions.current(connection)
    beside = cluster.start_worker()
    experiment.fault_is_over()

    experiment.finish()
    assert in_the_middle is True
    assert found == LATER
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
    "without rights": _without_rights,
    "read-only": _read_only,
}


@pytest.mark.thorough
@pytest.mark.parametrize("case", WRONG_ADDRESSES)
def test_a_database_that_does_not_let_us_work(
    own_cluster: Cluster, experiment: Experiment, case: str
) -> None:
    """D07: what is wrong is told at the start with code 78 and the setting, and nothing happens."""
    experiment.begin(f"D07 {case}", case, chunks=12)
    wrong = {VARIABLE: WRONG_ADDRESSES[case](own_cluster)}
    own_cluster.submit(own_cluster.documents.write(chunks=12))

    refused = [own_cluster.start_worker(**wrong), own_cluster.start_scheduler(**wrong)]
    codes = [member.wait_for_end() for member in refused]
    own_cluster.start_scheduler()
    own_cluster.start_worker()
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
