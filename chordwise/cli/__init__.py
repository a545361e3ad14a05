"""The `chordwise` command."""

from chordwise.cli.application import main

__all__ = ["main"]
