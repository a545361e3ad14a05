"""Tests of the heartbeat that health checks read."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import scheduler.process
import worker.process
from chordwise.errors import ExitCode
from chordwise.telemetry import liveness
from chordwise.telemetry.liveness import State


def test_a_process_without_a_recent_heartbeat_is_not_healthy(tmp_path: Path) -> None:
    """The file must contain a known state; one that cannot be written becomes stale."""
    liveness.write_heartbeat(tmp_path, "worker", State.BUSY)
    then = time.time() - liveness.STALE_SECONDS - 1
    file = liveness.alive_file(tmp_path, "worker")

    os.utime(file, (then, then))
    sign = liveness.last_sign(tmp_path, "worker")
    assert (sign.is_fresh, sign.is_healthy) == (False, False)
    assert str(sign) == "The worker sends no heartbeat: last state busy, 31 s ago."

    file.write_text("", "utf-8")
    none = "The worker has sent no heartbeat on this machine."
    assert str(liveness.last_sign(tmp_path, "worker")) == none
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run").write_text("no folder", "utf-8")
    liveness.write_heartbeat(tmp_path / "other", "worker", State.BUSY)
    assert not liveness.last_sign(tmp_path / "other", "worker").is_fresh


@pytest.mark.parametrize("state", State)
def test_only_a_working_process_is_healthy(tmp_path: Path, state: State) -> None:
    liveness.write_heartbeat(tmp_path / "home", "worker", state)

    sign = liveness.last_sign(tmp_path / "home", "worker")

    assert sign.is_fresh
    assert sign.is_healthy is ("waiting" not in state)
    assert str(sign) == f"The worker is {state}."
    assert not liveness.last_sign(tmp_path / "home", "scheduler").is_fresh


@pytest.mark.parametrize(
    ("process", "main", "arguments"),
    [
        ("worker", worker.process.main, []),
        ("reader", worker.process.main, ["--queues", "read"]),
        ("scheduler", scheduler.process.main, []),
    ],
)
def test_health_is_reported_as_an_exit_code_and_a_message(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    process: str,
    main: Callable[[], int],
    arguments: list[str],
) -> None:
    monkeypatch.setenv("CHORDWISE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", [process, *arguments, "health"])

    before = main()
    liveness.write_heartbeat(tmp_path, process, State.WORKING)
    assert (before, main()) == (ExitCode.UNAVAILABLE, ExitCode.SUCCESS)
    assert capsys.readouterr().out.splitlines() == [
        f"The {process} has sent no heartbeat on this machine.",
        f"The {process} is working.",
    ]
