"""The account of one run, as `chordwise runs RUN` shows it."""

from __future__ import annotations

from sqlalchemy.orm import Session

from chordwise.cli.rendering import accounts as rendered_accounts
from chordwise.cli.rendering import batches as rendered_batches
from chordwise.cli.rendering import budgets as rendered_budgets
from chordwise.cli.rendering import deliveries as rendered_deliveries
from chordwise.cli.rendering import runs as rendered_runs
from chordwise.cli.rendering.documents import document
from chordwise.cli.rendering.screen import Screen
from chordwise.cli.reporting import EVERY, MOST_FAILURES
from chordwise.pipeline.runs import accounts, progress
from chordwise.pipeline.runs.accounts import caps_of_run
from chordwise.storage import deliveries
from chordwise.storage import runs as stored_runs

MOST_JOBS = 50


def show(session: Session, screen: Screen, name: str, *, as_json: bool) -> None:
    """Show the account of the run of this name or id."""
    run_id = stored_runs.find(session, name).id
    account = accounts.of_run(session, run_id)
    failed = accounts.failures(session, account.run, EVERY if as_json else MOST_FAILURES)
    noticed = accounts.notices(session, run_id, EVERY if as_json else MOST_FAILURES)
    counts = progress.read(session, run_id)
    caps = caps_of_run(session, run_id)
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
