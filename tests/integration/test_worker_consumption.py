"""Tests that a worker consumes, reports why it does not, or is replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from pydantic import SecretStr
from sqlalchemy import Engine, text

from chordwise.embedded.valkey import SOCKET_NAME, EmbeddedValkey
from chordwise.storage.database import open_engine
from tests.fakes.configuration import configuration
from tests.fakes.processes import ROOT, Processes, wait_until
from tests.faults.proxy import Proxy, Target, proxy_to
from tests.peers.answering_server import AnsweringServer, serving

SENTENCE = "In year {year} the council of the town voted {votes} times about the harbor. "


@dataclass(slots=True, kw_only=True)
class Scene:
    """A scheduler, a worker that is restarted, and a broker behind a proxy."""

    processes: Processes
    provider: AnsweringServer
    engine: Engine
    broker: redis.Redis
    proxy: Proxy
    folder: Path
    exits: list[int] = field(default_factory=list)
    worker: subprocess.Popen[bytes] | None = None

    def start_worker(self) -> subprocess.Popen[bytes]:
        self.worker = self.processes.start("worker")
        return self.worker

    def supervise(self) -> None:
        assert self.worker is not None
        code = self.worker.poll()
        if code is not None:
            self.exits.append(code)
            self.start_worker()

    def value(self, query: str) -> object:
        with self.engine.connect() as connection:
            value: object = connection.execute(text(query)).scalar_one()
            return value

    def count(self, query: str) -> int:
        number = self.value(query)
        assert isinstance(number, int)
        return number

    def wait_for(self, query: str) -> None:
        def is_true() -> bool:
            self.supervise()
            return self.value(query) is True

        wait_until(is_true, 90, query)

    def submit(self, years: int) -> None:
        """Submit a document; thirty years make about two chunks."""
        document = self.folder / "council.txt"
        lines = (SENTENCE.format(year=1500 + year, votes=year % 7) for year in range(years))
        document.write_text("".join(lines), "utf-8")
        done = self.processes.run("submit", str(document))
        assert done.returncode == 0, done.stderr

    def health(self) -> tuple[int, str]:
        environment = {**os.environ, **self.processes.environment, "PYTHONPATH": str(ROOT)}  # noqa: TID251 - the process needs a PATH
        command = [sys.executable, "-P", "-m", "worker", "health"]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=self.folder, check=False
        )
        return done.returncode, done.stdout.strip()

    def wait_for_health(self, sentence: str) -> int:
        wait_until(lambda: self.health()[1] == sentence, 60, sentence)
        return self.health()[0]

    def check_nothing_lost(self) -> None:
        assert self.value("SELECT bool_and(status = 'succeeded') FROM jobs")
        assert self.value("SELECT coverage = 1 FROM results")
        assert self.value("SELECT max(attempts) <= 2 FROM chunks")
        wait_until(lambda: self.broker.hlen("chordwise:unacked") == 0, 30, "unacked messages")


@contextmanager
def open_scene(
    folder: Path, database_url: SecretStr, consumer_timeout_seconds: float
) -> Iterator[Scene]:
    with (
        tempfile.TemporaryDirectory(prefix="cw-") as short,
        own_broker(Path(short)) as valkey,
        proxy_to(Target(path=Path(short) / SOCKET_NAME)) as proxy,
        redis.Redis.from_url(valkey.url()) as broker,
        serving(delay_seconds=0.5) as provider,
    ):
        config = folder / "chordwise.toml"
        setting = f"consumer_timeout_seconds = {consumer_timeout_seconds}"
        written = configuration(provider.base_url, worker=setting)
        config.write_text(written, "utf-8")
        password = urlsplit(valkey.url()).password
        environment = {
            "CHORDWISE_HOME": str(folder / "home"),
            "CHORDWISE_CONFIG": str(config),
            "CHORDWISE_DATABASE_URL": database_url.get_secret_value(),
            "CHORDWISE_BROKER_URL": f"redis://:{password}@127.0.0.1:{proxy.port}/0",
        }
        processes = Processes(folder=folder, environment=environment)
        processes.start("scheduler")
        engine = open_engine(database_url)
        yield Scene(
            processes=processes,
            provider=provider,
            engine=engine,
            broker=broker,
            proxy=proxy,
            folder=folder,
        )
        proxy.pass_on()
        processes.end_all()
        engine.dispose()


@contextmanager
def own_broker(folder: Path) -> Iterator[EmbeddedValkey]:
    valkey = EmbeddedValkey(folder / "valkey", folder)
    valkey.start()
    yield valkey
    valkey.stop()


@pytest.fixture
def scene(tmp_path: Path, database_url: SecretStr) -> Iterator[Scene]:
    with open_scene(tmp_path, database_url, consumer_timeout_seconds=45) as opened:
        yield opened


@pytest.fixture
def impatient_scene(tmp_path: Path, database_url: SecretStr) -> Iterator[Scene]:
    """Return a scene whose worker exits before a dead connection is given up."""
    with open_scene(tmp_path, database_url, consumer_timeout_seconds=3) as opened:
        yield opened


@pytest.mark.nightly
def test_a_worker_that_does_not_consume_is_replaced(impatient_scene: Scene) -> None:
    scene = impatient_scene
    worker = scene.start_worker()
    scene.provider.delay_seconds = 60.0
    scene.submit(years=30)
    scene.wait_for("SELECT count(*) > 0 FROM chunks WHERE status = 'running'")
    scene.wait_for_health("The worker is consuming.")

    scene.proxy.swallow()
    begun_at = time.monotonic()
    wait_until(lambda: time.monotonic() - begun_at > 1.5, 10, "an answer lost on its way")
    scene.proxy.pass_on()
    assert worker.wait(timeout=30) == os.EX_SOFTWARE
    assert "worker.not_consuming" in scene.processes.logs()
    assert scene.count("SELECT count(*) FROM chunks WHERE status = 'running'") == 0
    assert scene.value("SELECT max(attempts) = 0 FROM chunks")
    scene.provider.delay_seconds = 0.1
    scene.wait_for("SELECT status = 'finished' FROM runs")
    scene.check_nothing_lost()
    assert scene.exits == [os.EX_SOFTWARE]


@pytest.mark.nightly
def test_a_worker_that_stops_returns_its_messages(scene: Scene) -> None:
    """Unfinished messages are in the queue again, not invisible for half an hour."""
    worker = scene.start_worker()
    scene.provider.delay_seconds = 60.0
    scene.submit(years=400)
    scene.wait_for("SELECT count(*) >= 4 FROM chunks WHERE status = 'running'")
    held = scene.broker.hlen("chordwise:unacked")

    worker.send_signal(signal.SIGTERM)
    code = worker.wait(timeout=30)

    assert held >= 1
    assert code == 0
    assert scene.broker.hlen("chordwise:unacked") == 0
    scene.provider.delay_seconds = 0.1
    scene.wait_for("SELECT status = 'finished' FROM runs")
    scene.check_nothing_lost()
