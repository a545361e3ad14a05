"""Commands 2: Show stored results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, IsLong, OnlyDocument, OnlyRun, OnlyTypes
from chordwise.relations import accounts
from chordwise.relations import results as stored_results
from chordwise.relations.results import ResultSelection
from chordwise.rendering import results as rendered_results


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultsOptions:
    """The options of the command."""

    run: OnlyRun = None
    types: OnlyTypes = None
    document: OnlyDocument = ""
    needs_check: Annotated[
        bool, typer.Option("--needs-check", help="Only answers with values to check.")
    ] = False
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Maximum number. Default: {rendered_results.MAX_IN_FULL} documents in a table, "
            f"{rendered_results.MAX_RESULTS} other results; all with --json.",
        ),
    ] = None
    is_long: IsLong = False
    as_json: AsJson = False


def results(invocation: Invocation, options: ResultsOptions) -> None:
    """Show stored results. Without --run, shows the newest for each document and question.

    chordwise results --run latest --type summary

    chordwise results --run latest --needs-check --long

    chordwise results --document contract.docx --json
    """
    screen, limit = invocation.screen, options.limit
    with access.reading(access.reach(invocation)) as connection:
        selection = ResultSelection(
            run_id=accounts.find(connection, options.run)["id"] if options.run else None,
            types=tuple(options.types or ()),
            document=options.document,
            needs_review=options.needs_check,
        )
        if options.as_json:
            rows = stored_results.read(connection, selection, limit)
            total = len(rows) if limit is None else stored_results.count(connection, selection)
            screen.write_json(total=total, results=rows)
        elif not rendered_results.show(
            screen, connection, selection, limit, is_long=options.is_long
        ):
            screen.info("No results match. `chordwise runs` lists the runs.")
