"""Runs a command inside the test's own process, and leaves the logging as it was."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence

import pytest
import structlog

from chordwise.cli import application
from chordwise.settings import Settings


def point_to(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands find a test's servers, and start none of their own."""
    monkeypatch.setenv("CHORDWISE_HOME", str(settings.home))
    monkeypatch.setenv("CHORDWISE_EMBEDDED__START", "false")
    for name in ("database_url", "broker_url"):
        secret = getattr(settings, name)
        monkeypatch.setenv(f"CHORDWISE_{name.upper()}", secret.get_secret_value())


def run(arguments: Sequence[str]) -> int:
    """Run a command line; return its exit code."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        return application.run(arguments)
    finally:
        root.handlers, root.level = handlers, level
        structlog.reset_defaults()


def type_in(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """Let a person at a terminal answer the next question so."""
    terminal = io.TextIOWrapper(io.BytesIO(f"{line}\n".encode()))
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
