"""Connections to PostgreSQL, and the translation of its errors."""

from __future__ import annotations

import errno
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from enum import StrEnum
from typing import TypeAlias, TypeVar

import psycopg
import tenacity
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    DisconnectionError,
    InterfaceError,
    InternalError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from chordwise.domain.number_formats import counted
from chordwise.errors import ConfigurationError, DatabaseRefusedError, ServiceUnavailableError

_DRIVER = "postgresql+psycopg"
STATEMENT_SECONDS = 60.0
VALUE_SETTINGS = {
    "datestyle": "ISO,MDY",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "client_encoding": "UTF8",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "search_path": "public",
    "row_security": "on",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "lc_time": "C",
}
"""The settings that change what a session reads; a role or a database may have others."""
_POOL_SECONDS = 30.0
_QUIET_SECONDS = 2.0
# Servers end unused sessions of Chordwise after thirty seconds.
_ADMISSION_SECONDS = 45.0
# Before a session begins, libpq reports the message of the server without its SQLSTATE. A server
# with messages in another language counts as unavailable; the log contains its message.
_REFUSAL = re.compile(
    r"authentication failed|no pg_hba\.conf entry|pg_hba\.conf rejects|no password supplied"
    r"|(?:role|database|user) \".*\" does not exist|no such (?:user|database)"
    r"|is not permitted to log in|permission denied for database|not currently accepting"
)
_CROWDED = re.compile(
    r"too many clients already|too many connections for|remaining connection slots are reserved"
)
_INSUFFICIENT_PRIVILEGE = "42501"
_READ_ONLY = "25006"
_IDLE_IN_TRANSACTION = "25P03"
_PAUSED_HINT = "The machine was suspended or overloaded; the work is repeated."
_HINTS = {
    _INSUFFICIENT_PRIVILEGE: "The role in database_url (CHORDWISE_DATABASE_URL) has to own the "
    "tables and the schema public for migrations, and to read and write the tables otherwise.",
    _READ_ONLY: "Set database_url (CHORDWISE_DATABASE_URL) to a server that accepts writes.",
}
_ACCESS_HINT = (
    "Check user, password and database in database_url (CHORDWISE_DATABASE_URL), "
    "and the server's pg_hba.conf."
)
# A connection needs a file descriptor; opening the socket fails with these codes if none is left.
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)
# The class of errors such as a value that is too large for its index: repeating does not help.
_LIMIT_EXCEEDED = "54"
_AWAY = (OperationalError, InterfaceError, InternalError, PoolTimeoutError)
Returned = TypeVar("Returned")
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

    Statements are limited to `statement_seconds`, and waits for a lock to half of that. A
    connection whose server is silent for longer is closed, so that no thread is blocked without
    limit. The server closes unused connections; a connection that was idle for a while is tested
    before it is used, so that work that is not retried does not fail. With `keeps_plans`, a
    prepared statement is planned once, regardless of its parameters: no index may depend on their
    values.

    Raises:
        ConfigurationError: The URL is not a PostgreSQL URL.
    """
    try:
        address = make_url(url.get_secret_value())
    except ArgumentError as error:
        raise ConfigurationError("database_url is not a URL.", "Use postgresql://….") from error
    if address.get_backend_name() not in {"postgresql", "postgres"}:
        raise ConfigurationError(
            f"database_url starts with “{address.drivername}”.", "Chordwise needs PostgreSQL."
        )
    engine = create_engine(
        address.set(drivername=_DRIVER),
        pool_size=pool_size,
        max_overflow=5,
        pool_use_lifo=True,  # so that surplus connections stay idle until the server ends them
        pool_timeout=min(_POOL_SECONDS, statement_seconds),
        hide_parameters=True,
        connect_args=parameters(statement_seconds, name, keeps_plans=keeps_plans),
    )
    bound(engine, statement_seconds)
    ping_after_pauses(engine)
    return engine


def ping_after_pauses(engine: Engine) -> None:
    """Test connections that were idle for a while before they are used.

    The pool replaces lost connections.
    """

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


class Database:
    """A PostgreSQL database: opens transactions, and translates errors to those of Chordwise.

    Thread-safe. Rows remain readable after their transaction. Every method that opens a transaction
    raises `DatabaseRefusedError` or `ServiceUnavailableError` (see `translate_errors`).
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        # A query returns its rows as they are now, whatever the session read before.
        self._sessions = sessionmaker(
            engine, expire_on_commit=False, execution_options={"populate_existing": True}
        )

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a session for the block; its changes are rolled back."""
        with translate_errors(), self._sessions() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open a transaction for the block, and commit it at the end of the block."""
        with translate_errors(), self._sessions.begin() as session:
            yield session

    def commit(self, change: Callable[[Session], Returned]) -> Returned:
        """Run a change in a separate transaction, and return its return value."""
        with self.write() as session:
            return change(session)

    def attempts(self, within: timedelta) -> Iterator[AbstractContextManager[Session]]:
        """Yield transactions until one is committed, retrying during an outage of the database.

        The block must be repeatable, since the reply to a commit can be lost:

            for attempt in database.attempts(within):
                with attempt as session:
                    ...

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
    try:
        yield
    except (DBAPIError, PoolTimeoutError) as error:
        if _is_refusal(error):
            hint = _HINTS.get(_code(error), _ACCESS_HINT)
            raise DatabaseRefusedError(f"PostgreSQL refuses: {_reason(error)}", hint) from error
        if not isinstance(error, _AWAY) or _code(error).startswith(_LIMIT_EXCEEDED):
            raise
        if _code(error) == _IDLE_IN_TRANSACTION:
            what = f"PostgreSQL ended a transaction because this process paused: {_reason(error)}"
            raise ServiceUnavailableError(what, _PAUSED_HINT) from error
        raise ServiceUnavailableError(
            f"PostgreSQL cannot be reached: {_reason(error)}", "Run `chordwise doctor`."
        ) from error
    except OSError as error:
        if error.errno not in _NO_DESCRIPTOR:
            raise
        raise ServiceUnavailableError(
            f"PostgreSQL cannot be reached: {error.strerror}.",
            "Let this process open more files (ulimit -n, LimitNOFILE).",
        ) from error


def admitted(ask: Callable[[], None]) -> None:
    """Run the first query of a process, and retry for a while if no connection is free.

    Raises:
        DatabaseRefusedError: PostgreSQL refuses the connection or a required operation.
        ServiceUnavailableError: PostgreSQL is unreachable, or remains out of connections.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_crowded),
        wait=tenacity.wait_random(0.2, 1),
        stop=tenacity.stop_after_delay(_ADMISSION_SECONDS),
        reraise=True,
    )
    for attempt in retrying:
        with attempt, translate_errors():
            ask()


