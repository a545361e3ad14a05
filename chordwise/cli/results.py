"""`chordwise results`: showing what is stored."""

from __future__ import annotations

from typing import Annotated

import typer

from chordwise.cli import access
from chordwise.cli.application import EPILOG
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, OnlyTypes
from chordwise.cli.rendering import results as rendered_results
from chordwise.cli.rendering.plain_text import document
from chordwise.cli.rendering.screen import Screen
from chordwise.embedded.stack import Level
from chordwise.pipeline.runs import stored_results
from chordwise.pipeline.runs.stored_results import Wanted
from chordwise.storage import runs as stored_runs

MOST_RESULTS = 50


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EPILOG)(results)


def results(
    context: typer.Context,
    *,
    run: Annotated[
        str | None, typer.Option(metavar="RUN", help="Only of this run: name, id, or latest.")
    ] = None,
    types: OnlyTypes = None,
    wanted_document: Annotated[
        str, typer.Option("--document", metavar="PART", help="Only where this is in the name.")
    ] = "",
    limit: Annotated[
        int | None, typer.Option(min=1, help=f"At most so many; {MOST_RESULTS}, in JSON all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show stored results. Without --run, the newest to each question about each document.

    chordwise results --run latest --type summary

    chordwise results --document contract.docx --json
    """
    invocation, screen = Invocation.of(context), Screen()
    settings = access.reach(invocation, invocation.settings(), Level.DATABASE, screen.note)
    most = limit or (None if as_json else MOST_RESULTS)
    with access.database(settings) as database, database.read() as session:
        run_id = stored_runs.find(session, run).id if run else None
        wanted = Wanted(run_id=run_id, types=tuple(types or ()), document=wanted_document)
        found = stored_results.read(session, wanted, most)
        if as_json:
            total = len(found) if limit is None else stored_results.count(session, wanted)
            screen.write(document(total=total, results=found))
            return
        words = stored_results.count_in_words(session, wanted) if len(found) == most else ""
    screen.show(*rendered_results.laid_out(found))
    if not found:
        screen.tell("There are no such results (yet). `chordwise runs` lists the runs.")
    elif words not in ("", f"{len(found):,}"):
        screen.tell(f"{len(found)} of {words} results are shown; --limit shows more.")
