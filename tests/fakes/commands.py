"""Runs a command inside the process of the test, and restores its state."""

from __future__ import annotations

import io
import logging
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import structlog

from chordwise.cli import application
from chordwise.settings import Settings


def point_to(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make commands use the servers of the test, and start no servers."""
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


def called(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run a command line in this process, with the given environment and working directory."""
    out, err, empty = (io.TextIOWrapper(io.BytesIO(), "utf-8", newline="") for _ in range(3))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        patch.setattr("sys.stdin", empty)
        for name, value in environment.items():
            patch.setenv(name, value)
        code = run(arguments)
    out.seek(0)
    err.seek(0)
    return subprocess.CompletedProcess(arguments, code, out.read(), err.read())


def type_in(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """Make standard input a terminal that contains this line."""
    terminal = io.TextIOWrapper(io.BytesIO(f"{line}\n".encode()))
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
