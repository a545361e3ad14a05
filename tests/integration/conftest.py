"""Fixtures shared by the tests of the pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr
from sqlalchemy import Engine

from chordwise import remote
from chordwise.embedded.home import home_at
from chordwise.embedded.postgres import EmbeddedPostgres
from chordwise.llm.limits.shared_limits import open_client
from chordwise.readers.reader import Reader
from chordwise.settings import Profile, ReaderSettings, Settings
from chordwise.storage.database import Database, open_engine
from tests.fakes.commands import point_to
from tests.fakes.inbox_watch import WatchedInbox, watched
from tests.fakes.learning import a_learner
from tests.fakes.pipeline import Pipeline, close_all, with_settings
from tests.fakes.stacks import a_home, copy_data
from tests.peers.batch_provider import BatchProvider
from tests.peers.file_servers import (
    Bucket,
    FileServer,
    MemoryBucket,
    SftpFolder,
    new_connections,
    s3_endpoint,
    sftp_port,
)


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    yield
    close_all()


@pytest.fixture
def engine(database_url: SecretStr) -> Iterator[Engine]:
    engine = open_engine(database_url, pool_size=8)
    yield engine
    engine.dispose()


@pytest.fixture
def database(engine: Engine) -> Database:
    return Database(engine)


@pytest.fixture
def pipeline(settings: Settings) -> Pipeline:
    """Return a pipeline whose model returns the answer that each document contains."""
    return a_learner(settings)


@pytest.fixture
def small_chunks(settings: Settings) -> Settings:
    return with_settings(settings, "pipeline", chunk_tokens=800)


@pytest.fixture
def addressed(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Make commands use the servers of the test, in a separate folder."""
    monkeypatch.chdir(tmp_path)
    point_to(settings, monkeypatch)


@pytest.fixture(scope="session")
def initialized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("initialized")
    (folder / "run").mkdir(mode=0o700)
    postgres = EmbeddedPostgres(folder / "postgres", folder / "run")
    postgres.start()
    postgres.stop()
    return folder


@pytest.fixture
def home(tmp_path: Path, initialized: Path) -> Iterator[Path]:
    """Return a home with an initialized PostgreSQL; its stack is stopped after the test."""
    with a_home(tmp_path) as lent:
        home_at(lent).prepare()
        copy_data(initialized, lent)
        yield lent


@pytest.fixture
def valkey(broker_url: SecretStr) -> Iterator[redis.Redis]:
    with open_client(broker_url) as client:
        yield client


@pytest.fixture
def provider() -> BatchProvider:
    return BatchProvider()


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    """Return a reader shared by all tests, so that each file is also read after a harmful one."""
    with Reader(ReaderSettings()) as opened:
        yield opened


@pytest.fixture
def inbox(tmp_path: Path, settings: Settings) -> Iterator[WatchedInbox]:
    profiles = {
        "letters": Profile(instructions="who writes to whom"),
        "bills": Profile(folder=Path("letters/bills"), budget_usd=None),
    }
    watched_inbox = watched(tmp_path, settings, profiles)
    yield watched_inbox
    watched_inbox.close()


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    with s3_endpoint() as address:
        yield address


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """Return a bucket that the environment gives access to."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with new_connections():
        yield Bucket(endpoint)


@pytest.fixture
def sftp_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SftpFolder]:
    """Return a folder on an SFTP server that the user of the test knows."""
    home, folder = tmp_path / "user", tmp_path / "server"
    home.mkdir()
    folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    with new_connections(), sftp_port(home) as port:
        yield SftpFolder(folder, port)


@pytest.fixture
def memory_bucket(monkeypatch: pytest.MonkeyPatch) -> MemoryBucket:
    monkeypatch.setitem(remote.CREDENTIALS, "memory", "nothing")
    return MemoryBucket()


@pytest.fixture(params=["bucket", "memory_bucket", "sftp_server"])
def file_server(request: pytest.FixtureRequest) -> FileServer:
    """Return a bucket of S3, one of fsspec, and a folder on an SFTP server, one after another."""
    server: FileServer = request.getfixturevalue(request.param)
    return server
