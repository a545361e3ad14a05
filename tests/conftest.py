"""Real servers for the tests: PostgreSQL and Valkey per session, and a database per test."""

from __future__ import annotations

import gc
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import redis
import structlog
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.sql.compiler import Compiled
from sqlalchemy.util import LRUCache
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler import (  # type: ignore[import-untyped]
    LoadGroupScheduling,
    Scheduling,
)

from chordwise import embedded
from chordwise.embedded.postgres import EmbeddedPostgres
from chordwise.embedded.valkey import EmbeddedValkey
from chordwise.settings import PipelineSettings, Settings, load
from chordwise.storage import database, group_commit, migration
from chordwise.storage.database import open_engine
from tests.fakes.corpora import CORPORA
from tests.fakes.databases import Databases
from tests.fakes.other_postgres import OtherPostgres
from tests.fakes.pipeline import close_all

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_TEMPLATE = "template_chordwise"
_MOMENT_SECONDS = 0.02
# Fault experiments share a measurement of work without faults; web tests share a browser.
_FOLDERS = {"tests/faults", "tests/web"}
_GROUP = re.compile(r"mark\.xdist_group\(\"(\w+)\"\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """The servers of this session."""

    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        """Return a connection of the owner in autocommit mode."""
        return psycopg.connect(self.postgres.url("postgres"), autocommit=True)


class AnyDialect(PGDialect_psycopg):
    """Equals any other instance, so that all engines share compiled statements."""

    supports_statement_cache = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnyDialect)

    def __hash__(self) -> int:
        return hash(AnyDialect)


@pytest.fixture(autouse=True)
def _no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the terminal width, which pytest-xdist sets for its processes."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session", autouse=True)
def _other_broker(request: pytest.FixtureRequest) -> Iterator[None]:
    """With `--redis`, use that server wherever a test starts the embedded one in its process."""
    with pytest.MonkeyPatch.context() as patch:
        program = request.config.getoption("--redis")
        if program:
            patch.setattr(embedded.valkey, "program", lambda: program)
        yield


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    """Start PostgreSQL and Valkey in a folder with a short path, as sockets require."""
    with tempfile.TemporaryDirectory(prefix="cw-") as name:
        folder = Path(name)
        (folder / "run").mkdir(mode=0o700)
        programs = request.config.getoption("--postgresql")
        places = (folder / "postgres", folder / "run")
        postgres = OtherPostgres(*places, programs) if programs else EmbeddedPostgres(*places)
        valkey = EmbeddedValkey(folder / "valkey", folder / "run")
        with pytest.MonkeyPatch.context() as patch:
            # It protects only against power loss, and each test commits often.
            patch.setitem(embedded.postgres._SETTINGS, "fsync", "off")
            if not programs:  # each test logs in often
                patch.setitem(embedded.postgres._SETTINGS, "scram_iterations", "1")
            postgres.start()
        _hash_password_again(postgres)
        valkey.start()
        yield Servers(postgres=postgres, valkey=valkey)
        valkey.stop()
        postgres.stop()


def _hash_password_again(postgres: EmbeddedPostgres) -> None:
    """Hash the owner's password again with the current number of iterations."""
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        password = sql.Literal(connection.info.password)
        connection.execute(sql.SQL("ALTER ROLE CURRENT_USER PASSWORD {}").format(password))


@pytest.fixture(scope="session")
def template(servers: Servers) -> Iterator[str]:
    """Migrate the database that is copied for every test."""
    with servers.connect() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_TEMPLATE)))
    engine = open_engine(SecretStr(servers.postgres.url(_TEMPLATE)))
    migration.migrate(engine)
    engine.dispose()
    cache: LRUCache[tuple[object, ...], Compiled] = LRUCache(5_000)

    def opened(url: URL, **options: object) -> Engine:
        """Open an engine that shares compiled statements with those of other tests."""
        other: Engine = create_engine(url, **options)
        other.dialect.__class__ = AnyDialect
        other._compiled_cache = cache
        return other

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "create_engine", opened)
        patch.setattr(group_commit, "_sleep", _skip_short_waits())
        yield _TEMPLATE


def _skip_short_waits() -> Callable[[float], None]:
    """Return a sleep function that skips short waits unless other threads may store something."""
    others = {*threading.enumerate()}

    def sleep(seconds: float) -> None:
        started = {*threading.enumerate()} - others
        storing = [thread for thread in started if not isinstance(thread, threading.Timer)]
        if seconds > _MOMENT_SECONDS or any(thread.name != "lease-keeper" for thread in storing):
            time.sleep(seconds)  # noqa: TID251 - the wait of the tested code

    return sleep


@pytest.fixture(scope="session")
def databases(servers: Servers, template: str) -> Iterator[Databases]:
    pool = Databases(servers.postgres, template)
    yield pool
    pool.close()


