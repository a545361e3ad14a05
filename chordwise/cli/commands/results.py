"""Commands 2: Show stored results."""

from __future__ import annotations

from typing import Annotated

import typer

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, OnlyDocument, OnlyRun, OnlyTypes
from chordwise.relations import accounts
from chordwise.relations import results as stored_results
from chordwise.relations.results import ResultSelection
from chordwise.rendering import results as rendered_results

MAX_RESULTS = 50


def results(
    invocation: Invocation,
    *,
    run: OnlyRun = None,
    types: OnlyTypes = None,
    document: OnlyDocument = "",
    limit: Annotated[
        int | None,
        typer.Option(min=1, help=f"Maximum number. Default: {MAX_RESULTS}; all with --json."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show stored results. Without --run, shows the newest for each document and question.

    chordwise results --run latest --type summary

    chordwise results --document contract.docx --json
    """
    screen = invocation.screen
    most = limit or (None if as_json else MAX_RESULTS)
    with access.reading(access.reach(invocation)) as connection:
        run_id = accounts.find(connection, run)["id"] if run else None
        selection = ResultSelection(run_id=run_id, types=tuple(types or ()), document=document)
        rows = stored_results.read(connection, selection, most)
        if as_json:
            total = len(rows) if limit is None else stored_results.count(connection, selection)
            screen.write_json(total=total, results=rows)
            return
        words = stored_results.count_in_words(connection, selection) if len(rows) == most else ""
    screen.show(*rendered_results.render(rows))
    if not rows:
        screen.info("No results match. `chordwise runs` lists the runs.")
    elif words not in ("", f"{len(rows):,}"):
        screen.info(f"Showing {len(rows)} of {words} results; use --limit N for more.")
