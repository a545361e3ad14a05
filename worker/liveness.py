"""A file whose age tells whether the worker's event loop still turns."""

from __future__ import annotations

import time
from pathlib import Path

from celery import bootsteps

INTERVAL_SECONDS = 5.0
STALE_SECONDS = 30.0


def alive_file(home: Path) -> Path:
    """Return the file that the worker touches."""
    return home / "run" / "worker.alive"


def is_alive(home: Path) -> bool:
    """Tell whether a worker has touched its file lately."""
    try:
        touched = alive_file(home).stat().st_mtime
    except OSError:
        return False
    return time.time() - touched < STALE_SECONDS


class Liveness(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery ships no types
    """Touches the file from the event loop itself, so that a hung loop looks dead."""

    requires = ("celery.worker.components:Timer",)
    home: Path

    def start(self, parent: bootsteps.StartStopStep) -> None:
        """Begin to touch the file."""
        file = alive_file(self.home)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        parent.timer.call_repeatedly(INTERVAL_SECONDS, file.touch)
