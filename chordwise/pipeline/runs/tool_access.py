"""Access of other programs to the embedded database: a temporary login, and a port."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from chordwise.pipeline.runs.user_sql import READER, password_expiry, reset_reader, verifier

LOGIN = "chordwise_tools"
"""The role of other programs on an external server, and the prefix of embedded roles' names."""
_STATEMENT_SECONDS = 600
# By default every role may create temporary tables. The migration revokes the functions that write.
_CLOSE = sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC")
_LEFT_BEHIND = "SELECT rolname FROM pg_roles WHERE rolname LIKE %s AND rolvaliduntil < now()"
_END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A separate role for one open port; it has only the rights of readers."""

    role: str
    password: str = field(repr=False)


def create_login(database_url: SecretStr, reader: str = "") -> Login:
    """Create a login that expires ten minutes after the last `extend_login`, or is removed.

    It reads what the `reader` may read, and without one, everything. The database has to be the
    embedded one, whose owner may create roles.
    """
    login = Login(role=f"{LOGIN}_{secrets.token_hex(4)}", password=secrets.token_urlsafe(24))
    with _owner(database_url) as owner:
        for (role,) in owner.execute(_LEFT_BEHIND, (f"{LOGIN}\\_%",)).fetchall():
            owner.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
        owner.execute("DELETE FROM reader_logins WHERE role NOT IN (SELECT rolname FROM pg_roles)")
        owner.execute(_CLOSE.format(sql.Identifier(owner.info.dbname)))
        password = verifier(owner, login.role, login.password)
        make = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
        owner.execute(make.format(sql.Identifier(login.role), password))
        # A session that may set the role could change the settings of everybody's exports.
        join = sql.SQL("GRANT {} TO {} WITH INHERIT TRUE, SET FALSE")
        owner.execute(join.format(sql.Identifier(READER), sql.Identifier(login.role)))
        reset_reader(owner)
        for name, value in (
            ("default_transaction_read_only", "on"),
            ("statement_timeout", f"{_STATEMENT_SECONDS}s"),
            ("search_path", "answers, public"),
        ):
            setting = sql.SQL("ALTER ROLE {} SET {} = {}")
            values = sql.SQL(", ").join(map(sql.Literal, value.split(", ")))
            owner.execute(setting.format(sql.Identifier(login.role), sql.Identifier(name), values))
        add = "INSERT INTO reader_logins (role, name) VALUES (%s, %s)"
        owner.execute(add, (login.role, reader))
    extend_login(database_url, login)
    return login


def extend_login(database_url: SecretStr, login: Login) -> None:
    """Extend a login by another ten minutes from now."""
    with _owner(database_url) as owner:
        change = sql.SQL("ALTER ROLE {} VALID UNTIL {}")
        owner.execute(change.format(sql.Identifier(login.role), password_expiry(owner)))


def remove_login(database_url: SecretStr, login: Login) -> None:
    """Remove a login, and end its sessions."""
    with _owner(database_url) as owner:
        role = sql.Identifier(login.role)
        owner.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(role))
        owner.execute(_END_SESSIONS, (login.role,))
        owner.execute(sql.SQL("DROP ROLE {}").format(role))
        owner.execute("DELETE FROM reader_logins WHERE role = %s", (login.role,))


def _owner(database_url: SecretStr) -> psycopg.Connection:
    url = make_url(database_url.get_secret_value()).set(drivername="postgresql")
    return psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)


def socket_of(database_url: SecretStr) -> Path:
    """Return the Unix socket of the embedded database."""
    url = make_url(database_url.get_secret_value())
    folder, port = url.query["host"], url.query.get("port", "5432")
    return Path(str(folder)) / f".s.PGSQL.{port}"


@asynccontextmanager
async def forwarded(host: str, port: int, socket: Path) -> AsyncIterator[int]:
    """Forward connections from a port to a socket until the end of the block; yield the port.

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
