"""`chordwise tables --connect`: how to connect other programs to the answers."""

from __future__ import annotations

import asyncio
import getpass
import ipaddress
import signal
from contextlib import suppress

from pydantic import SecretStr
from rich.text import Text
from sqlalchemy.engine import URL, make_url

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.embedded import stack
from chordwise.errors import UsageError
from chordwise.pipeline.runs import tool_access
from chordwise.settings import Settings
from chordwise.storage import closed_profiles
from chordwise.storage.sql_text import quoted_value

_KEEP_ALIVE_SECONDS = 30.0
_PLACE = "PASSWORD"
_EXAMPLE = "SELECT * FROM answers.contracts"
RECIPES = {
    "psql": """\
psql "{url}" -c "{query}"
""",
    "pandas": """\
import pandas as pd
import sqlalchemy as sa
engine = sa.create_engine("{sqlalchemy}")
frame = pd.read_sql("{query}", engine)
""",
    "Polars": """\
import polars as pl
import sqlalchemy as sa
engine = sa.create_engine("{sqlalchemy}")
with engine.connect() as connection:
    frame = pl.read_database("{query}", connection)
""",
    "DuckDB": """\
INSTALL postgres; LOAD postgres;
ATTACH '{url}' AS chordwise (TYPE postgres, READ_ONLY);
FROM chordwise.answers.contracts;
""",
    "DBeaver, DataGrip": """\
Create a PostgreSQL connection: host {host}, port {port}, database {database}, user {user}, and
the password in the address above. The tables are in the schema answers.
""",
    "Metabase": """\
Add a PostgreSQL database: host {host}, port {port}, name {database}, user {user}.
Under “Schemas”, choose “Only these”: answers.
""",
    "Superset": """\
Settings > Database Connections > + Database, with the SQLAlchemy URI:
{sqlalchemy}
""",
    "Excel": """\
Data > Get Data > From ODBC, with the driver psqlODBC and the connection string
Driver={{PostgreSQL Unicode}};Server={host};Port={port};Database={database};Uid={user};
""",
}
"""How programs connect, as format strings."""


def show(invocation: Invocation, listen: str, reader: str, *, as_json: bool) -> None:
    """Show how to connect other programs to the answers, on a port at `listen` until Ctrl-C.

    With a `reader`, they read what that person may read.

    Raises:
        UsageError: `listen` is not a loopback address, or is given for a server of one's own; or no
            profile has the `reader`.
    """
    settings = invocation.settings()
    if settings.database_url is None:
        host, port = _address(listen)
        reached = access.reach(invocation, settings)
        _prepare(reached, reader)
        asyncio.run(_serve(invocation, reached, host, port, reader, as_json=as_json))
        return
    if listen:
        raise UsageError(
            "--listen is for the embedded database only, and database_url is set.",
            "Run `chordwise tables --connect` without it to see the address.",
        )
    if settings.reader_url is not None:
        url = make_url(settings.reader_url.get_secret_value())
    else:
        url = make_url(settings.database_url.get_secret_value())
        url = url.set(username=tool_access.LOGIN, password=_PLACE)
    _show(invocation, url, as_json=as_json)
    if reader:
        _prepare(settings, reader)
        row = f"({quoted_value(url.username or '')}, {quoted_value(reader)})"
        invocation.screen.info(
            f"The owner of the database gives a login the rights of {reader}: it adds "
            f"{row} to reader_logins (role, name)."
        )
    if settings.reader_url is None and not as_json:
        invocation.screen.info(
            "`chordwise migrate --print-roles` prints the SQL that creates this login. Set "
            "CHORDWISE_READER_URL to its address to use it for `chordwise sql` as well."
        )


def _prepare(settings: Settings, reader: str) -> None:
    """Close the profiles of the settings, and check that one has the reader, if one is given."""
    with access.write(settings) as session:
        closed_profiles.update(session, settings.readers_of_profiles, getpass.getuser())
        session.flush()
        if reader:
            closed_profiles.require_reader(session, reader)


def _address(listen: str) -> tuple[str, int]:
    """Return the host and port to listen on."""
    if not listen:
        raise UsageError(
            "The embedded database has no port for other programs.",
            "Open one while the command runs: chordwise connect --listen 127.0.0.1:5433",
        )
    host, _, port = listen.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    try:
        is_here = host == "localhost" or ipaddress.ip_address(host).is_loopback
        number = int(port)
    except ValueError:
        is_here, number = False, -1
    if not is_here or not 0 <= number < 65_536:  # noqa: PLR2004 - ports
        raise UsageError(
            f"--listen {listen} is not a loopback address with a port.",
            "Example: --listen 127.0.0.1:5433, or 127.0.0.1:0 for a free port.",
        )
    return host, number


async def _serve(
    invocation: Invocation, settings: Settings, host: str, port: int, reader: str, *, as_json: bool
) -> None:
    """Open the port, show how to use it, and keep it open until Ctrl-C."""
    url = settings.require_database_url()
    login = await asyncio.to_thread(tool_access.create_login, url, reader)
    try:
        async with tool_access.forwarded(host, port, tool_access.socket_of(url)) as opened:
            address = make_url(url.get_secret_value()).set(query={}, host=host, port=opened)
            opened_url = address.set(username=login.role, password=login.password)
            _show(invocation, opened_url, as_json=as_json)
            if not as_json:
                invocation.screen.info(
                    "The port is open until you press Ctrl-C. The password is valid until then."
                )
            await _stopped(settings, url, login)
    except OSError as error:
        raise UsageError(
            f"{host}:{port} cannot be opened: {error.strerror or error}.",
            f"Use --listen {host}:0 for a free port.",
        ) from error
    finally:
        await asyncio.to_thread(tool_access.remove_login, url, login)


async def _stopped(settings: Settings, url: SecretStr, login: tool_access.Login) -> None:
    """Wait for Ctrl-C or SIGTERM, and keep the stack from stopping meanwhile."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    while not stop.is_set():
        stack.touch_last_used(settings.home)
        await asyncio.to_thread(tool_access.extend_login, url, login)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _KEEP_ALIVE_SECONDS)


def _show(invocation: Invocation, url: URL, *, as_json: bool) -> None:
    plain, of_sqlalchemy = (
        url.set(drivername=name).render_as_string(hide_password=False)
        for name in ("postgresql", "postgresql+psycopg")
    )
    recipes = {
        name: recipe.format(
            url=plain,
            sqlalchemy=of_sqlalchemy,
            host=url.host,
            port=url.port or 5432,
            database=url.database,
            user=url.username,
            query=_EXAMPLE,
        )
        for name, recipe in RECIPES.items()
    }
    screen = invocation.screen
    if as_json:
        screen.write_json(url=plain, recipes=recipes)
        return
    screen.write(f"{plain}\n")
    for name, recipe in recipes.items():
        screen.info_renderables(Text(name, style="bold"))
        screen.info_verbatim(recipe)
