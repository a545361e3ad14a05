"""A file whose age tells whether a process still turns, for health checks that need no server."""

from __future__ import annotations

import time
from pathlib import Path

INTERVAL_SECONDS = 5.0
STALE_SECONDS = 30.0


def alive_file(home: Path, process: str) -> Path:
    """Return the file that a process (`worker`, `scheduler`) touches every few seconds."""
    return home / "run" / f"{process}.alive"


def show(home: Path, process: str) -> None:
    """Say that the process is alive."""
    file = alive_file(home, process)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


def is_shown(home: Path, process: str) -> bool:
    """Return whether such a process has shown that it is alive lately."""
    try:
        touched = alive_file(home, process).stat().st_mtime
    except OSError:
        return False
    return time.time() - touched < STALE_SECONDS
