"""Take down what a supervisor that was killed has left running."""

from __future__ import annotations

from signal import Signals

from chordwise.embedded import children, processes, state
from chordwise.embedded.home import Home
from chordwise.errors import ConfigurationError

_GRACE_SECONDS = 30.0


def stop(home: Home) -> bool:
    """Stop everything of a home that runs without a supervisor; return whether there was any.

    Call it only with the home's lock in hand.
    """
    last = state.last(home)
    found = dict(last.children) if last is not None else {}
    # The servers are known by their own pid files, also when no snapshot names them.
    servers = {children.POSTGRES, children.VALKEY}
    stopped = [
        processes.stop(identity, (Signals.SIGTERM, _GRACE_SECONDS))
        for name, identity in reversed(found.items())
        if name not in servers
    ]
    stopped.extend(_stop_server(home, name) for name in sorted(servers, reverse=True))
    home.state_file.unlink(missing_ok=True)
    home.discard_sockets()
    return any(stopped)


def _stop_server(home: Home, name: str) -> bool:
    try:
        server = children.valkey(home) if name == children.VALKEY else children.postgres(home)
    except ConfigurationError:
        # Not installed (any more): then it does not run either.
        return False
    return server.stop()
