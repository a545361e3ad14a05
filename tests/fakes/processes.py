"""Starts processes of Chordwise in separate process groups, and stops or kills them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.fakes.commands import called

ROOT = Path(__file__).resolve().parents[2]
_POLL_SECONDS = 0.05
_POLL_SHARE = 0.005


def completed(
    *command: str,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    timeout: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; return its output and its exit code."""
    return subprocess.run(
        command,
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class KilledError(BaseException):
    """Ends a thread like a kill, without cleaning up in the database."""


@dataclass(slots=True, kw_only=True)
class Processes:
    """The processes of one test; `environment` is added to a minimal environment."""

    folder: Path
    environment: Mapping[str, str]
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end_all()

    def start(
        self, module: str, *arguments: str, stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        """Start `python -m module` with its output in a log file in the test's folder."""
        log = (self.folder / f"{module}-{len(self._started)}.log").open("wb")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, *arguments],
                stdin=stdin,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self._environment(),
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def run(
        self, *arguments: str, timeout: float = 120, folder: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the command `chordwise` to its end, in the test's folder or in another one."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "chordwise", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=folder or self.folder,
            env=self._environment(),
            timeout=timeout,
            check=False,
        )

    def call(self, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command in this process, which is faster, if the test does not need a process."""
        return called(arguments, {**self.environment, "NO_COLOR": "1"}, folder or self.folder)

    def logs(self) -> str:
        return "\n".join(file.read_text("utf-8") for file in sorted(self.folder.glob("*.log")))

    def end_all(self) -> None:
        """Stop all running processes; kill those that do not stop within 15 seconds."""
        running = [process for process in self._started if process.poll() is None]
        for process in running:
            os.killpg(process.pid, signal.SIGTERM)
        for process in running:
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                kill(process)
        for process in self._started:
            _close(process)

    def _environment(self) -> dict[str, str]:
        bare = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}  # noqa: TID251 - the processes need a PATH
        return {**bare, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **self.environment}


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its children with SIGKILL, as the kernel does if memory runs out."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    _close(process)


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for a condition; the polling interval grows, because polling costs CPU time.

    Raises:
        AssertionError: The condition was not met within `seconds`.
    """
    begun = time.monotonic()
    while not condition():
        waited = time.monotonic() - begun
        assert waited < seconds, f"not within {seconds} s: {what}"
        time.sleep(max(_POLL_SECONDS, waited * _POLL_SHARE))  # noqa: TID251 - polls with a deadline
