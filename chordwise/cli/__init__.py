"""The `chordwise` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line of this process and exit with its code."""
    from chordwise.cli import application  # noqa: PLC0415 - the package stays light

    application.escape_output()
    sys.exit(application.run(sys.argv[1:]))
