"""Fixtures of the fault experiments: clusters on shared or separate servers, and the report."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.conftest import Servers
from tests.faults import rows
from tests.faults.cluster import Cluster, open_cluster
from tests.faults.disks import SmallDisk, mounted
from tests.faults.experiment import Experiment
from tests.faults.rows import Row
from tests.faults.servers import (
    BrokerServer,
    DatabaseServer,
    fresh_database,
    migrated_template,
    own_servers,
)
from tests.faults.work import UndisturbedWork

_HERE = Path(__file__).parent
_DISK_MEGABYTES = 96
_ROW = "fault experiment"
_measured: list[Row] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add options for the lengths of experiments and for the seed of random faults."""
    group = parser.getgroup("fault experiments")
    group.addoption(
        "--soak-minutes", type=float, default=0.0, help="length of the soak test; 0 skips it"
    )
    group.addoption(
        "--stream-minutes", type=float, default=2.0, help="how long files arrive in F10"
    )
    group.addoption("--many-jobs", type=int, default=600, help="number of jobs in D08")
    group.addoption("--fault-seed", type=int, default=None, help="the seed of random faults")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.faults)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect the rows of experiments, which may have run in other processes."""
    values = [value for name, value in report.user_properties if name == _ROW]
    if report.when == "call":
        _measured.extend(Row(**json.loads(str(value))) for value in values)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the row of each experiment, passed or failed."""
    if _measured:
        terminalreporter.section("fault experiments")
        for line in rows.plain_table(_measured):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def session_servers(servers: Servers) -> tuple[DatabaseServer, BrokerServer]:
    data = servers.postgres._data
    sockets = data.parent / "run"
    return (
        DatabaseServer(postgres=servers.postgres, data=data, sockets=sockets, is_ours_alone=False),
        BrokerServer(
            valkey=servers.valkey, data=data.parent / "valkey", sockets=sockets, is_ours_alone=False
        ),
    )


@pytest.fixture(scope="session")
def work(
    session_servers: tuple[DatabaseServer, BrokerServer],
    template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> UndisturbedWork:
    """Return the measurement of the work without a fault."""

    @contextmanager
    def open_another() -> Iterator[Cluster]:
        folder = tmp_path_factory.mktemp("undisturbed")
        with (
            fresh_database(session_servers[0], template) as name,
            open_cluster(folder / "world", *session_servers, name) as cluster,
        ):
            yield cluster

    return UndisturbedWork(open_another=open_another)


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    """Mount a small file system, before the cluster opens; skip the test without permission."""
    with mounted(_DISK_MEGABYTES) as small:
        yield small


@pytest.fixture
def cluster(
    tmp_path: Path, session_servers: tuple[DatabaseServer, BrokerServer], template: str
) -> Iterator[Cluster]:
    with (
        fresh_database(session_servers[0], template) as name,
        open_cluster(tmp_path / "world", *session_servers, name) as opened,
    ):
        yield opened


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Open a cluster on separate servers, which may be killed and reconfigured."""
    with (
        tempfile.TemporaryDirectory(prefix="cw-") as short,
        own_servers(Path(short)) as (database, broker),
        fresh_database(database, migrated_template(database)) as name,
        open_cluster(tmp_path / "world", database, broker, name) as opened,
    ):
        yield opened


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[Row], None]:
    """Return the function that adds a row to the terminal summary and to the file."""

    def keep(row: Row) -> None:
        request.node.user_properties.append((_ROW, json.dumps(asdict(row))))
        rows.append(row)

    return keep


@pytest.fixture
def experiment(
    request: pytest.FixtureRequest, work: UndisturbedWork, report: Callable[[Row], None]
) -> Experiment:
    """Return the experiment over the cluster that the test requests."""
    name = "own_cluster" if "own_cluster" in request.fixturenames else "cluster"
    chosen: Cluster = request.getfixturevalue(name)
    return Experiment(cluster=chosen, report=report, work_seconds=work.seconds)


@pytest.fixture
def begin(
    work: UndisturbedWork, report: Callable[[Row], None]
) -> Callable[[], AbstractContextManager[Experiment]]:
    """Return a function that opens an experiment over a new cluster, for tests with several."""

    @contextmanager
    def begun() -> Iterator[Experiment]:
        with work.open_another() as cluster:
            yield Experiment(cluster=cluster, report=report, work_seconds=work.seconds)

    return begun
