"""Operating system limits for a process that parses untrusted files."""

from __future__ import annotations

import contextlib
import math
import resource
import signal
from pathlib import Path

MEGABYTE = 1024 * 1024
BYTES_PER_CHARACTER = 4
"""The maximum in UTF-8, UTF-16 and UTF-32."""
_OPEN_FILES = 64
# The exit status of a process without enough memory for an answer.
OUT_OF_MEMORY_STATUS = 77
_STATUS = Path("/proc/self/statm")
_SCORE = Path("/proc/self/oom_score_adj")
_FIRST_TO_END = 1_000
# The parent should time out first, as its error message is better.
_GRACE_SECONDS = 2.0


def limit_process(memory_megabytes: int) -> None:
    """Limit the additional memory of the process, and forbid core dumps and writing files.

    If memory runs out nevertheless, the kernel ends this process before all others. Not every
    system enforces every limit (macOS has no limit on the address space).
    """
    address_space = _address_space_bytes() + memory_megabytes * MEGABYTE
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_AS, address_space),
    ):
        _, hard = resource.getrlimit(limit)
        bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (bounded, bounded))
    set_oom_score(_FIRST_TO_END)


def set_oom_score(score: int) -> None:
    """Let Linux end this process before those with a lower score; the highest is 1,000.

    Any process may raise its own score; children inherit it.
    """
    with contextlib.suppress(OSError):
        _SCORE.write_text(f"{score}\n", "ascii")


def limit_file(timeout_seconds: float) -> None:
    """Let the kernel end the process if this file takes longer, even without its parent."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, timeout_seconds + _GRACE_SECONDS)
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(used.ru_utime + used.ru_stime + timeout_seconds + _GRACE_SECONDS)
    # Only the soft limit, since the next file gets a new limit.
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, hard))


def release_file() -> None:
    """Stop the timer between files, when the process may wait."""
    signal.setitimer(signal.ITIMER_REAL, 0)


def _address_space_bytes() -> int:
    try:
        pages = int(_STATUS.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 512 * MEGABYTE
    return pages * resource.getpagesize()
