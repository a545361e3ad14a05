"""Connections to PostgreSQL by its driver alone, and the translation of its errors.

Commands that only read use these; they load no SQLAlchemy, whose import takes longer than the
query.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import psycopg
import tenacity
from psycopg import errors
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from pydantic import SecretStr

from chordwise.errors import (
    ChordwiseError,
    ConfigurationError,
    DatabaseRefusedError,
    ServiceUnavailableError,
)

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
_PAUSED_HINT = "The machine was suspended or overloaded; the work is repeated."
_HINTS = {
    errors.InsufficientPrivilege.sqlstate: "The role in database_url (CHORDWISE_DATABASE_URL) "
    "has to own the tables and the schema public for migrations, and to read and write the tables "
    "otherwise.",
    errors.ReadOnlySqlTransaction.sqlstate: "Set database_url (CHORDWISE_DATABASE_URL) to a server "
    "that accepts writes.",
}
_ACCESS_HINT = (
    "Check user, password and database in database_url (CHORDWISE_DATABASE_URL), "
    "and the server's pg_hba.conf."
)
# A connection needs a file descriptor; opening the socket fails with these codes if none is left.
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)
# The class of errors such as a value that is too large for its index: repeating does not help.
_LIMIT_EXCEEDED = "54"
_AWAY = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError)
_POLL_SECONDS = 0.1
_IDLE_MILLISECONDS = 30_000
# The server cancels slow statements; its error message should arrive before the client gives up.
_ON_TOP = 1.25
_ON_TOP_SECONDS = 1.0
_CONNECT_SECONDS = 10
_CANCEL_SECONDS = 5.0
_MIN_CONNECT_SECONDS = 2  # the minimum of libpq
Returned = TypeVar("Returned")


class Lock(StrEnum):
    """A lock, named after its view; it is held until the transaction ends."""

    LEADER = "leader_lock"
    LAST_ATTEMPT = "last_attempt_lock"
    READER_LOGIN = "reader_login_lock"

    def statement(self, *, wait: bool = True) -> str:
        """Return the statement that takes the lock; without `wait` it fails if the lock is held."""
        return f"LOCK TABLE {self} IN SHARE UPDATE EXCLUSIVE MODE{'' if wait else ' NOWAIT'}"


@contextmanager
def translating() -> Iterator[None]:
    """Translate lost and refused connections, and missing privileges.

    Raises:
        DatabaseRefusedError: PostgreSQL refuses the connection or a required operation.
        ServiceUnavailableError: PostgreSQL is unreachable, restarting, or out of connections.
    """
    try:
        yield
    except (psycopg.Error, OSError) as error:
        translated = as_chordwise_error(error)
        if translated is None:
            raise
        raise translated from error


def as_chordwise_error(error: BaseException) -> ChordwiseError | None:
    """Return the error of Chordwise for one of the driver; `None` for a defect of a statement."""
    if isinstance(error, OSError):
        if error.errno not in _NO_DESCRIPTOR:
            return None
        return ServiceUnavailableError(
            f"PostgreSQL cannot be reached: {error.strerror}.",
            "Let this process open more files (ulimit -n, LimitNOFILE).",
        )
    code = str(getattr(error, "sqlstate", None) or "")
    if code in _HINTS:
        return DatabaseRefusedError(f"PostgreSQL refuses: {reason(error)}", _HINTS[code])
    if not code and isinstance(error, psycopg.OperationalError) and _REFUSAL.search(str(error)):
        return DatabaseRefusedError(f"PostgreSQL refuses: {reason(error)}", _ACCESS_HINT)
    if not isinstance(error, _AWAY) or code.startswith(_LIMIT_EXCEEDED):
        return None
    if code == errors.IdleInTransactionSessionTimeout.sqlstate:
        what = f"PostgreSQL ended a transaction because this process paused: {reason(error)}"
        return ServiceUnavailableError(what, _PAUSED_HINT)
    return unreachable(error)


def unreachable(error: BaseException) -> ServiceUnavailableError:
    """Return the error of a server that gives no answer."""
    return ServiceUnavailableError(
        f"PostgreSQL cannot be reached: {reason(error)}", "Run `chordwise doctor`."
    )


def reason(error: BaseException) -> str:
    """Return the first line of the server message; psycopg never includes the password."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else "no reason"


def admitted(ask: Callable[[], Returned]) -> Returned:
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
    return retrying(translating()(ask))


def _is_crowded(error: BaseException) -> bool:
    return isinstance(error, ServiceUnavailableError) and bool(_CROWDED.search(error.what))


# As in SQLAlchemy, a password may hold any character but an “@”.
_URL = re.compile(
    r"(?P<driver>[^:/]*)://(?:(?P<user>[^:/@]*)(?::(?P<password>[^@]*))?@)?(?P<rest>.*)"
)


def address_of(url: SecretStr) -> dict[str, str]:
    """Return the parameters of libpq for a `postgresql://` URL.

    Raises:
        ConfigurationError: It is not a PostgreSQL URL.
    """
    parts = _URL.fullmatch(url.get_secret_value())
    if parts is None:
        raise ConfigurationError("database_url is not a URL.", "Use postgresql://….")
    driver = parts["driver"]
    if driver.partition("+")[0] not in {"postgresql", "postgres"}:
        raise ConfigurationError(
            f"database_url starts with “{driver}”.", "Chordwise needs PostgreSQL."
        )
    try:
        place = urlsplit(f"//{parts['rest']}")
        port = str(place.port or "")
    except ValueError as error:
        raise ConfigurationError("database_url is not a URL.", "Use postgresql://….") from error
    address = {
        "host": place.hostname or "",
        "port": port,
        "user": unquote(parts["user"] or ""),
        "password": unquote(parts["password"] or ""),
        "dbname": unquote(place.path.removeprefix("/")),
        **{name: ",".join(values) for name, values in parse_qs(place.query).items()},
    }
    return {name: value for name, value in address.items() if value}


@contextmanager
def reading(url: SecretStr, name: str = "chordwise command") -> Iterator[BoundedConnection]:
    """Open a read-only connection for the block; every statement is its own transaction.

    Raises:
        ConfigurationError: The URL is not a PostgreSQL URL.
        DatabaseRefusedError: PostgreSQL refuses the connection.
        ServiceUnavailableError: It cannot be reached, or remains out of connections.
    """
    settings = {**address_of(url), **parameters(STATEMENT_SECONDS, name)}
    connection = admitted(lambda: BoundedConnection.connect(**settings))  # type: ignore[arg-type]  # of libpq
    with translating(), connection:
        connection.answer_seconds = answer_seconds(STATEMENT_SECONDS)
        connection.read_only = True
        yield connection


def answer_seconds(statement_seconds: float) -> float:
    """Return how long to wait for a reply: slightly more than the limit of the server."""
    return statement_seconds * _ON_TOP + _ON_TOP_SECONDS


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
            awaited = next(gen)
            while True:
                ready = yield awaited
                is_unwanted = may_cancel and self.is_unwanted is not None and self.is_unwanted()
                if is_unwanted or time.monotonic() > deadline:
                    if not may_cancel:
                        self.close()
                        raise psycopg.OperationalError(f"the server did not reply in {seconds:g} s")
                    may_cancel, deadline = False, time.monotonic() + _CANCEL_SECONDS
                    self._request_cancellation()
                awaited = gen.send(ready)
        except StopIteration as end:
            returned: Returned = end.value
            return returned

    def _request_cancellation(self) -> None:
        with suppress(psycopg.Error):
            self.cancel_safe(timeout=_CANCEL_SECONDS)


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
