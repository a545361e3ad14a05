"""`chordwise resume`: take in the rest of a run whose intake was interrupted."""

from __future__ import annotations

import typer

from chordwise.cli import access
from chordwise.cli.application import EPILOG
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, NoWait, RunArgument
from chordwise.cli.rendering.screen import Screen
from chordwise.cli.submit import TakingIn
from chordwise.storage import runs


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EPILOG)(resume)


def resume(
    context: typer.Context, run: RunArgument, *, no_wait: NoWait = False, as_json: AsJson = False
) -> None:
    """Take in the rest of a run that was interrupted. Nothing is taken in twice.

    chordwise resume latest

    chordwise resume contracts-2026 --no-wait
    """
    invocation, screen = Invocation.of(context), Screen()
    settings = access.for_run(invocation, invocation.settings(), run, screen.note)
    taking_in = TakingIn(invocation, settings, screen)
    with access.working_context(settings) as working:
        with working.database.read() as session:
            run_id = runs.find(session, run).id
        submission = taking_in.resume(working).resume(run_id)
        account = taking_in.take_in(working, submission)
    raise typer.Exit(taking_in.conclude(account, waits=not no_wait, as_json=as_json))
