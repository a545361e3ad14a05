"""The available memory, and the limits on files that depend on it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from chordwise.readers.limits import BYTES_PER_CHARACTER, MEGABYTE
from chordwise.settings import ReaderSettings

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


def limits(settings: ReaderSettings, available_megabytes: int | None = None) -> FileLimits:
    """Return the limits; unset ones are derived from the memory of this process, or that given."""
    share = _share(available_megabytes or memory_megabytes())
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


def _share(megabytes: int) -> int:
    share = (megabytes - RESERVED_MEGABYTES) // READERS
    return max(_MIN_MEGABYTES, min(_MAX_MEMORY_MEGABYTES, share))


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
    for each in (group, *group.parents):
        try:
            value = (mount / each / name).read_text("ascii").strip()
        except OSError:
            continue
        if value.isdecimal():
            yield int(value)


class ReadingInterruptedError(Exception):
    """Another thread interrupted the reading of a file; the file itself is not at fault."""


class ReadingTime:
    """Counts the seconds of waiting for parsers, without those of storing texts."""

    def __init__(self, seconds: float, interruption: Event) -> None:
        self.total = seconds
        self._left = seconds
        self._interruption = interruption

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return self._left <= 0

    def deadline(self, seconds: float) -> float:
        """Return when `seconds`, or the remaining time if shorter, end on the monotonic clock."""
        return time.monotonic() + min(seconds, self._left)

    def check(self) -> None:
        """Check whether reading may continue.

        Raises:
            ReadingInterruptedError: Reading was interrupted.
        """
        if self._interruption.is_set():
            raise ReadingInterruptedError

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the time spent in the block."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._left -= time.monotonic() - begun