def _is_crowded(error: BaseException) -> bool:
    return isinstance(error, ServiceUnavailableError) and bool(_CROWDED.search(error.what))


def _is_refusal(error: SQLAlchemyError) -> bool:
    code = _code(error)
    if code:
        return code in _HINTS
    return isinstance(error, OperationalError) and bool(_REFUSAL.search(str(error.orig)))


def _code(error: SQLAlchemyError) -> str:
    """Return the SQLSTATE of an error; empty if there was no session or no server."""
    code = getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else None
    return str(code or "")


def _reason(error: SQLAlchemyError) -> str:
    """Return the first line of the server message; psycopg never includes the password."""
    original = error.orig if isinstance(error, DBAPIError) else error
    lines = str(original).strip().splitlines()
    return lines[0][:300] if lines else "no reason"


class Lock(StrEnum):
    """A lock, named after its view; it is held until the transaction ends."""

    LEADER = "leader_lock"
    LAST_ATTEMPT = "last_attempt_lock"
    READER_LOGIN = "reader_login_lock"

    def statement(self, *, wait: bool = True) -> str:
        """Return the statement that takes the lock; without `wait` it fails if the lock is held."""
        return f"LOCK TABLE {self} IN SHARE UPDATE EXCLUSIVE MODE{'' if wait else ' NOWAIT'}"


_POLL_SECONDS = 0.1
_IDLE_MILLISECONDS = 30_000
# The server cancels slow statements; its error message should arrive before the client gives up.
_ON_TOP = 1.25
_ON_TOP_SECONDS = 1.0
_CONNECT_SECONDS = 10
_CANCEL_SECONDS = 5.0
_MIN_CONNECT_SECONDS = 2  # the minimum of libpq


