"""Tests of silent connections: both sides notice them and give up in time."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import DBAPIError

from chordwise.errors import ServiceUnavailableError
from chordwise.storage import database, postgresql
from chordwise.storage.database import (
    open_engine,
    translate_errors,
    without_statement_timeout,
)
from chordwise.storage.postgresql import BoundedConnection
from tests.conftest import Servers
from tests.faults.proxy import Proxy, Target, proxy_to
from tests.faults.servers import DatabaseServer, address_through

SECONDS = 1.0
BOUND = SECONDS * 1.25 + 1


@pytest.fixture
def proxy(servers: Servers) -> Iterator[Proxy]:
    sockets = servers.postgres._data.parent / "run"
    with proxy_to(Target(path=sockets / ".s.PGSQL.5432")) as opened:
        yield opened


@pytest.fixture
def engine(servers: Servers, proxy: Proxy) -> Iterator[Engine]:
    """Return an engine that connects through the proxy and limits statements to a second."""
    data = servers.postgres._data
    server = DatabaseServer(
        postgres=servers.postgres, data=data, sockets=data.parent / "run", is_ours_alone=False
    )
    address = address_through(proxy.port, server, "postgres")
    opened = open_engine(SecretStr(address), pool_size=1, statement_seconds=SECONDS)
    yield opened
    opened.dispose()


def ask(engine: Engine, statement: str = "SELECT 1") -> object:
    with translate_errors(), engine.begin() as connection:
        return connection.scalar(text(statement))


def ask_in_silence(engine: Engine, proxy: Proxy) -> None:
    with translate_errors(), engine.begin() as connection:
        connection.execute(text("SELECT 1"))
        proxy.swallow()
        connection.execute(text("SELECT 2"))


def test_a_silent_connection_is_given_up(
    engine: Engine, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that acknowledges and never answers blocks a thread only up to the timeout."""
    monkeypatch.setattr(database, "_QUIET_SECONDS", 0.0)  # as after a pause
    ask(engine)
    begun = time.monotonic()

    proxy.swallow()
    with (
        pytest.raises(ServiceUnavailableError, match="cannot be reached"),
        translate_errors(),
        engine.connect(),
    ):
        pass
    seconds = time.monotonic() - begun
    proxy.pass_on()

    assert seconds < 2 * BOUND + 3
    assert ask(engine) == 1


def test_a_connection_silent_in_a_transaction_is_replaced(engine: Engine, proxy: Proxy) -> None:
    begun = time.monotonic()

    with pytest.raises(ServiceUnavailableError, match="did not reply"):
        ask_in_silence(engine, proxy)
    seconds = time.monotonic() - begun
    proxy.pass_on()

    assert seconds < BOUND + 1
    assert ask(engine) == 1


def test_a_statement_that_takes_too_long_is_ended_by_the_server(engine: Engine) -> None:
    before = ask(engine, "SELECT pg_backend_pid()")

    with pytest.raises(ServiceUnavailableError, match="statement timeout"):
        ask(engine, "SELECT pg_sleep(5)")

    assert ask(engine, "SELECT pg_backend_pid()") == before


def test_a_value_that_exceeds_a_limit_is_no_outage(engine: Engine) -> None:
    """An outage would be waited for, and would delay all rows of the same transaction."""
    words = "SELECT to_tsvector(string_agg(md5(n::text), ' ')) FROM generate_series(1, 60000) AS n"

    with pytest.raises(DBAPIError, match="too long for tsvector"):
        ask(engine, words)

    assert ask(engine) == 1


def test_a_migration_has_no_statement_timeout(engine: Engine) -> None:
    with engine.connect() as connection:
        with without_statement_timeout(connection):
            slept = connection.execute(select(func.pg_sleep(BOUND + 0.5))).all()
        bounded = connection.scalar(text("SELECT current_setting('statement_timeout')"))
        raw: object = connection.connection.dbapi_connection

    assert len(slept) == 1
    assert bounded == "1s"
    assert isinstance(raw, BoundedConnection)
    assert raw.answer_seconds == BOUND


def test_an_interrupt_between_two_polls_cancels_the_statement(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection is closed: it would be busy with the statement, and could not roll back."""
    address = servers.postgres.url()
    moments = itertools.count()

    def interrupting() -> float:
        if next(moments) == 1:
            raise KeyboardInterrupt
        return time.monotonic()

    def sleep() -> None:
        with connection:
            connection.execute("SELECT pg_sleep(30)")

    connection = BoundedConnection.connect(address)
    connection.answer_seconds = 20.0
    monkeypatch.setattr(postgresql, "time", SimpleNamespace(monotonic=interrupting))
    with pytest.raises(KeyboardInterrupt):
        sleep()

    assert connection.closed
    assert caplog.records == []
    with psycopg.connect(address) as other:
        running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)'"
        assert other.execute(running).fetchone() == (0,)


def test_sessions_have_timeouts_for_idleness_and_locks(engine: Engine) -> None:
    """The kernel probes idle connections and drops those with unacknowledged data."""
    options = ("idle_session_timeout", "idle_in_transaction_session_timeout", "lock_timeout")

    values = [ask(engine, f"SELECT current_setting('{option}')") for option in options]
    with engine.connect() as connection:
        raw: object = connection.connection.dbapi_connection
        assert isinstance(raw, BoundedConnection)
        with socket.socket(fileno=raw.fileno()) as opened:
            alive = opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            unacknowledged = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            opened.detach()

    assert values == ["2s", "1s", "500ms"]
    assert (alive, idle, unacknowledged) == (1, 1, 1_000)


def test_a_reading_connection_writes_nothing_and_keeps_its_own_limits(servers: Servers) -> None:
    address = f"{servers.postgres.url()}&application_name=mine&connect_timeout=30"
    names = "SELECT current_setting('application_name'), current_setting('statement_timeout')"

    with postgresql.reading(SecretStr(address)) as connection:
        assert connection.execute(names).fetchone() == ("chordwise command", "1min")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("CREATE TABLE written (id integer)")
        connection.rollback()
