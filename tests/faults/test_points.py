"""Failpoints act where and when they are told to, and the product has every function they name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.processes import ROOT
from tests.faults.points import POINTS

# Arms in a process of its own: wrapped functions stay wrapped.
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


def test_every_point_can_be_armed() -> None:
    """Each name still has its function in the product, in Celery or in kombu."""
    every = "; ".join(f"{name}:raise" for name in POINTS)

    done = run("-c", ARM, every)

    assert done.returncode == 0, done.stderr


@pytest.mark.thorough
@pytest.mark.parametrize("wrong", ["chunk.nowhere:kill", "chunk.claimed:explode", "chunk.claimed"])
def test_what_cannot_be_armed_ends_with_a_sentence(wrong: str) -> None:
    """An unknown name or action ends the process before it does anything."""
    done = run("-m", "tests.faults.armed", "worker", failpoints=wrong)

    assert done.returncode == 78
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.thorough
def test_a_kill_happens_at_its_passing() -> None:
    """The second passing is the last thing that the process does."""
    done = run("-u", "-c", THREE_TIMES, "chunk.before_commit:kill:2")

    assert done.returncode == -9
    assert done.stdout == "done done "


@pytest.mark.thorough
def test_an_error_can_be_raised_at_every_passing() -> None:
    done = run("-c", THREE_TIMES, "chunk.before_commit:raise:*")

    assert "InjectedError: the failpoint chunk.before_commit" in done.stderr


@pytest.mark.thorough
def test_the_clock_of_a_process_can_be_wrong(tmp_path: Path) -> None:
    """Later readings of the clock are wrong."""
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
def test_the_file_descriptors_of_a_process_can_be_few(tmp_path: Path) -> None:
    """The limit holds for what it starts with, too."""
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
