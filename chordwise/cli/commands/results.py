"""Commands 2: Show stored results."""

from __future__ import annotations

from typing import Annotated

import typer

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, IsLong, OnlyDocument, OnlyRun, OnlyTypes
from chordwise.relations import accounts
from chordwise.relations import results as stored_results
from chordwise.rendering import results as rendered_results


def results(  # noqa: PLR0913 - the options of a command
    invocation: Invocation,
    *,
    run: OnlyRun = None,
    types: OnlyTypes = None,
    document: OnlyDocument = "",
    needs_check: Annotated[
        bool, typer.Option("--needs-check", help="Only answers with values to check.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Maximum number. Default: {rendered_results.MAX_IN_FULL} documents in a table, "
            f"{rendered_results.MAX_RESULTS} other results; all with --json.",
        ),
    ] = None,
    is_long: IsLong = False,
    as_json: AsJson = False,
) -> None:
    """Show stored results. Without --run, shows the newest for each document and question.

    chordwise results --run latest --type summary

    chordwise results --run latest --needs-check --long

    chordwise results --document contract.docx --json
    """
    screen = invocation.screen
    with access.reading(access.reach(invocation)) as connection:
        selection = stored_results.ResultSelection(
            run_id=accounts.find(connection, run)["id"] if run else None,
            types=tuple(types or ()),
            document=document,
            needs_review=needs_check,
        )
        if as_json:
            rows = stored_results.read(connection, selection, limit)
            total = len(rows) if limit is None else stored_results.count(connection, selection)
            screen.write_json(total=total, results=rows)
        elif not rendered_results.show(screen, connection, selection, limit, is_long=is_long):
            screen.info("No results match. `chordwise runs` lists the runs.")
