"""Runs a command inside the test's own process, and leaves the logging as it was."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import structlog

from chordwise.cli import application


def run(arguments: Sequence[str]) -> int:
    """Run a command line; return its exit code."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        return application.run(arguments)
    finally:
        root.handlers, root.level = handlers, level
        structlog.reset_defaults()
