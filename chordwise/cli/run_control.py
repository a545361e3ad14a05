"""`chordwise wait`, `retry` and `cancel`: what can be done with a run that exists."""

from __future__ import annotations

import typer

from chordwise.cli import access, request
from chordwise.cli.application import EPILOG
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, Budget, NoWait, RunArgument
from chordwise.cli.rendering.plain_text import counted, document
from chordwise.cli.rendering.screen import Screen
from chordwise.cli.run_watch import Following
from chordwise.embedded import stack
from chordwise.embedded.stack import Level
from chordwise.errors import ExitCode
from chordwise.pipeline.jobs import retry as retrying
from chordwise.settings import Settings
from chordwise.storage import runs
from chordwise.storage.runs import Run


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog=EPILOG)(wait)
    app.command(epilog=EPILOG)(retry)
    app.command(epilog=EPILOG)(cancel)


def wait(context: typer.Context, run: RunArgument = "latest", *, as_json: AsJson = False) -> None:
    """Wait until a run is over, and show its results.

    chordwise wait 20261124-0915-3f2a

    chordwise wait latest --json
    """
    invocation, screen = Invocation.of(context), Screen()
    settings = invocation.settings()
    if stack.watches_for_others(settings):  # it is at work already, and stays as it is
        settings = access.reach(invocation, settings, Level.DATABASE, screen.note)
    else:
        settings = access.for_run(invocation, settings, run, screen.note)
    found = _find(settings, run)
    following = Following(invocation, settings, screen)
    raise typer.Exit(following.follow(found.id, found.name, as_json=as_json))


def retry(
    context: typer.Context,
    run: RunArgument,
    *,
    budget: Budget = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Retry the analyses of a run that have not succeeded. Stored answers are kept.

    chordwise retry latest

    chordwise retry nightly-17 --no-wait

    chordwise retry latest --budget 5
    """
    invocation, screen = Invocation.of(context), Screen()
    budget_usd = request.budget_of(budget)
    settings = access.for_run(invocation, invocation.settings(), run, screen.note)
    found = _find(settings, run)
    with access.working_context(settings) as working:
        count = retrying.retry(working, found.id, budget_usd)
    screen.tell(f"{counted(count, 'analysis')} taken up again.")
    following = Following(invocation, settings, screen)
    if no_wait:
        if as_json:
            screen.write(document(run_id=found.id, run=found.name, retried=count))
        raise typer.Exit(following.say_how_to_come_back(found.name, was_interrupted=False))
    raise typer.Exit(following.follow(found.id, found.name, as_json=as_json))


def cancel(context: typer.Context, run: RunArgument, *, as_json: AsJson = False) -> None:
    """Cancel the analyses of a run that have not ended. Stored answers are kept.

    chordwise cancel latest
    """
    invocation, screen = Invocation.of(context), Screen()
    settings = access.reach(invocation, invocation.settings(), Level.DATABASE, screen.note)
    found = _find(settings, run)
    with access.database(settings) as database:
        count = retrying.cancel(database, found.id)
    if as_json:
        screen.write(document(run_id=found.id, run=found.name, cancelled=count))
    else:
        screen.tell(f"{counted(count, 'analysis')} of {found.name} cancelled.")
    raise typer.Exit(ExitCode.SUCCESS)


def _find(settings: Settings, name: str) -> Run:
    with access.database(settings) as database, database.read() as session:
        return runs.find(session, name)
