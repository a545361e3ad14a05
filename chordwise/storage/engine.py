"""Connections to PostgreSQL, and the one place where its errors become ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import SecretStr
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from chordwise.errors import ConfigurationError, ServiceUnavailableError

_DRIVER = "postgresql+psycopg"
_CONNECT_SECONDS = 10


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
    except (OperationalError, InterfaceError) as error:
        raise ServiceUnavailableError(
            f"PostgreSQL cannot be reached: {_reason(error)}", "Run `chordwise doctor`."
        ) from error


def is_connection_lost(error: Exception) -> bool:
    """Tell whether the database, not the statement, was at fault."""
    return isinstance(error, OperationalError | InterfaceError | ServiceUnavailableError) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    )


def _reason(error: DBAPIError) -> str:
    """Return the server's own first line; psycopg never puts the password into it."""
    return str(error.orig).strip().splitlines()[0][:300] if str(error.orig).strip() else "no reason"
