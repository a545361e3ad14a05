"""`chordwise runs`: looking at runs."""

from __future__ import annotations

from typing import Annotated

import typer
from sqlalchemy.orm import Session

from chordwise.cli import opening
from chordwise.cli.application import EPILOG
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson
from chordwise.cli.rendering import accounts as rendered_accounts
from chordwise.cli.rendering.documents import document
from chordwise.cli.rendering.screen import Screen
from chordwise.embedded.stack import Level
from chordwise.pipeline.runs import accounts


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EPILOG)(runs)


def runs(
    context: typer.Context,
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run's name or id, or latest.")
    ] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, help="How many runs to list.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest runs, or show the account of one.

    chordwise runs

    chordwise runs latest --json
    """
    invocation, screen = Invocation.of(context), Screen()
    settings = opening.reach(invocation, invocation.settings(), Level.DATABASE, screen.note)
    with opening.database(settings) as database, database.read() as session:
        if run is None:
            _list(session, screen, limit, as_json=as_json)
        else:
            # The tables of an account take as long to import as the list takes in all.
            from chordwise.cli.accounting import show  # noqa: PLC0415 - see above

            show(session, screen, run, as_json=as_json)


def _list(session: Session, screen: Screen, limit: int, *, as_json: bool) -> None:
    found = accounts.newest(session, limit)
    if as_json:
        screen.write(document(runs=found))
    elif found:
        screen.show(rendered_accounts.table(found))
    else:
        screen.tell("There are no runs yet. Begin with: chordwise analyze PATH…")
