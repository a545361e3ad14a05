"""The `chordwise` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line of this process and exit with its code."""
    from chordwise.cli import command_server  # noqa: PLC0415 - starts fast

    code = command_server.run(sys.argv[1:])
    if code is None:
        from chordwise.cli import application  # noqa: PLC0415 - slow, often not needed

        application.escape_output()
        code = application.run(sys.argv[1:])
    sys.exit(code)
