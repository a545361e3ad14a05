"""`chordwise inbox`: what lies where."""

from __future__ import annotations

from typing import Annotated

import typer

from chordwise.cli import opening
from chordwise.cli.application import EPILOG
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson
from chordwise.cli.rendering import inboxes
from chordwise.cli.rendering.documents import document
from chordwise.cli.rendering.screen import Screen
from chordwise.embedded import stack
from chordwise.embedded.stack import Level
from chordwise.errors import UsageError
from chordwise.pipeline.inbox import looking


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EPILOG)(inbox)


def inbox(
    context: typer.Context,
    *,
    limit: Annotated[int, typer.Option(min=0, help="How many taken files to list.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Show the watched folders. What waits, is being analyzed, and was delivered.

    chordwise inbox

    chordwise inbox --json
    """
    invocation, screen = Invocation.of(context), Screen()
    settings = invocation.settings()
    if not settings.inbox.folders:
        raise UsageError(
            "No folder is watched.", 'Say which in chordwise.toml: [inbox] folders = ["inbox"]'
        )
    reached = opening.reach(invocation, settings, Level.DATABASE, screen.note)
    with opening.database(reached) as database, database.read() as session:
        found = looking.accounts(session, reached, limit)
    watched = settings.inbox.enabled and stack.keeps_watch(settings)
    if as_json:
        screen.write(document(enabled=settings.inbox.enabled, watched=watched, inboxes=found))
        return
    screen.show(*inboxes.laid_out(found))
    if not settings.inbox.enabled:
        screen.tell("inbox.enabled is false: nothing is watched.")
    elif watched is False:
        screen.tell("Nothing here watches them now: files wait until the next chordwise up.")
