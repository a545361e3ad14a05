"""Heartbeat files of the processes, for health checks without a server."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

INTERVAL_SECONDS = 5.0
STALE_SECONDS = 30.0


class State(StrEnum):
    """The state that a process writes to its file."""

    CONSUMING = "consuming"
    BUSY = "busy"
    WORKING = "working"
    WAITING = "waiting for the broker"
    HELD_UP = "waiting for database or broker"
    OVERDUE = "waiting for files of an inbox that take longer than they may"


_AT_WORK = frozenset({State.CONSUMING, State.BUSY, State.WORKING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """The last heartbeat of a process; `state` is `None` if there is none."""

    process: str
    state: State | None = None
    age_seconds: float = float("inf")

    @property
    def is_fresh(self) -> bool:
        """Whether the heartbeat is recent, whatever its state."""
        return self.age_seconds < STALE_SECONDS

    @property
    def is_at_work(self) -> bool:
        """Whether the last state is one in which the process works."""
        return self.state in _AT_WORK

    @property
    def is_healthy(self) -> bool:
        """Whether the process was working recently."""
        return self.is_fresh and self.is_at_work

    def __str__(self) -> str:
        if self.state is None:
            return f"The {self.process} has sent no heartbeat on this machine."
        if self.is_fresh:
            return f"The {self.process} is {self.state}."
        last = f"{self.state}, {self.age_seconds:.0f} s ago"
        return f"The {self.process} sends no heartbeat: last state {last}."


def alive_file(home: Path, process: str) -> Path:
    """Return the heartbeat file of a process (`worker`, `scheduler`)."""
    return home / "run" / f"{process}.alive"


def write_heartbeat(home: Path, process: str, state: State) -> None:
    """Write the state of a process to its heartbeat file, atomically.

    A failed write, for example on a full disk, is ignored: the last heartbeat becomes stale.
    """
    file = alive_file(home, process)
    fresh = file.with_name(f"{file.name}.new")
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(f"{state}\n", "utf-8")
        fresh.replace(file)


def forget(home: Path, process: str) -> None:
    """Delete the heartbeat of an ended process, which would count for the next one."""
    with contextlib.suppress(OSError):
        alive_file(home, process).unlink()


def last_sign(home: Path, process: str) -> Sign:
    """Return the last heartbeat of a process in this home."""
    file = alive_file(home, process)
    try:
        age_seconds = time.time() - file.stat().st_mtime
        state = State(file.read_text("utf-8").strip())
    except (OSError, ValueError):
        return Sign(process=process)
    return Sign(process=process, state=state, age_seconds=age_seconds)
