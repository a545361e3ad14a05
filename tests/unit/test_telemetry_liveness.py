"""Tests of the heartbeat that health checks read."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import scheduler.process
import worker.process
from chordwise.errors import ExitCode
from chordwise.telemetry import liveness
from chordwise.telemetry.liveness import State


def test_a_process_without_a_recent_heartbeat_is_not_healthy(tmp_path: Path) -> None:
    liveness.write_heartbeat(tmp_path, "worker", State.BUSY)
    then = time.time() - liveness.STALE_SECONDS - 1

    os.utime(liveness.alive_file(tmp_path, "worker"), (then, then))

    sign = liveness.last_sign(tmp_path, "worker")
    assert not sign.is_fresh
    assert not sign.is_healthy
    assert str(sign) == "The worker sends no heartbeat: last state busy, 31 s ago."


@pytest.mark.parametrize("state", State)
def test_only_a_working_process_is_healthy(tmp_path: Path, state: State) -> None:
    liveness.write_heartbeat(tmp_path / "home", "worker", state)

    sign = liveness.last_sign(tmp_path / "home", "worker")

    assert sign.is_fresh
    assert sign.is_healthy is ("waiting" not in state)
    assert str(sign) == f"The worker is {state}."
    assert not liveness.last_sign(tmp_path / "home", "scheduler").is_fresh


def test_a_file_with_other_content_is_not_a_heartbeat(tmp_path: Path) -> None:
    """Older versions only touched the file; it must contain a known state."""
    file = liveness.alive_file(tmp_path, "worker")
    file.parent.mkdir()
    file.touch()

    assert str(liveness.last_sign(tmp_path, "worker")) == (
        "The worker has sent no heartbeat on this machine."
    )


def test_a_heartbeat_that_cannot_be_written_becomes_stale(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("no folder", "utf-8")

    liveness.write_heartbeat(tmp_path, "worker", State.BUSY)

    assert not liveness.last_sign(tmp_path, "worker").is_fresh


@pytest.mark.parametrize(
    ("process", "main"), [("worker", worker.process.main), ("scheduler", scheduler.process.main)]
)
def test_health_is_reported_as_an_exit_code_and_a_message(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    process: str,
    main: object,
) -> None:
    monkeypatch.setenv("CHORDWISE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", [process, "health"])
    assert callable(main)

    before = main()
    liveness.write_heartbeat(tmp_path, process, State.WORKING)
    assert (before, main()) == (ExitCode.UNAVAILABLE, ExitCode.SUCCESS)
    assert capsys.readouterr().out.splitlines() == [
        f"The {process} has sent no heartbeat on this machine.",
        f"The {process} is working.",
    ]
