"""Fixtures that run real worker and scheduler processes over the servers of the test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr
from sqlalchemy import Engine, Row, text

from chordwise.storage.database import open_engine
from tests.conftest import Servers
from tests.fakes.configuration import configuration
from tests.fakes.databases import Databases
from tests.fakes.processes import Processes, wait_until
from tests.peers.answering_server import AnsweringServer, serving


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The environment of a test: its processes, their provider, and the database."""

    processes: Processes
    provider: AnsweringServer
    engine: Engine
    folder: Path

    def value(self, query: str) -> object:
        with self.engine.connect() as connection:
            value: object = connection.execute(text(query)).scalar_one()
            return value

    def rows(self, query: str) -> Sequence[Row[tuple[object, ...]]]:
        with self.engine.connect() as connection:
            return connection.execute(text(query)).all()

    def count(self, query: str) -> int:
        number = self.value(query)
        assert isinstance(number, int)
        return number

    def wait_for(self, query: str, seconds: float = 60) -> None:
        wait_until(lambda: self.value(query) is True, seconds, query)

    def submit(self, *arguments: str) -> str:
        done = self.processes.call("submit", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@contextmanager
def set_stage(
    folder: Path,
    settings: str,
    provider: AnsweringServer,
    database_url: SecretStr,
    broker_url: SecretStr,
) -> Iterator[Stage]:
    """Prepare the environment with these settings in TOML; the test starts the processes."""
    config = folder / "chordwise.toml"
    config.write_text(settings, "utf-8")
    environment = {
        "CHORDWISE_HOME": str(folder / "home"),
        "CHORDWISE_CONFIG": str(config),
        "CHORDWISE_DATABASE_URL": database_url.get_secret_value(),
        "CHORDWISE_BROKER_URL": broker_url.get_secret_value(),
    }
    processes = Processes(folder=folder, environment=environment)
    engine = open_engine(database_url)
    yield Stage(processes=processes, provider=provider, engine=engine, folder=folder)
    processes.end_all()
    engine.dispose()


@contextmanager
def stage_at_work(
    folder: Path,
    settings: str,
    provider: AnsweringServer,
    servers: Servers,
    databases: Databases,
) -> Iterator[Stage]:
    """Prepare an environment for all tests of a module, with a running scheduler and worker."""
    with redis.Redis.from_url(servers.valkey.url()) as valkey:
        valkey.flushall()
    broker = SecretStr(servers.valkey.url())
    with databases.lend() as database:
        url = SecretStr(servers.postgres.url(database))
        with set_stage(folder, settings, provider, url, broker) as new_stage:
            new_stage.processes.start("scheduler")
            new_stage.processes.start("worker")
            yield new_stage


@pytest.fixture
def stage(tmp_path: Path, database_url: SecretStr, broker_url: SecretStr) -> Iterator[Stage]:
    with serving(delay_seconds=0.5) as provider:
        settings = configuration(provider.base_url, pipeline="stalled_seconds = 4")
        with set_stage(tmp_path, settings, provider, database_url, broker_url) as stage:
            yield stage
