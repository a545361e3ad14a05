"""Tests of the failpoints: they act where they are set, and every named function exists."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.processes import ROOT
from tests.faults.points import POINTS

# Runs in a separate process, because wrapped functions stay wrapped.
ARM = "import sys; from tests.faults.points import arm; arm(sys.argv[1])"
THREE_TIMES = """
import sys, uuid
from chordwise.storage import chunks
from tests.faults.points import arm
chunks.end_all = lambda *args: sys.stdout.write("done ")
arm(sys.argv[1])
for _ in range(3):
    chunks.end_all()
"""


def run(*arguments: str, failpoints: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), "CHORDWISE_FAILPOINTS": failpoints},
        timeout=60,
        check=False,
    )


@pytest.mark.thorough
def test_every_point_can_be_armed() -> None:
    """Each failpoint finds its function in Chordwise, Celery or kombu."""
    every = "; ".join(f"{name}:raise" for name in POINTS)

    done = run("-c", ARM, every)

    assert done.returncode == 0, done.stderr


@pytest.mark.thorough
@pytest.mark.parametrize("wrong", ["chunk.nowhere:kill", "chunk.claimed:explode", "chunk.claimed"])
def test_an_unknown_failpoint_ends_the_process(wrong: str) -> None:
    """An unknown name or action ends the process at its start."""
    done = run("-m", "tests.faults.armed", "worker", failpoints=wrong)

    assert done.returncode == 78
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.thorough
def test_a_kill_happens_at_its_hit() -> None:
    """The process ends at the second hit."""
    done = run("-u", "-c", THREE_TIMES, "chunk.before_commit:kill:2")

    assert done.returncode == -9
    assert done.stdout == "done done "


@pytest.mark.thorough
def test_an_error_can_be_raised_at_every_hit() -> None:
    done = run("-c", THREE_TIMES, "chunk.before_commit:raise:*")

    assert "InjectedError: the failpoint chunk.before_commit" in done.stderr


@pytest.mark.thorough
def test_the_clock_of_a_process_can_be_shifted(tmp_path: Path) -> None:
    """Later readings of the clock are shifted."""
    script = tmp_path / "clock.py"
    script.write_text(
        "import time; before = time.time()\n"
        "from tests.faults.armed import _change_process\n"
        "assert _change_process('clock:+7200; chunk.claimed:kill') == 'chunk.claimed:kill'\n"
        "assert 7199 < time.time() - before < 7300\n",
        "utf-8",
    )

    done = run(str(script))

    assert done.returncode == 0, done.stderr


@pytest.mark.thorough
def test_the_file_descriptors_of_a_process_can_be_limited(tmp_path: Path) -> None:
    script = tmp_path / "files.py"
    script.write_text(
        "import resource\n"
        "from tests.faults.armed import _change_process\n"
        "assert _change_process('files:64') == ''\n"
        "assert resource.getrlimit(resource.RLIMIT_NOFILE) == (64, 64)\n",
        "utf-8",
    )

    done = run(str(script))

    assert done.returncode == 0, done.stderr
