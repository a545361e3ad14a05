"""Tests of knowing a process again, although the clock is set and numbers are given again."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from signal import Signals

import psutil
import pytest

from chordwise.embedded import processes


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def set_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Set the clock as the kernel shows it: the present, and the time of the boot."""
    before, boot = time.time, psutil.boot_time()
    monkeypatch.setattr(time, "time", lambda: before() + seconds)
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot + seconds)
    monkeypatch.setattr(psutil._pslinux, "BOOT_TIME", None, raising=False)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other kernels keep the time")
@pytest.mark.parametrize("seconds", [-7_200, -9, 9, 7_200])
def test_a_process_is_known_and_stopped_after_a_step_of_the_clock(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    identity = processes.identify(child.pid)
    before = psutil.Process(child.pid).create_time()

    set_clock(monkeypatch, seconds)

    assert psutil.Process(child.pid).create_time() == pytest.approx(before + seconds)
    assert processes.is_alive(identity)
    assert processes.stop(identity, (Signals.SIGTERM, 5.0))
    assert child.wait() == -Signals.SIGTERM


def test_a_number_that_was_given_to_another_program_is_a_stranger(
    child: subprocess.Popen[bytes],
) -> None:
    identity = processes.identify(child.pid)
    assert identity is not None

    former = replace(processes.own_identity(), pid=child.pid)

    assert processes.is_alive(identity)
    assert not processes.is_alive(former)
    assert not processes.stop(former, (Signals.SIGKILL, 1.0))
    assert child.poll() is None


def test_a_process_that_ended_or_ran_before_the_boot_is_gone(
    child: subprocess.Popen[bytes],
) -> None:
    identity = processes.identify(child.pid)
    assert identity is not None
    boot, _, ticks = identity.start.partition(" ")

    assert not processes.is_alive(replace(identity, start=f"{boot[::-1]} {ticks}"))
    child.kill()
    child.wait()
    assert not processes.is_alive(identity)
