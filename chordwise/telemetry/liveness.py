"""A file that shows whether a process does its work, for health checks that need no server."""

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


_AT_WORK = frozenset({State.CONSUMING, State.BUSY, State.WORKING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """The last sign of life of a process; `state` is None where there never was one."""

    process: str
    state: State | None = None
    age_seconds: float = float("inf")

    @property
    def is_fresh(self) -> bool:
        """Whether the sign is recent, whatever its state."""
        return self.age_seconds < STALE_SECONDS

    @property
    def is_at_work(self) -> bool:
        """Whether the last state is one of work."""
        return self.state in _AT_WORK

    @property
    def is_healthy(self) -> bool:
        """Whether the process was at work recently."""
        return self.is_fresh and self.is_at_work

    def __str__(self) -> str:
        if self.state is None:
            return f"The {self.process} has sent no heartbeat on this machine."
        if self.is_fresh:
            return f"The {self.process} is {self.state}."
        last = f"{self.state}, {self.age_seconds:.0f} s ago"
        return f"The {self.process} sends no heartbeat: last state {last}."


def alive_file(home: Path, process: str) -> Path:
    """Return the file that a process (`worker`, `scheduler`) writes every few seconds."""
    return home / "run" / f"{process}.alive"


def show(home: Path, process: str, state: State) -> None:
    """Say what the process does; a reader never sees half of it.

    Where it cannot be written, on a full disk, the last sign gets old, and says enough.
    """
    file = alive_file(home, process)
    fresh = file.with_name(f"{file.name}.new")
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(f"{state}\n", "utf-8")
        fresh.replace(file)


def forget(home: Path, process: str) -> None:
    """Remove the sign of a process that is gone, so that it is not taken for the next one's."""
    with contextlib.suppress(OSError):
        alive_file(home, process).unlink()


def last_sign(home: Path, process: str) -> Sign:
    """Return the last sign that a process of this name has given in this home."""
    file = alive_file(home, process)
    try:
        age_seconds = time.time() - file.stat().st_mtime
        state = State(file.read_text("utf-8").strip())
    except (OSError, ValueError):
        return Sign(process=process)
    return Sign(process=process, state=state, age_seconds=age_seconds)
