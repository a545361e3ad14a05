"""Operation: Serve tables, quotes and texts to programs with language models."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated

import typer

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.domain.identifiers import split_commas
from chordwise.domain.people import Right
from chordwise.embedded import processes, stack
from chordwise.embedded.home import Level
from chordwise.errors import ConfigurationError, UsageError
from chordwise.storage import closed_profiles
from chordwise.storage.database import Database
from chordwise.web.site import Site

_KEEP_ALIVE_SECONDS = 30.0


def mcp(
    invocation: Invocation,
    *,
    allow: Annotated[
        str, typer.Option(metavar="SCOPES", help="Also: decide, submit. Default: only read.")
    ] = "",
    http: Annotated[
        bool, typer.Option("--http", help="Serve HTTP on this machine, with tokens.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Of --http. 0: a free one.")] = 0,
) -> None:
    """Serve tables, quotes and texts to programs with language models, as tools over MCP.

    chordwise mcp

    chordwise mcp --http --port 8485 --allow decide
    """
    try:
        from chordwise.web.mcp_server import ToolServer  # noqa: PLC0415 - of the extra mcp
    except ModuleNotFoundError as error:
        what = 'Install it with: pip install "chordwise[mcp]"'
        raise ConfigurationError("The package mcp is not installed.", what) from error
    try:
        allowed = {Right.READ, *map(Right, split_commas(allow))}
    except ValueError as error:
        raise UsageError(f"{error}.", f"Scopes: {', '.join(Right)}.") from error
    level = Level.ALL if Right.SUBMIT in allowed else Level.DATABASE
    settings = access.reach(invocation, level=level)
    keep_up = partial(stack.touch_last_used, settings.home)
    with access.database(settings) as database, processes.repeating(keep_up, _KEEP_ALIVE_SECONDS):
        site = Site(settings=settings, database=Database(database.engine, closed_profiles.restrict))
        try:
            server = ToolServer(site, allowed)
            if http:
                server.serve_http(port, lambda url: invocation.screen.write(f"{url}\n"))
            else:
                asyncio.run(server.serve_stdio())
        finally:
            site.close()
