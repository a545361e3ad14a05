"""Commands 6: Serve web pages to watch runs and correct results."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from threading import Event
from typing import Annotated, TextIO

import typer

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.embedded import processes
from chordwise.embedded.home import Level, home_at, read_address
from chordwise.errors import UsageError
from chordwise.rendering.screen import Screen
from chordwise.settings.environment import supervisor_pipe

_SHORTEST_PASSWORD = 12
_POLL_SECONDS = 2.0


def web(
    invocation: Invocation,
    *,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port to listen on. Default: web.port.")
    ] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Print the link to the running server and exit.")
    ] = False,
    set_password: Annotated[
        bool, typer.Option("--set-password", help="Ask for a password and print its hash.")
    ] = False,
) -> None:
    """Serve web pages to watch runs and correct results. Ctrl-C stops the server.

    chordwise web

    chordwise web --port 8484

    chordwise web --link
    """
    screen = invocation.screen
    if set_password:
        from chordwise.web.access_control import hash_password  # noqa: PLC0415 - as below

        screen.write(f"{hash_password(_password())}\n")
        screen.info('Set it as password_hash = "…" in [web], or as CHORDWISE_WEB__PASSWORD_HASH.')
        return
    settings = invocation.settings()
    address = home_at(settings.home).web_link_file
    running = read_address(address)
    if running is not None or link:
        if running is None:
            raise UsageError(
                f"No web server is running for {settings.home}.", "Start it with: chordwise web"
            )
        screen.write(f"{running.url if link else shown_link(running.url, sys.stdout)}\n")
        if not link:
            say_where_the_token_is(screen, running.url, sys.stdout)
        screen.note(f"The web server is process {running.server.pid}.")
        if supervisor_pipe() is None or not _has_ended(address):
            return
    from chordwise.web import server  # noqa: PLC0415 - no other command loads its libraries

    reached = access.reach(invocation, settings, Level.ALL)
    if port is not None:
        changed = reached.web.model_copy(update={"port": port})
        reached = reached.model_copy(update={"web": changed})

    def ready(served: server.Served) -> None:
        processes.watch_parent(served.stop)
        screen.write(f"{shown_link(served.link, sys.stdout)}\n")
        say_where_the_token_is(screen, served.link, sys.stdout)
        screen.info("Serving the web pages at this address. Press Ctrl-C to stop.")

    server.serve(reached, ready)
    screen.info("Stopped.")


def _has_ended(address: Path) -> bool:
    """Wait until the other server ends; return false if the stack ends before it."""
    stack_ended = Event()
    processes.watch_parent(stack_ended.set)
    while read_address(address) is not None:
        if stack_ended.wait(_POLL_SECONDS):
            return False
    return True


def shown_link(link: str, stream: TextIO) -> str:
    """Return a link for a stream: without its token unless it is a terminal, as a log is kept."""
    return link if stream.isatty() else link.partition("?")[0]


def say_where_the_token_is(screen: Screen, link: str, stream: TextIO) -> None:
    """Say how to get the whole link if `shown_link` left out its token."""
    if shown_link(link, stream) != link:
        screen.info("For the link with the token to sign in: chordwise web --link")


def _password() -> str:
    password = getpass.getpass("Password: ")
    if len(password) < _SHORTEST_PASSWORD:
        raise UsageError(
            f"The password must have at least {_SHORTEST_PASSWORD} characters.",
            "Use a longer one, such as a few words.",
        )
    if getpass.getpass("Repeat the password: ") != password:
        raise UsageError("The passwords do not match.", "Try again.")
    return password
