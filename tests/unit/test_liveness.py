"""The sign of life that health checks read."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import scheduler.__main__
import worker.__main__
from chordwise.errors import ExitCode
from chordwise.telemetry import liveness


def test_a_process_that_showed_itself_is_alive(tmp_path: Path) -> None:
    """A sign of life counts for the process that gave it, and for no other."""
    liveness.show(tmp_path / "home", "scheduler")

    assert liveness.is_shown(tmp_path / "home", "scheduler")
    assert not liveness.is_shown(tmp_path / "home", "worker")


def test_a_process_that_fell_silent_is_not_alive(tmp_path: Path) -> None:
    """A sign of life grows stale, as when a loop hangs."""
    liveness.show(tmp_path, "worker")
    then = time.time() - liveness.STALE_SECONDS - 1

    os.utime(liveness.alive_file(tmp_path, "worker"), (then, then))

    assert not liveness.is_shown(tmp_path, "worker")


@pytest.mark.parametrize(
    ("process", "main"), [("worker", worker.__main__.main), ("scheduler", scheduler.__main__.main)]
)
def test_health_is_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, process: str, main: object
) -> None:
    """`python -m worker health` and its twin answer before they connect to anything."""
    monkeypatch.setenv("CHORDWISE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", [process, "health"])
    assert callable(main)

    before = main()
    liveness.show(tmp_path, process)
    after = main()

    assert (before, after) == (ExitCode.UNAVAILABLE, ExitCode.SUCCESS)
