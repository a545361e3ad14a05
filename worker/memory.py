"""Ends a worker process that takes more memory than it may, before the kernel ends any other.

The resident memory is watched instead of limited: a limit of the kernel (RLIMIT_DATA) would raise
errors at arbitrary places of all threads, in libraries that do not survive them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from threading import Event

import psutil

from chordwise.readers import limits

_CHECK_SECONDS = 0.5
# What a process takes that does nothing unusual, as measured under load.
_USUAL_MEGABYTES = 170
_MIN_MEGABYTES, _MAX_MEGABYTES = 256, 2_048
_SHARE, _EXCESS = 0.8, 1.2


def limit_megabytes(processes: int) -> int:
    """Return the limit of each process if the settings have none.

    One process may take most of what the others, if they do nothing unusual, leave of the memory of
    the container or the machine.
    """
    left = limits.memory_megabytes() - _USUAL_MEGABYTES * (processes - 1)
    return max(_MIN_MEGABYTES, min(_MAX_MEGABYTES, int(_SHARE * left)))


def resident_megabytes() -> Iterator[int]:
    """Yield the resident memory of this process twice a second."""
    while not Event().wait(_CHECK_SECONDS):
        yield int(psutil.Process().memory_info().rss) // limits.MEGABYTE


def watch_memory(
    limit: int,
    *,
    leave: Callable[[str, bool], None],
    sizes: Iterable[int] = (),
) -> None:
    """Call `leave` once above the limit, and with `True` each time a fifth above it."""
    has_left = False
    for megabytes in sizes or resident_megabytes():
        is_excess = megabytes > _EXCESS * limit
        if is_excess or (megabytes > limit and not has_left):
            has_left = True
            reason = f"it takes {megabytes} MB, and worker.memory_megabytes is {limit}"
            leave(reason, is_excess)
