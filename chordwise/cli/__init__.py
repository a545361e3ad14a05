"""The `chordwise` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line of this process, and leave with an exit code of ours."""
    # Each imports no more than it needs: see `command_server`.
    from chordwise.cli import command_server  # noqa: PLC0415 - as above

    code = command_server.run(sys.argv[1:])
    if code is None:
        from chordwise.cli import application  # noqa: PLC0415 - as above

        application.escape_output()
        code = application.run(sys.argv[1:])
    sys.exit(code)
