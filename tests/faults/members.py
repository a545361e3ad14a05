"""A process of Chordwise in an experiment: a separate process group with a log."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.fakes.processes import ROOT, wait_until
from tests.faults.armed import VARIABLE

_STARTED = re.compile(r"(worker|scheduler)\.started")
_SAMPLE_SECONDS = 0.25
_MODULES = {
    "inbox": ["scheduler", "inbox"],
    "web": ["chordwise", "web", "--port", "0"],
    "up": ["chordwise", "up"],
}


@dataclass(slots=True, kw_only=True)
class Member:
    """A process; `peak_bytes` is the maximum memory that was observed."""

    role: str
    log: Path
    process: subprocess.Popen[bytes]
    peak_bytes: int = 0
    disturbed: int = 0

    @property
    def is_alive(self) -> bool:
        """Whether the process exists; it may be stopped."""
        return self.process.poll() is None

    @property
    def was_killed(self) -> bool:
        return self.process.poll() == -signal.SIGKILL

    @property
    def has_started(self) -> bool:
        return _STARTED.search(self.text()) is not None

    def text(self) -> str:
        return self.log.read_text("utf-8", errors="replace")

    @property
    def was_disturbed(self) -> bool:
        """Whether it may have left calls that others had to repeat."""
        return self.disturbed > 0 or self.was_killed

    def kill(self) -> None:
        """Kill the process group with SIGKILL, as the kernel does if memory runs out."""
        self.disturbed += self.is_alive
        self._signal(signal.SIGKILL)
        self.process.wait()

    def terminate(self, seconds: float = 15) -> int:
        """Send SIGTERM, and return the exit code."""
        self.disturbed += 1
        self._signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def freeze(self) -> None:
        """Stop the process with SIGSTOP."""
        self.disturbed += 1
        self._signal(signal.SIGSTOP)

    def wait_until_frozen(self, seconds: float = 60) -> None:
        process = psutil.Process(self.process.pid)
        wait_until(
            lambda: process.status() == psutil.STATUS_STOPPED, seconds, f"{self.log.name} freezes"
        )
        self.disturbed += 1

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def wait_for_end(self, seconds: float = 60) -> int:
        """Wait until a failpoint or an error has ended the process; return its exit code."""
        code = self.process.wait(seconds)
        self._signal(signal.SIGKILL)  # the rest of its group
        return code

    def sample(self) -> None:
        """Measure the memory of the process and its children."""
        try:
            top = psutil.Process(self.process.pid)
            held = sum(
                process.memory_info().rss for process in (top, *top.children(recursive=True))
            )
        except psutil.Error:
            return
        self.peak_bytes = max(self.peak_bytes, held)

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return


@dataclass(slots=True, kw_only=True)
class Members:
    """The processes of an experiment; `environment` is added to that of each.

    `prefix` is a command that starts all of them.
    """

    folder: Path
    environment: Mapping[str, str]
    prefix: tuple[str, ...] = ()
    all: list[Member] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def start(self, role: str, failpoints: str, **environment: str) -> Member:
        """Start a worker, a scheduler or its `inbox`, the pages (`web`) or the supervisor (`up`).

        The process is armed if there are failpoints.
        """
        module = _MODULES.get(role, [role])
        module = ["tests.faults.armed", *module] if failpoints else module
        extra = {VARIABLE: failpoints} if failpoints else {}
        log = self.folder / f"{role}-{len(self.all)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*self.prefix, sys.executable, "-P", "-m", *module],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**self.environment, **extra, **environment},
                start_new_session=True,
            )
        member = Member(role=role, log=log, process=process)
        self.all.append(member)
        return member

    def alive(self, role: str) -> list[Member]:
        return [member for member in self.all if member.role == role and member.is_alive]

    @property
    def abandoned(self) -> int:
        """The number of workers that left calls behind: killed, frozen or terminated."""
        return sum(member.was_disturbed for member in self.all if member.role == "worker")

    def watch(self) -> None:
        """Sample the memory of all processes until `end`."""
        while not self._stopped.wait(_SAMPLE_SECONDS):
            for member in list(self.all):
                member.sample()

    def end(self) -> None:
        self._stopped.set()
        running = [member for member in self.all if member.is_alive]
        for member in running:
            member.thaw()
            member.process.terminate()
        for member in running:
            try:
                member.process.wait(15)
            except subprocess.TimeoutExpired:
                pass
            finally:
                member.kill()


def bare_environment() -> dict[str, str]:
    """Return the minimal environment of a process."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}  # noqa: TID251 - the processes need a PATH
    return {**kept, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
