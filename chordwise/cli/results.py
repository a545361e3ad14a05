"""`chordwise results`: the stored results."""

from __future__ import annotations

from typing import Annotated

import typer

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, OnlyDocument, OnlyRun, OnlyTypes
from chordwise.pipeline.runs import stored_results
from chordwise.pipeline.runs.stored_results import ResultSelection
from chordwise.rendering import results as rendered_results
from chordwise.storage import runs as stored_runs

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
    with access.read(access.reach(invocation)) as session:
        run_id = stored_runs.find(session, run).id if run else None
        wanted = ResultSelection(run_id=run_id, types=tuple(types or ()), document=document)
        found = stored_results.read(session, wanted, most)
        if as_json:
            total = len(found) if limit is None else stored_results.count(session, wanted)
            screen.write_json(total=total, results=found)
            return
        words = stored_results.count_in_words(session, wanted) if len(found) == most else ""
    screen.show(*rendered_results.render(found))
    if not found:
        screen.info("No results match. `chordwise runs` lists the runs.")
    elif words not in ("", f"{len(found):,}"):
        screen.info(f"Showing {len(found)} of {words} results; use --limit N for more.")