class BoundedConnection(psycopg.Connection[TupleRow]):
    """A connection that closes itself if a reply takes longer than `answer_seconds`.

    `None` means no limit. With `cancels`, it first asks the server to cancel the statement, and
    closes itself if the server does not: the running code may have disabled the statement timeout
    of the server. It does the same as soon as `is_unwanted` returns true, which is called while a
    statement runs. It also closes itself if an interrupt would leave a statement running.
    """

    answer_seconds: float | None = None
    cancels: bool = False
    is_unwanted: Callable[[], bool] | None = None

    def wait(
        self, gen: PQGen[Returned], interval: float = _POLL_SECONDS, timeout: float | None = None
    ) -> Returned:
        """Wait for one reply of the server.

        Raises:
            psycopg.OperationalError: No reply arrived in time; the connection is closed.
        """
        if self.answer_seconds is None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(self._bounded(gen, self.answer_seconds), interval, timeout)
        except BaseException:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self._request_cancellation()
                self.close()
            raise

    def _bounded(self, gen: PQGen[Returned], seconds: float) -> PQGen[Returned]:
        deadline = time.monotonic() + seconds
        may_cancel = self.cancels
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                is_unwanted = may_cancel and self.is_unwanted is not None and self.is_unwanted()
                if is_unwanted or time.monotonic() > deadline:
                    if not may_cancel:
                        self.close()
                        raise psycopg.OperationalError(f"the server did not reply in {seconds:g} s")
                    may_cancel, deadline = False, time.monotonic() + _CANCEL_SECONDS
                    self._request_cancellation()
                wanted = gen.send(ready)
        except StopIteration as end:
            returned: Returned = end.value
            return returned

    def _request_cancellation(self) -> None:
        with suppress(psycopg.Error):
            self.cancel_safe(timeout=_CANCEL_SECONDS)


def bound(engine: Engine, statement_seconds: float) -> None:
    """Limit each connection of the engine to slightly more than the limit of the server."""
    seconds = statement_seconds * _ON_TOP + _ON_TOP_SECONDS

    def do_connect(
        _dialect: object, _record: object, arguments: list[str], named: dict[str, object]
    ) -> BoundedConnection:
        # What SQLAlchemy passes is of no type that psycopg knows.
        connection = BoundedConnection.connect(*arguments, **named)  # type: ignore[arg-type]
        connection.answer_seconds = seconds
        return connection

    event.listen(engine, "do_connect", do_connect)


def parameters(
    statement_seconds: float, name: str, *, keeps_plans: bool = False
) -> dict[str, str | int]:
    """Return the connection parameters, including the timeouts of the client and the server.

    The server ends slow statements, waits for locks, idle transactions and unused sessions; a pool
    opens another session when it needs one. Both sides detect a broken network within half of
    `statement_seconds`.
    """
    milliseconds = round(statement_seconds * 1_000)
    idle, interval = max(1, round(statement_seconds / 4)), max(1, round(statement_seconds / 12))
    silence = max(1_000, milliseconds // 4)
    of_server = {
        **VALUE_SETTINGS,
        "statement_timeout": milliseconds,
        "lock_timeout": milliseconds // 2,
        "idle_in_transaction_session_timeout": milliseconds,
        "idle_session_timeout": min(_IDLE_MILLISECONDS, 2 * milliseconds),
        "tcp_keepalives_idle": idle,
        "tcp_keepalives_interval": interval,
        "tcp_keepalives_count": 3,
        "tcp_user_timeout": silence,
        "plan_cache_mode": "force_generic_plan" if keeps_plans else "auto",
    }
    return {
        "application_name": name,
        "connect_timeout": max(
            _MIN_CONNECT_SECONDS, min(_CONNECT_SECONDS, round(statement_seconds))
        ),
        "keepalives_idle": idle,
        "keepalives_interval": interval,
        "keepalives_count": 3,
        "tcp_user_timeout": silence,
        "options": as_options(of_server),
    }


def as_options(settings: Mapping[str, str | int]) -> str:
    """Return libpq's `options` with settings, which outrank those of the role and the database."""
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


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
    WHERE datname = current_database() AND application_name ~ '^chordwise (worker|scheduler)'
    GROUP BY 1
    """
)


def connected(database: Session | Connection) -> dict[str, str]:
    """Return the kinds of connected processes by name, each with its sessions in words."""
    return {
        name: f"{counted(sessions, 'session')} of a {name}, the last statement {seconds:.0f} s ago"
        for name, sessions, seconds in database.execute(_CONNECTED)
    }
