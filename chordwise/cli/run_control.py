"""`chordwise retry` and `cancel`."""

from __future__ import annotations

from chordwise.cli import access, run_watch
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, Budget, NoWait, RunArgument, parse_budget
from chordwise.domain.number_formats import counted
from chordwise.errors import ExitCode
from chordwise.pipeline.jobs import run_control as control


def retry(
    invocation: Invocation,
    run: RunArgument,
    *,
    budget: Budget = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Retry the analyses of a run that did not succeed. Stored answers are kept.

    chordwise retry latest

    chordwise retry nightly-17 --no-wait

    chordwise retry latest --budget 5
    """
    budget_usd = parse_budget(budget)
    settings, found = access.for_run(invocation, run)
    with access.working_context(invocation, settings) as working:
        count = control.retry(working, found.id, budget_usd)
    invocation.screen.info(f"{counted(count, 'analysis')} retried.")
    if not no_wait:
        return run_watch.follow(invocation, settings, found.id, found.name, as_json=as_json)
    if as_json:
        invocation.screen.write_json(run_id=found.id, run=found.name, retried=count)
    return run_watch.report_detached(invocation, settings, found.name, was_interrupted=False)


def cancel(invocation: Invocation, run: RunArgument, *, as_json: AsJson = False) -> None:
    """Cancel the unfinished analyses of a run. Stored answers are kept.

    chordwise cancel latest
    """
    settings = access.reach(invocation)
    found = access.find_run(settings, run)
    with access.database(settings) as database:
        count = control.cancel(database, found.id)
    if as_json:
        invocation.screen.write_json(run_id=found.id, run=found.name, cancelled=count)
    else:
        invocation.screen.info(f"{counted(count, 'analysis')} of {found.name} cancelled.")
