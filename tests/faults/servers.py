"""The database and the broker of an experiment, stopped and restarted as by an operator."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from urllib.parse import urlsplit

import psycopg
import redis
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import make_url

from chordwise.embedded import processes
from chordwise.embedded.postgres import SOCKET_NAME as POSTGRES_SOCKET
from chordwise.embedded.postgres import EmbeddedPostgres
from chordwise.embedded.processes import ProcessIdentity
from chordwise.embedded.valkey import SOCKET_NAME as VALKEY_SOCKET
from chordwise.embedded.valkey import EmbeddedValkey
from chordwise.storage import migration
from chordwise.storage.database import open_engine
from tests.faults.proxy import Target

_DEATH_SECONDS = 10.0
_TEMPLATE = "template_of_faults"
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseServer:
    """PostgreSQL over `data`; it may be killed and reconfigured if `is_ours_alone`."""

    postgres: EmbeddedPostgres
    data: Path
    sockets: Path
    is_ours_alone: bool

    @property
    def target(self) -> Target:
        return Target(path=self.sockets / POSTGRES_SOCKET)

    @property
    def password(self) -> str:
        return make_url(self.postgres.url()).password or ""

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        """Return a connection that bypasses the proxy, in autocommit mode."""
        return psycopg.connect(self.postgres.url(database), autocommit=True, connect_timeout=5)

    def kill(self) -> None:
        """Kill the server with SIGKILL; its children exit."""
        self._require_ours()
        _kill(self.postgres.identity())

    def stop(self) -> None:
        self._require_ours()
        self.postgres.stop()

    def start(self) -> None:
        """Start the server on the same data."""
        self.postgres.start()

    def configure(self, name: str, value: str) -> None:
        """Set a parameter by `ALTER SYSTEM`; some require a restart."""
        self._require_ours()
        statement = sql.SQL("ALTER SYSTEM SET {} = {}")
        with self.connect() as connection:
            connection.execute(statement.format(sql.Identifier(name), sql.Literal(value)))
            connection.execute("SELECT pg_reload_conf()")

    def _require_ours(self) -> None:
        assert self.is_ours_alone, "take the fixture own_cluster: others use this server"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerServer:
    """Valkey over `data`; it may be killed and reconfigured if `is_ours_alone`."""

    valkey: EmbeddedValkey
    data: Path
    sockets: Path
    is_ours_alone: bool

    @property
    def target(self) -> Target:
        return Target(path=self.sockets / VALKEY_SOCKET)

    @property
    def password(self) -> str:
        return urlsplit(self.valkey.url()).password or ""

    @contextmanager
    def client(self) -> Iterator[redis.Redis]:
        """Open a client that bypasses the proxy."""
        with redis.Redis.from_url(self.valkey.url(), socket_timeout=10) as client:
            yield client

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()

    def kill(self) -> None:
        self._require_ours()
        _kill(self.valkey.identity())

    def stop(self) -> None:
        self._require_ours()
        self.valkey.stop()

    def start(self, *, empty: bool = False) -> None:
        """Start the server; if `empty`, without its data."""
        if empty:
            shutil.rmtree(self.data / "appendonlydir", ignore_errors=True)
        self.valkey.start()

    def configure(self, name: str, value: str) -> None:
        """Set a parameter by `CONFIG SET`."""
        self._require_ours()
        with self.client() as client:
            client.config_set(name, value)

    def memory_used(self) -> int:
        """Return the used bytes, to set a `maxmemory` that is reached soon."""
        with self.client() as client:
            return int(client.info("memory")["used_memory"])

    def _require_ours(self) -> None:
        assert self.is_ours_alone, "take the fixture own_cluster: others use this server"


@contextmanager
def own_servers(folder: Path) -> Iterator[tuple[DatabaseServer, BrokerServer]]:
    """Start separate servers in `folder`, whose path must be short, for one experiment."""
    sockets = folder / "run"
    sockets.mkdir(mode=0o700)
    postgres = EmbeddedPostgres(folder / "postgres", sockets)
    valkey = EmbeddedValkey(folder / "valkey", sockets)
    postgres.start()
    valkey.start()
    try:
        yield (
            DatabaseServer(
                postgres=postgres, data=folder / "postgres", sockets=sockets, is_ours_alone=True
            ),
            BrokerServer(
                valkey=valkey, data=folder / "valkey", sockets=sockets, is_ours_alone=True
            ),
        )
    finally:
        valkey.stop()
        postgres.stop()


@contextmanager
def fresh_database(server: DatabaseServer, template: str) -> Iterator[str]:
    """Copy a migrated template to a database with a new name, for the block."""
    name = f"faults_{next(_numbers)}"
    copy = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
    with server.connect() as connection:
        connection.execute(copy.format(sql.Identifier(name), sql.Identifier(template)))
    yield name
    with server.connect() as connection:
        drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        connection.execute(drop.format(sql.Identifier(name)))


def migrated_template(server: DatabaseServer) -> str:
    """Create a migrated database on a separate server, and return its name."""
    with server.connect() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_TEMPLATE)))
    engine = open_engine(SecretStr(server.postgres.url(_TEMPLATE)))
    migration.migrate(engine)
    engine.dispose()
    return _TEMPLATE


def address_through(port: int, server: DatabaseServer, database: str) -> str:
    """Return the URL of the database through the port of a proxy."""
    url = make_url(server.postgres.url(database))
    query: Mapping[str, str] = {"sslmode": "disable", "gssencmode": "disable"}
    through = url.set(drivername="postgresql", host="127.0.0.1", port=port, query=query)
    return through.render_as_string(hide_password=False)


def _kill(identity: ProcessIdentity | None) -> None:
    assert identity is not None, "the server runs"
    os.kill(identity.pid, Signals.SIGKILL)
    gone = processes.wait_until(lambda: not processes.is_alive(identity), _DEATH_SECONDS)
    assert gone, "SIGKILL ends a server"
