"""One process of ours in an experiment: in a group of its own, with a log, easily killed."""

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
_MODULES = {"web": ["chordwise", "web", "--port", "0"], "up": ["chordwise", "up"]}


@dataclass(slots=True, kw_only=True)
class Member:
    """A process of ours; `peak_bytes` is the most memory that it was seen to hold."""

    role: str
    log: Path
    process: subprocess.Popen[bytes]
    peak_bytes: int = 0
    disturbed: int = 0

    @property
    def is_alive(self) -> bool:
        """Whether it still runs, stopped or not."""
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
        """Whether it may have left calls behind that others had to repeat."""
        return self.disturbed > 0 or self.was_killed

    def kill(self) -> None:
        """End the whole group as the kernel does when memory runs out."""
        self.disturbed += self.is_alive
        self._signal(signal.SIGKILL)
        self.process.wait()

    def terminate(self, seconds: float = 15) -> int:
        """Ask it to leave, and return its exit code."""
        self.disturbed += 1
        self._signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def freeze(self) -> None:
        """Stop it in the middle of whatever it does."""
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
        """Wait until a failpoint or an error has ended it; return its exit code."""
        code = self.process.wait(seconds)
        self._signal(signal.SIGKILL)  # what is left of its group
        return code

    def sample(self) -> None:
        """Look at the memory that it and its children hold."""
        try:
            top = psutil.Process(self.process.pid)
            held = sum(each.memory_info().rss for each in (top, *top.children(recursive=True)))
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
    """All processes of one experiment; `environment` is what each of them gets.

    `prefix` is a command that starts the commands of all.
    """

    folder: Path
    environment: Mapping[str, str]
    prefix: tuple[str, ...] = ()
    all: list[Member] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def start(self, role: str, failpoints: str, **environment: str) -> Member:
        """Start a worker, a scheduler, the pages (`web`) or the supervisor (`up`).

        It is armed only where there are failpoints.
        """
        module = ["tests.faults.armed", role] if failpoints else _MODULES.get(role, [role])
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
        """How many workers have left calls behind: killed, frozen, or asked to leave."""
        return sum(member.was_disturbed for member in self.all if member.role == "worker")

    def watch(self) -> None:
        """Sample the memory of all, until `end`."""
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
    """Return what a process needs before it is told anything of ours."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}  # noqa: TID251 - the processes need a PATH
    return {**kept, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
