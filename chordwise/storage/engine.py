"""Connections to PostgreSQL, and the one place where its errors become ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import tenacity
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    InternalError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

from chordwise.errors import ConfigurationError, ServiceUnavailableError

_DRIVER = "postgresql+psycopg"
_CONNECT_SECONDS = 10

Stored = TypeVar("Stored")


def open_engine(url: SecretStr, *, pool_size: int = 5, name: str = "chordwise") -> Engine:
    """Return an engine for a `postgresql://` URL; nothing is connected yet.

    Statements are bounded (`statement_timeout` 60 s, `lock_timeout` 30 s) so that a stuck server
    never holds a thread for ever; connections are tested before use.

    Raises:
        ConfigurationError: The URL is not one of PostgreSQL.
    """
    try:
        address = make_url(url.get_secret_value())
    except ArgumentError as error:
        raise ConfigurationError("database_url is not a URL.", "postgresql://…") from error
    if address.get_backend_name() not in {"postgresql", "postgres"}:
        raise ConfigurationError(
            f"database_url starts with “{address.drivername}”.", "Chordwise needs PostgreSQL."
        )
    return create_engine(
        address.set(drivername=_DRIVER),
        pool_size=pool_size,
        max_overflow=5,
        pool_pre_ping=True,
        pool_timeout=30,
        hide_parameters=True,
        connect_args={
            "connect_timeout": _CONNECT_SECONDS,
            "application_name": name,
            "options": "-c statement_timeout=60s -c lock_timeout=30s -c timezone=UTC",
        },
    )


def session_maker(engine: Engine) -> sessionmaker[Session]:
    """Return what opens units of work; rows stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)


@contextmanager
def reaching_database() -> Iterator[None]:
    """Translate a lost or refused connection.

    Raises:
        ServiceUnavailableError: PostgreSQL is out of reach, restarting, or full.
    """
    try:
        yield
    except (OperationalError, InterfaceError, InternalError, PoolTimeoutError) as error:
        raise ServiceUnavailableError(
            f"PostgreSQL cannot be reached: {_reason(error)}", "Run `chordwise doctor`."
        ) from error


def persistently(
    sessions: sessionmaker[Session], patience: timedelta, write: Callable[[Session], Stored]
) -> Stored:
    """Run `write` in a transaction, again and again while the database is away.

    Raises:
        ServiceUnavailableError: The database stayed away for longer than `patience`.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(ServiceUnavailableError),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
        stop=tenacity.stop_after_delay(patience),
        reraise=True,
    )
    for attempt in retrying:
        with attempt, reaching_database(), sessions.begin() as session:
            stored = write(session)
    return stored


def _reason(error: SQLAlchemyError) -> str:
    """Return the server's own first line; psycopg never puts the password into it."""
    original = error.orig if isinstance(error, DBAPIError) else error
    lines = str(original).strip().splitlines()
    return lines[0][:300] if lines else "no reason"
