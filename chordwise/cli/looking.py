"""`chordwise runs` and `chordwise results`: looking at what is stored."""

from __future__ import annotations

from typing import Annotated

import typer
from sqlalchemy.orm import Session

from chordwise.cli import opening
from chordwise.cli.application import EPILOG
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, OnlyTypes
from chordwise.cli.rendering import accounts as rendered_accounts
from chordwise.cli.rendering import batches as rendered_batches
from chordwise.cli.rendering import budgets as rendered_budgets
from chordwise.cli.rendering import deliveries as rendered_deliveries
from chordwise.cli.rendering import results as rendered_results
from chordwise.cli.rendering import runs as rendered_runs
from chordwise.cli.rendering.documents import document
from chordwise.cli.rendering.screen import Screen
from chordwise.cli.reporting import EVERY, MOST_FAILURES
from chordwise.embedded.stack import Level
from chordwise.pipeline.runs import accounts, budget_lines, progress, stored_results
from chordwise.pipeline.runs.stored_results import Wanted
from chordwise.storage import deliveries
from chordwise.storage import runs as stored_runs
from chordwise.storage.engine import reaching_database

MOST_RESULTS = 50
MOST_JOBS = 50


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog=EPILOG)(runs)
    app.command(epilog=EPILOG)(results)


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
    with opening.database(settings) as sessions, reaching_database(), sessions() as session:
        if run is None:
            _list(session, screen, limit, as_json=as_json)
        else:
            _show(session, screen, run, as_json=as_json)


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
    settings = opening.reach(invocation, invocation.settings(), Level.DATABASE, screen.note)
    most = limit or (None if as_json else MOST_RESULTS)
    with opening.database(settings) as sessions, reaching_database(), sessions() as session:
        run_id = stored_runs.find(session, run).id if run else None
        wanted = Wanted(run_id=run_id, types=tuple(types or ()), document=wanted_document)
        total = stored_results.count(session, wanted)
        found = stored_results.read(session, wanted, most)
    if as_json:
        screen.write(document(total=total, results=found))
        return
    screen.show(*rendered_results.laid_out(found))
    if not found:
        screen.tell("There are no such results (yet). `chordwise runs` lists the runs.")
    elif total > len(found):
        screen.tell(f"{len(found)} of {total:,} results are shown; --limit {total} shows all.")


def _list(session: Session, screen: Screen, limit: int, *, as_json: bool) -> None:
    found = accounts.newest(session, limit)
    if as_json:
        screen.write(document(runs=found))
    elif found:
        screen.show(rendered_accounts.table(found))
    else:
        screen.tell("There are no runs yet. Begin with: chordwise analyze PATH…")


def _show(session: Session, screen: Screen, name: str, *, as_json: bool) -> None:
    run_id = stored_runs.find(session, name).id
    account = accounts.of_run(session, run_id)
    failed = accounts.failures(session, account.run, EVERY if as_json else MOST_FAILURES)
    noticed = accounts.notices(session, run_id, EVERY if as_json else MOST_FAILURES)
    counts = progress.read(session, run_id)
    caps = budget_lines.of_run(session, run_id)
    listed = accounts.jobs_of_run(session, run_id, EVERY if as_json else MOST_JOBS)
    owed = deliveries.of_run(session, run_id)
    if as_json:
        screen.write(
            document(
                run=account,
                usage=counts.calls,
                budgets=caps,
                batches=counts.batches,
                jobs=listed,
                failures=failed,
                notices=noticed,
                deliveries=owed,
            )
        )
        return
    screen.show(rendered_accounts.heading(account), *rendered_accounts.laid_out(account))
    screen.show(rendered_runs.usage(counts), *rendered_budgets.laid_out(caps))
    screen.show(*rendered_batches.laid_out(counts.batches))
    screen.show(rendered_runs.jobs(listed, counts.jobs.total))
    screen.show(*rendered_deliveries.laid_out(owed), *rendered_accounts.failures(failed))
    screen.show(*rendered_accounts.notices(noticed))
