"""Operation: Stop all services on this machine."""

from __future__ import annotations

from pathlib import Path

from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson
from chordwise.embedded import stack
from chordwise.errors import ConfigurationError


def down(invocation: Invocation, *, as_json: AsJson = False) -> None:
    """Stop all services on this machine. This includes `chordwise up` in another terminal.

    chordwise down
    """
    home = _home(invocation)
    was_up = stack.stop(home)
    if as_json:
        invocation.screen.write_json(stopped=was_up)
    else:
        invocation.screen.info("Stopped." if was_up else f"No services are running for {home}.")


def _home(invocation: Invocation) -> Path:
    """Return the home, even if other settings are wrong."""
    try:
        return invocation.settings().home
    except ConfigurationError as error:
        home = invocation.find_home()
        invocation.screen.note(f"{error.what} Stopping the services of {home} anyway.")
        return home
