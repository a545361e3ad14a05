"""Letting other programs read the embedded database: a login of their own, and a port."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psycopg
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy.engine import make_url

LOGIN = "chordwise_tools"
"""The role that other programs log in as; it has the rights of `chordwise_reader` and no others."""
_STATEMENT_SECONDS = 600
_MAKE = (
    """
    DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'chordwise_tools') THEN
            CREATE ROLE chordwise_tools NOSUPERUSER NOCREATEDB NOCREATEROLE;
        END IF;
    END $$
    """,
    "GRANT chordwise_reader TO chordwise_tools",
    "ALTER ROLE chordwise_tools SET default_transaction_read_only = on",
    f"ALTER ROLE chordwise_tools SET statement_timeout = '{_STATEMENT_SECONDS}s'",
    "ALTER ROLE chordwise_tools SET search_path = answers, public",
)
_END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"


def allow(database_url: SecretStr) -> str:
    """Let other programs log in, until `forbid`; return the password.

    The database has to be the embedded one, whose owner may create roles.
    """
    password = secrets.token_urlsafe(24)
    with _owner(database_url) as owner:
        for statement in _MAKE:
            owner.execute(statement)
        # Hashed on this side, so that no log of statements holds the password.
        verifier = owner.pgconn.encrypt_password(
            password.encode(), LOGIN.encode(), b"scram-sha-256"
        ).decode()
        owner.execute(
            sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(LOGIN), verifier)
        )
    return password


def forbid(database_url: SecretStr) -> None:
    """Let no program log in any more, and end the sessions of those that did."""
    with _owner(database_url) as owner:
        owner.execute(sql.SQL("ALTER ROLE {} NOLOGIN PASSWORD NULL").format(sql.Identifier(LOGIN)))
        owner.execute(_END_SESSIONS, (LOGIN,))


def _owner(database_url: SecretStr) -> psycopg.Connection:
    url = make_url(database_url.get_secret_value()).set(drivername="postgresql")
    return psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)


def socket_of(database_url: SecretStr) -> Path:
    """Return the socket that the embedded database listens on."""
    url = make_url(database_url.get_secret_value())
    folder, port = url.query["host"], url.query.get("port", "5432")
    return Path(str(folder)) / f".s.PGSQL.{port}"


@asynccontextmanager
async def forwarded(host: str, port: int, socket: Path) -> AsyncIterator[int]:
    """Pass connections to a port on to a socket until the end of the block; yield the port.

    Raises:
        OSError: The port cannot be opened.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_unix_connection(str(socket))
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pass_on(reader, there_writer), _pass_on(there_reader, writer))

    server = await asyncio.start_server(serve, host, port)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while content := await reader.read(65_536):
            writer.write(content)
            await writer.drain()
    with suppress(OSError, RuntimeError):
        writer.close()
