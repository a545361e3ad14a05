"""Runs: Continue a run: retry what did not succeed, and read the rest."""

from __future__ import annotations

from chordwise.cli import access, run_watch
from chordwise.cli.commands.analyze import RunIntake
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, Budget, NoWait, RunArgument
from chordwise.domain.number_formats import counted
from chordwise.errors import ExitCode
from chordwise.pipeline.jobs import run_control as control
from chordwise.pipeline.models.budgets import parse_budget
from chordwise.relations import accounts
from chordwise.storage.database import driver


def continue_(
    invocation: Invocation,
    run: RunArgument,
    *,
    budget: Budget = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Continue a run: retry what did not succeed, and read the remaining files.

    Stored answers are kept, and no document is taken in twice.

    chordwise continue latest

    chordwise continue nightly-17 --no-wait

    chordwise continue latest --budget 5
    """
    budget_usd = parse_budget(budget)
    settings, stored_run = access.for_run(invocation, run)
    intake = RunIntake(invocation, settings)
    with access.working_context(invocation, settings) as context:
        retried = control.retry(context, stored_run.id, budget_usd)
        invocation.screen.info(f"{counted(retried, 'analysis')} retried.")
        rest = intake.resume(context).resume(stored_run.id)
        if rest is not None:
            account = intake.take_in(context, rest)
        else:
            with context.database.read() as session:
                account = accounts.of_run(driver(session), stored_run.id)
    if no_wait and as_json and not account.is_interrupted:
        invocation.screen.write_json(run_id=stored_run.id, run=stored_run.name, retried=retried)
        return run_watch.report_detached(
            invocation, settings, stored_run.name, was_interrupted=False
        )
    return intake.conclude(account, waits=not no_wait, as_json=as_json)
