"""`chordwise resume`: take in the rest of a run whose intake was interrupted."""

from __future__ import annotations

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, NoWait, RunArgument
from chordwise.cli.submit import Intake
from chordwise.errors import ExitCode
from chordwise.storage import runs


def resume(
    invocation: Invocation, run: RunArgument, *, no_wait: NoWait = False, as_json: AsJson = False
) -> ExitCode:
    """Take in the rest of a run that was interrupted. Nothing is taken in twice.

    chordwise resume latest

    chordwise resume contracts-2026 --no-wait
    """
    intake = Intake(invocation, access.for_run(invocation, run))
    with access.working_context(intake.settings) as working:
        with working.database.read() as session:
            run_id = runs.find(session, run).id
        account = intake.take_in(working, intake.resume(working).resume(run_id))
    return intake.conclude(account, waits=not no_wait, as_json=as_json)
