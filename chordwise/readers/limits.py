"""The limits on files, and of the operating system on the process that parses them."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chordwise.settings import ReaderSettings

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
    try:
        used = int(_STATUS.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        used = 512 * MEGABYTE
    address_space = used + memory_megabytes * MEGABYTE
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


RESERVED_MEGABYTES = 420
"""The memory of the three processes of a scheduler and their parsers before they read a file."""
READERS = 3
"""The number of files a scheduler reads at once: one fast, one slow, and one of a schedule."""
_MIN_MEGABYTES = 48
_MAX_MEMORY_MEGABYTES = 1_024
_MAX_FILE_MEGABYTES = 256
# Storing a text takes several copies: as bytes, as characters, and in the driver.
_TEXT_SHARE = 5
_GROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLimits:
    """The limits on one file: those of the settings, or those that suit the available memory."""

    memory_megabytes: int
    max_file_megabytes: int
    max_text_bytes: int


def file_limits(settings: ReaderSettings, available_megabytes: int | None = None) -> FileLimits:
    """Return the limits; unset ones are derived from the memory of this process, or that given."""
    available = (available_megabytes or memory_megabytes()) - RESERVED_MEGABYTES
    share = max(_MIN_MEGABYTES, min(_MAX_MEMORY_MEGABYTES, available // READERS))
    text_bytes = share * MEGABYTE // _TEXT_SHARE
    return FileLimits(
        memory_megabytes=settings.memory_megabytes or share,
        max_file_megabytes=settings.max_file_megabytes or min(_MAX_FILE_MEGABYTES, share),
        max_text_bytes=min(text_bytes, settings.max_characters * BYTES_PER_CHARACTER),
    )


def memory_megabytes() -> int:
    """Return the memory that this process may use: that of its container, or of the machine."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_group_limits(_GROUPS, _MOUNT)]) // MEGABYTE


def _group_limits(groups: Path, mount: Path) -> Iterator[int]:
    try:
        lines = groups.read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _limits_up(mount, path, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _limits_up(mount / "memory", path, "memory.limit_in_bytes")


def _limits_up(mount: Path, path: str, name: str) -> Iterator[int]:
    group = Path(path.lstrip("/"))
    for level in (group, *group.parents):
        try:
            value = (mount / level / name).read_text("ascii").strip()
        except OSError:
            continue
        if value.isdecimal():
            yield int(value)
