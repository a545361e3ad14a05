"""Runs: Cancel the unfinished analyses of a run."""

from __future__ import annotations

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, RunArgument
from chordwise.domain.number_formats import counted
from chordwise.pipeline.jobs import run_control as control


def cancel(invocation: Invocation, run: RunArgument, *, as_json: AsJson = False) -> None:
    """Cancel the unfinished analyses of a run. Stored answers are kept.

    chordwise cancel latest
    """
    settings = access.reach(invocation)
    stored_run = access.find_run(settings, run)
    with access.database(settings) as database:
        count = control.cancel(database, stored_run.id)
    if as_json:
        invocation.screen.write_json(run_id=stored_run.id, run=stored_run.name, cancelled=count)
    else:
        invocation.screen.info(f"{counted(count, 'analysis')} of {stored_run.name} cancelled.")
