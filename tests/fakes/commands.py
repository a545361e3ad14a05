"""Runs a command inside the process of the test, and restores its state."""

from __future__ import annotations

import io
import logging
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest
import structlog

from chordwise.cli import application
from chordwise.errors import ExitCode
from chordwise.settings import Settings


def environment_of(settings: Settings) -> dict[str, str]:
    """Return variables that make commands use the servers of the test, and start no servers."""
    assert settings.database_url is not None
    assert settings.broker_url is not None
    return {
        "CHORDWISE_HOME": str(settings.home),
        "CHORDWISE_EMBEDDED__START": "false",
        "CHORDWISE_DATABASE_URL": settings.database_url.get_secret_value(),
        "CHORDWISE_BROKER_URL": settings.broker_url.get_secret_value(),
        "CHORDWISE_PIPELINE__CHUNK_TOKENS": str(settings.pipeline.chunk_tokens or "null"),
    }


def point_to(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make commands in this process use the servers of the test, and start no servers."""
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)


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
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.stdin", _stream())
        for name, value in environment.items():
            patch.setenv(name, value)
        code, output = _captured(arguments)
    return subprocess.CompletedProcess(arguments, code, output.out, output.err)


class Output(NamedTuple):
    """The text that a command has written to standard output and standard error."""

    out: str
    err: str

    @property
    def in_one_line(self) -> str:
        """Return both without line breaks, whose places depend on the lengths of names."""
        return " ".join(f"{self.out} {self.err}".split())


def output_of(*arguments: str, code: int = ExitCode.SUCCESS) -> Output:
    """Run a command line, which must end with this exit code; return its output."""
    exit_code, output = _captured(arguments)
    assert exit_code == code, output
    return output


def _captured(arguments: Sequence[str]) -> tuple[int, Output]:
    out, err = _stream(), _stream()
    with redirect_stdout(out), redirect_stderr(err):
        code = run(arguments)
    out.seek(0)
    err.seek(0)
    return code, Output(out.read(), err.read())


def _stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), "utf-8", newline="")


def type_in(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """Make standard input a terminal that contains this line."""
    terminal = io.TextIOWrapper(io.BytesIO(f"{line}\n".encode()))
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
