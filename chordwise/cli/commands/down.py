"""Operation: Stop all services on this machine."""

from __future__ import annotations

from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson
from chordwise.embedded import stack
from chordwise.errors import ConfigurationError
from chordwise.settings import find_home


def down(invocation: Invocation, *, as_json: AsJson = False) -> None:
    """Stop all services on this machine. This includes `chordwise up` in another terminal.

    chordwise down
    """
    try:
        home = invocation.settings().home
    except ConfigurationError as error:  # stop the services all the same
        home = find_home(invocation.config, invocation.home)
        invocation.screen.note(f"{error.what} Stopping the services of {home} anyway.")
    was_up = stack.stop(home)
    if as_json:
        invocation.screen.write_json(stopped=was_up)
    else:
        invocation.screen.info("Stopped." if was_up else f"No services are running for {home}.")
