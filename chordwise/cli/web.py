"""`chordwise web`: pages to watch runs, read results and correct them."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.rendering.screen import Screen
from chordwise.embedded import processes
from chordwise.embedded.home import home_at, web_link
from chordwise.embedded.stack import Level
from chordwise.errors import UsageError
from chordwise.settings import Settings

_SHORTEST_PASSWORD = 12


def web(
    invocation: Invocation,
    *,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Where to listen; unset: web.port.")
    ] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Print the link of the server that runs, and end.")
    ] = False,
    set_password: Annotated[
        bool, typer.Option("--set-password", help="Ask for a password, and print its hash.")
    ] = False,
) -> None:
    """Serve pages to watch runs, read results and correct them. Ctrl-C ends it.

    chordwise web

    chordwise web --port 8484

    chordwise web --link
    """
    screen = invocation.screen
    if set_password:
        _print_hash(screen)
        return
    settings = invocation.settings()
    running = web_link(home_at(settings.home))
    if running is not None or link:
        if running is None:
            raise UsageError(
                f"No pages are served for {settings.home}.", "Serve them with: chordwise web"
            )
        screen.write(f"{running.link}\n")
        screen.note(f"Process {running.server.pid} serves the pages.")
        return
    _serve(invocation, settings, port)
    screen.tell("Stopped.")


def _serve(invocation: Invocation, settings: Settings, port: int | None) -> None:
    from chordwise.web import server  # noqa: PLC0415 - no other command loads its libraries

    screen = invocation.screen
    reached = access.reach(invocation, settings, Level.ALL)
    if port is not None:
        changed = reached.web.model_copy(update={"port": port})
        reached = reached.model_copy(update={"web": changed})

    def ready(served: server.Served) -> None:
        processes.watch_parent(served.stop)
        screen.write(f"{served.link}\n")
        screen.tell("The pages are served at this address; Ctrl-C ends that.")

    server.serve(reached, ready)


def _print_hash(screen: Screen) -> None:
    from chordwise.web.access import hashed  # noqa: PLC0415 - as above

    screen.write(f"{hashed(_password())}\n")
    screen.tell('Set it as password_hash = "…" below [web], or as CHORDWISE_WEB__PASSWORD_HASH.')


def _password() -> str:
    """Ask for a password twice.

    Raises:
        UsageError: It is too short, or the second one differs.
    """
    password = getpass.getpass("Password: ")
    if len(password) < _SHORTEST_PASSWORD:
        raise UsageError(
            f"A password needs {_SHORTEST_PASSWORD} characters or more.", "A few words will do."
        )
    if getpass.getpass("Once more: ") != password:
        raise UsageError("The two passwords differ.", "Try again.")
    return password
