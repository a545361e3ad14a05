"""Connections to PostgreSQL that do not wait for ever for a server that has fallen silent.

TCP's own timeouts notice a network or a machine that is gone. A server that stands still, or a
proxy before one that is gone, acknowledges every byte and never answers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, TypeVar, cast

import psycopg
from psycopg.abc import PQGen
from psycopg.rows import TupleRow
from sqlalchemy import Connection, Engine, event, text

Returned = TypeVar("Returned")

_POLL_SECONDS = 0.1
_IDLE_MILLISECONDS = 30_000
# Statements are ended by the server; its own sentence about that should arrive before we give up.
_ON_TOP = 1.25
_ON_TOP_SECONDS = 1.0
_CONNECT_SECONDS = 10
_CANCEL_SECONDS = 5.0
_LEAST_CONNECT_SECONDS = 2  # PostgreSQL's library takes no fewer


class _Connect(Protocol):
    def __call__(self, *arguments: object, **named: object) -> BoundedConnection: ...


class BoundedConnection(psycopg.Connection[TupleRow]):
    """Closes itself when an answer takes longer than `answer_seconds`; `None`: never.

    Where `cancels`, it first asks the server to cancel the statement, and closes a server that does
    not: what runs there may have switched the server's own limit off.
    """

    answer_seconds: float | None = None
    cancels: bool = False

    def wait(
        self, gen: PQGen[Returned], interval: float = _POLL_SECONDS, timeout: float | None = None
    ) -> Returned:
        """Wait for one answer of the server.

        Raises:
            psycopg.OperationalError: There was none in time; the connection is closed.
        """
        if self.answer_seconds is None:
            return super().wait(gen, interval, timeout)
        return super().wait(self._bounded(gen, self.answer_seconds), interval, timeout)

    def _bounded(self, gen: PQGen[Returned], seconds: float) -> PQGen[Returned]:
        deadline = time.monotonic() + seconds
        may_cancel = self.cancels
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if time.monotonic() > deadline:
                    if not may_cancel:
                        self.close()
                        raise psycopg.OperationalError(f"the server is silent for {seconds:g} s")
                    may_cancel, deadline = False, deadline + _CANCEL_SECONDS
                    self._ask_to_cancel()
                wanted = gen.send(ready)
        except StopIteration as end:
            returned: Returned = end.value
            return returned

    def _ask_to_cancel(self) -> None:
        with suppress(psycopg.Error):
            self.cancel_safe(timeout=_CANCEL_SECONDS)


def bound(engine: Engine, statement_seconds: float) -> None:
    """Let each connection of the engine give up a little after the server should have."""
    seconds = statement_seconds * _ON_TOP + _ON_TOP_SECONDS
    connect = cast("_Connect", BoundedConnection.connect)

    def do_connect(
        _dialect: object, _record: object, arguments: list[str], named: dict[str, object]
    ) -> BoundedConnection:
        connection = connect(*arguments, **named)
        connection.answer_seconds = seconds
        return connection

    event.listen(engine, "do_connect", do_connect)


def parameters(
    statement_seconds: float, name: str, *, keeps_plans: bool = False
) -> dict[str, str | int]:
    """Return what a connection is opened with, so that neither side waits for the other for long.

    The server ends statements, waits for locks and transactions without statements, and sessions
    that are not used; a pool opens another one when it needs it. Both sides notice within half a
    statement's time that the network between them is gone.
    """
    milliseconds = round(statement_seconds * 1_000)
    idle, interval = max(1, round(statement_seconds / 4)), max(1, round(statement_seconds / 12))
    silence = max(1_000, milliseconds // 4)
    of_server = {
        "statement_timeout": milliseconds,
        "lock_timeout": milliseconds // 2,
        "idle_in_transaction_session_timeout": milliseconds,
        "idle_session_timeout": min(_IDLE_MILLISECONDS, 2 * milliseconds),
        "tcp_keepalives_idle": idle,
        "tcp_keepalives_interval": interval,
        "tcp_keepalives_count": 3,
        "tcp_user_timeout": silence,
        "timezone": "UTC",
        "plan_cache_mode": "force_generic_plan" if keeps_plans else "auto",
    }
    return {
        "application_name": name,
        "connect_timeout": max(
            _LEAST_CONNECT_SECONDS, min(_CONNECT_SECONDS, round(statement_seconds))
        ),
        "keepalives_idle": idle,
        "keepalives_interval": interval,
        "keepalives_count": 3,
        "tcp_user_timeout": silence,
        "options": " ".join(f"-c {option}={value}" for option, value in of_server.items()),
    }


@contextmanager
def taking_its_time(connection: Connection) -> Iterator[None]:
    """Let statements take as long as they take, for the block."""
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
