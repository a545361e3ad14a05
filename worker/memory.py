"""Ends a worker process that takes more memory than it may, before the kernel ends any other.

The resident memory is watched instead of limited: a limit of the kernel (RLIMIT_DATA) would raise
errors at arbitrary places of all threads, in libraries that do not survive them.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread

import psutil

from chordwise.readers import capacity
from chordwise.readers.limits import MEGABYTE
from chordwise.settings.sections import WorkerSettings

_CHECK_SECONDS = 0.5
# What a process takes that does nothing unusual, as measured under load.
_USUAL_MEGABYTES = 170
_MIN_MEGABYTES, _MAX_MEGABYTES = 256, 2_048
_SHARE = 0.8
_MOST = 1.2


def limit_megabytes(settings: WorkerSettings, processes: int) -> int:
    """Return the limit of each process: that of the settings, or one that suits the memory.

    One process may take most of what the others, if they do nothing unusual, leave of the memory of
    the container or the machine.
    """
    if settings.memory_megabytes is not None:
        return settings.memory_megabytes
    left = capacity.memory_megabytes() - _USUAL_MEGABYTES * (processes - 1)
    return max(_MIN_MEGABYTES, min(_MAX_MEGABYTES, int(_SHARE * left)))


def resident_megabytes() -> int:
    """Return the resident memory of this process."""
    return int(psutil.Process().memory_info().rss) // MEGABYTE


class MemoryWatch:
    """Stops this process above its limit, and ends it at once a fifth above it.

    `stop` and `end` receive the reason; `stop` lets running work finish.
    """

    def __init__(
        self,
        limit: int,
        *,
        stop: Callable[[str], None],
        end: Callable[[str], None],
        read: Callable[[], int] = resident_megabytes,
    ) -> None:
        self._limit = limit
        self._stop = stop
        self._end = end
        self._read = read
        self._has_stopped = False

    def start(self) -> None:
        """Start checking twice a second."""
        Thread(target=self._run, name="memory", daemon=True).start()

    def check(self) -> None:
        """Check once."""
        megabytes = self._read()
        reason = f"it takes {megabytes} MB, and worker.memory_megabytes is {self._limit}"
        if megabytes > _MOST * self._limit:
            self._end(reason)
        elif megabytes > self._limit and not self._has_stopped:
            self._has_stopped = True
            self._stop(reason)

    def _run(self) -> None:
        pause = Event()
        while not pause.wait(_CHECK_SECONDS):
            self.check()