@pytest.fixture
def filled_by() -> Callable[[Settings], object] | None:
    """Return the function that fills the database of a module once; each test gets a copy."""
    return None


@pytest.fixture
def database_url(
    servers: Servers,
    databases: Databases,
    filled_by: Callable[[Settings], object] | None,
    tmp_path: Path,
) -> Iterator[SecretStr]:
    """Return the address of a migrated database for this test, empty or filled."""

    def fill(name: str) -> None:
        assert filled_by
        database, broker = SecretStr(servers.postgres.url(name)), SecretStr(servers.valkey.url())
        filled_by(_settings(tmp_path, database, broker))
        close_all()

    lending = databases.lend_copy(filled_by, fill) if filled_by else databases.lend()
    with lending as name:
        yield SecretStr(servers.postgres.url(name))


@pytest.fixture
def broker_url(servers: Servers) -> Iterator[SecretStr]:
    with redis.Redis.from_url(servers.valkey.url()) as client:
        client.flushall()
        yield SecretStr(servers.valkey.url())


@pytest.fixture
def settings(tmp_path: Path, database_url: SecretStr, broker_url: SecretStr) -> Settings:
    return _settings(tmp_path, database_url, broker_url)


def _settings(folder: Path, database_url: SecretStr, broker_url: SecretStr) -> Settings:
    """Return settings with chunks so small that the long texts of tests have several."""
    return load(
        home=folder / "home",
        database_url=database_url,
        broker_url=broker_url,
        pipeline=PipelineSettings(chunk_tokens=3_000),
    )


@pytest.fixture(scope="session")
def corpora(request: pytest.FixtureRequest) -> Path:
    """Return the shared corpora; skip the test if they are absent."""
    if not CORPORA.is_dir():
        if request.config.getoption("--require-corpora"):
            pytest.fail(f"The shared corpora are absent: {CORPORA}.")
        pytest.skip("the shared corpora are absent")
    return CORPORA


def _absolute(path: str) -> Path:
    """Return an absolute path, because processes are started in other folders."""
    return Path(path).absolute()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add options for required test data, screenshots, and other servers than the embedded ones."""
    parser.addoption(
        "--require-corpora", action="store_true", help="fail if the shared corpora are absent"
    )
    parser.addoption(
        "--require-browser", action="store_true", help="fail if no Chromium is installed"
    )
    parser.addoption(
        "--screenshots",
        type=_absolute,
        help="a folder for screenshots of all pages of `chordwise web`",
    )
    parser.addoption(
        "--postgresql", type=_absolute, help="the folder of the PostgreSQL programs to use"
    )
    parser.addoption("--litellm", type=_absolute, help="the command of LiteLLM's proxy to use")
    parser.addoption("--redis", type=_absolute, help="the Redis or Valkey server program to use")


def pytest_configure() -> None:
    """Log exceptions without their local variables, whose rendering takes a second each."""
    renderer = structlog.get_config()["processors"][-1]
    renderer.exception_formatter = structlog.dev.plain_traceback


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Exempt what is collected, which stays until the end, from garbage collection."""
    gc.disable()
    collected = yield
    gc.freeze()
    gc.enable()
    return collected


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In parallel runs, mix tests that wait for processes with tests that compute."""
    if not hasattr(config, "workerinput"):
        return
    waiting: list[pytest.Item] = []
    computing: list[pytest.Item] = []
    for item in items:
        # Tests of a group share their set-up if no other test runs between them.
        is_grouped = item.get_closest_marker("xdist_group") is not None
        waits = not is_grouped and "e2e" in item.path.parts
        (waiting if waits else computing).append(item)
    share = len(computing) // (len(waiting) + 1)
    for place, item in enumerate(waiting):
        computing.insert(place * (share + 1), item)
    items[:] = computing


class _ByGroup(LoadGroupScheduling):  # type: ignore[misc]  # an untyped library
    """Keeps the tests of the modules of a group, and of some folders, in one process.

    pytest-xdist 3.8 marks them by a suffix of their names, which pytest 9.2 does not preserve.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        folder = module.rpartition("/")[0]
        if folder in _FOLDERS:
            return folder
        return _group_of(self.config.rootpath / module) or nodeid


@cache
def _group_of(module: Path) -> str:
    group = _GROUP.search(module.read_text("utf-8"))
    return group[1] if group else ""


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """Return the scheduler for `--dist loadgroup`; other values keep their usual meaning."""
    return _ByGroup(config, log) if config.getoption("dist") == "loadgroup" else None


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: compressed bytes contain the time, but names are stable."""
    return argname if isinstance(val, bytes) else None


_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """Start Chromium; skip the test if none is installed."""
    program = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if program is None:
        if request.config.getoption("--require-browser"):
            pytest.fail("No Chromium is installed.")
        pytest.skip("no Chromium is installed")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - few tests need it

    with sync_playwright() as playwright:
        # Only Chordwise's pages are opened, and Chromium's sandbox does not work as root.
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()
