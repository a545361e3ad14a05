"""Runs: Wait for a run to finish, then show its results."""

from __future__ import annotations

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, IsLong, RunArgument
from chordwise.cli.run_watch import follow
from chordwise.embedded import stack
from chordwise.errors import ExitCode


def wait(
    invocation: Invocation,
    run: RunArgument = "latest",
    *,
    is_long: IsLong = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Wait for a run to finish, then show its results.

    chordwise wait 20261124-0915-3f2a

    chordwise wait latest --json
    """
    settings = invocation.settings()
    if stack.is_watching_for_others(settings):  # leave the running stack unchanged
        settings = access.reach(invocation, settings)
        stored_run = access.find_run(settings, run)
    else:
        settings, stored_run = access.for_run(invocation, run, settings)
    return follow(
        invocation, settings, stored_run.id, stored_run.name, as_json=as_json, is_long=is_long
    )
