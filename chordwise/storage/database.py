"""Connections to PostgreSQL, and the translation of its errors."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import TypeAlias

import psycopg
import tenacity
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from chordwise.domain.number_formats import counted
from chordwise.errors import InternalError, ServiceUnavailableError
from chordwise.storage import revisions
from chordwise.storage.postgresql import (
    STATEMENT_SECONDS,
    BoundedConnection,
    Returned,
    address_of,
    answer_seconds,
    as_chordwise_error,
    parameters,
    translating,
    unreachable,
)

_POOL_SECONDS = 30.0
_QUIET_SECONDS = 2.0
Store: TypeAlias = Session | Connection
"""The target of statements: a session, or the plain connection of the hot path."""


def open_engine(
    url: SecretStr,
    *,
    pool_size: int = 5,
    name: str = "chordwise",
    statement_seconds: float = STATEMENT_SECONDS,
    keeps_plans: bool = False,
) -> Engine:
    """Return an engine for a `postgresql://` URL; no connection is opened yet.

    Statements are limited to `statement_seconds`, and waits for a lock to half of that; a
    connection whose server is silent for longer is closed. With `keeps_plans`, a prepared statement
    is planned once: no index may depend on the values of its parameters.

    Raises:
        ConfigurationError: The URL is not a PostgreSQL URL.
    """
    limits = parameters(statement_seconds, name, keeps_plans=keeps_plans)
    engine = create_engine(
        "postgresql+psycopg://",
        pool_size=pool_size,
        max_overflow=5,
        pool_use_lifo=True,  # so that surplus connections stay idle until the server ends them
        pool_timeout=min(_POOL_SECONDS, statement_seconds),
        hide_parameters=True,
        connect_args={**address_of(url), **limits},
    )
    _bound(engine, statement_seconds)
    _ping_after_pauses(engine)
    return engine


def _ping_after_pauses(engine: Engine) -> None:
    """Test connections that were idle for a while; the pool replaces lost ones."""

    def record_use(_connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        record.info["used_at"] = time.monotonic()

    def test(connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
        if time.monotonic() - record.info.get("used_at", math.inf) < _QUIET_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except psycopg.Error as error:
            raise DisconnectionError from error

    event.listen(engine, "checkin", record_use)
    event.listen(engine, "checkout", test)


def driver(store: Store) -> psycopg.Connection:
    """Return the connection of the driver that a session or connection works on."""
    connection = store.connection() if isinstance(store, Session) else store
    raw = connection.connection.driver_connection
    if not isinstance(raw, psycopg.Connection):
        raise InternalError("The session is not one of psycopg.")
    return raw


def require_compatible(engine: Engine) -> None:
    """Call `revisions.require_suitable` on a separate connection.

    Raises:
        ConfigurationError: The schema is incompatible.
    """
    with translate_errors(), engine.connect() as connection:
        revisions.require_suitable(driver(connection))


class Database:
    """A PostgreSQL database: opens transactions, and translates errors to those of Chordwise.

    Thread-safe. Rows remain readable after their transaction. Every method that opens a transaction
    raises `DatabaseRefusedError` or `ServiceUnavailableError` (see `translate_errors`). `restrict`
    limits what the sessions for reading see.
    """

    def __init__(self, engine: Engine, restrict: Callable[[Session], None] | None = None) -> None:
        self.engine = engine
        self._restrict = restrict
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        # A query returns its rows as they are now, whatever the session read before.
        self._sessions = sessionmaker(
            engine, expire_on_commit=False, execution_options={"populate_existing": True}
        )

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a session for the block; its changes are rolled back."""
        with translate_errors(), self._sessions() as session:
            if self._restrict is not None:
                self._restrict(session)
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open a transaction for the block, and commit it at the end of the block."""
        with translate_errors(), self._sessions.begin() as session:
            yield session

    def commit(
        self, change: Callable[[Session], Returned], within: timedelta | None = None
    ) -> Returned:
        """Run a change in a separate transaction, and return its return value.

        With `within`, a change that is repeatable is retried as in `attempts`.
        """
        if within is None:
            with self.write() as session:
                return change(session)
        for attempt in self.attempts(within):
            with attempt as session:
                returned = change(session)
        return returned

    def attempts(self, within: timedelta) -> Iterator[AbstractContextManager[Session]]:
        """Yield transactions for blocks until one is committed, during an outage of the database.

        The block must be repeatable, since the reply to a commit can be lost.

        Raises:
            ServiceUnavailableError: The database was unavailable for longer than `within`.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(ServiceUnavailableError),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
            stop=tenacity.stop_after_delay(within),
            reraise=True,
        )
        for attempt in retrying:
            yield self._attempt(attempt)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Open a transaction on a plain connection, for prepared statements."""
        with translate_errors(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def autocommit(self) -> Iterator[Connection]:
        """Open a plain connection on which each statement is a separate transaction."""
        with translate_errors(), self._autocommit.connect() as connection:
            yield connection

    def close(self) -> None:
        """Close the connections that are not in use."""
        self.engine.dispose()

    @contextmanager
    def _attempt(self, attempt: tenacity.AttemptManager) -> Iterator[Session]:
        with attempt, self.write() as session:
            yield session


@contextmanager
def translate_errors() -> Iterator[None]:
    """Translate lost and refused connections, and missing privileges.

    Raises:
        DatabaseRefusedError: PostgreSQL refuses the connection or a required operation.
        ServiceUnavailableError: PostgreSQL is unreachable, restarting, or out of connections.
    """
    with translating():
        try:
            yield
        except PoolTimeoutError as error:
            raise unreachable(error) from error
        except DBAPIError as error:
            translated = as_chordwise_error(error.orig or error)
            if translated is None:
                raise
            raise translated from error


def _bound(engine: Engine, statement_seconds: float) -> None:
    """Limit each connection of the engine to slightly more than the limit of the server."""
    seconds = answer_seconds(statement_seconds)

    def do_connect(
        _dialect: object, _record: object, arguments: list[str], parameters: dict[str, object]
    ) -> BoundedConnection:
        # What SQLAlchemy passes is of no type that psycopg knows.
        connection = BoundedConnection.connect(*arguments, **parameters)  # type: ignore[arg-type]
        connection.answer_seconds = seconds
        return connection

    event.listen(engine, "do_connect", do_connect)


@contextmanager
def without_statement_timeout(connection: Connection) -> Iterator[None]:
    """Remove the time limit of statements for the block."""
    raw: object = connection.connection.dbapi_connection
    before = raw.answer_seconds if isinstance(raw, BoundedConnection) else None
    connection.execute(text("SET statement_timeout = 0"))
    connection.commit()
    _set_bound(raw, None)
    try:
        yield
    finally:
        _set_bound(raw, before)
        connection.execute(text("RESET statement_timeout"))
        connection.commit()


def _set_bound(raw: object, seconds: float | None) -> None:
    if isinstance(raw, BoundedConnection):
        raw.answer_seconds = seconds


# The name of each session begins with the name of its process; see `open_engine`.
_CONNECTED = text(
    """
    SELECT split_part(application_name, ' ', 2) AS name, count(*) AS sessions,
        min(extract(epoch FROM clock_timestamp() - coalesce(state_change, backend_start)))
            AS idle_seconds
    FROM pg_stat_activity
    WHERE datname = current_database() AND application_name ~ '^chordwise (worker|scheduler|reader)'
    GROUP BY 1
    """
)


def connected(database: Session | Connection) -> dict[str, str]:
    """Return the kinds of connected processes by name, each with its sessions in words."""
    return {
        name: f"{counted(sessions, 'session')} of a {name}, the last statement {seconds:.0f} s ago"
        for name, sessions, seconds in database.execute(_CONNECTED)
    }
