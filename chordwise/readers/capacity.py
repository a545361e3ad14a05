"""How much memory there is, and the limits on files that follow from it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from chordwise.readers.limits import MEGABYTE
from chordwise.settings import ReaderSettings

RESERVED_MEGABYTES = 420
"""What the three processes of a scheduler and their parsers hold before they read a file."""
READERS = 3
"""How many files a scheduler reads at once: one quick, one slow, and one of a schedule."""
_LEAST_MEGABYTES = 48
_MAX_MEMORY_MEGABYTES = 1_024
_MAX_FILE_MEGABYTES = 256
# A text is held several times while it is stored: as bytes, as characters, and by the driver.
_TEXT_SHARE = 5
_BYTES_PER_CHARACTER = 4
_GROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits on one file: those of the settings, or those that suit the memory there is."""

    memory_megabytes: int
    max_file_megabytes: int
    max_text_bytes: int


def limits(settings: ReaderSettings, available_megabytes: int | None = None) -> Limits:
    """Return the limits; where a setting is not set, the memory of this process decides.

    `available_megabytes` stands for that memory where the limits of another process are asked for.
    """
    share = _share(available_megabytes or memory_megabytes())
    text_bytes = share * MEGABYTE // _TEXT_SHARE
    return Limits(
        memory_megabytes=settings.memory_megabytes or share,
        max_file_megabytes=settings.max_file_megabytes or min(_MAX_FILE_MEGABYTES, share),
        max_text_bytes=min(text_bytes, settings.max_characters * _BYTES_PER_CHARACTER),
    )


def memory_megabytes() -> int:
    """Return how much memory this process may use: that of its container, or of the machine."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_group_limits(_GROUPS, _MOUNT)]) // MEGABYTE


def _share(megabytes: int) -> int:
    share = (megabytes - RESERVED_MEGABYTES) // READERS
    return max(_LEAST_MEGABYTES, min(_MAX_MEMORY_MEGABYTES, share))


def _group_limits(groups: Path, mount: Path) -> Iterator[int]:
    """Yield the limits of the control groups that we are in, of both versions of Linux."""
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
    """Yield the limits on the way up; within a container its own group is mounted as the root."""
    group = Path(path.lstrip("/"))
    for each in (group, *group.parents):
        try:
            value = (mount / each / name).read_text("ascii").strip()
        except OSError:
            continue
        if value.isdecimal():
            yield int(value)


class ReadingInterruptedError(Exception):
    """The reading of a file was ended from another thread; it says nothing of the file."""


class ReadingTime:
    """Counts the seconds that parsers are waited for, not those in which texts are stored."""

    def __init__(self, seconds: float, interruption: Event) -> None:
        self.total = seconds
        self._left = seconds
        self._interruption = interruption

    @property
    def is_over(self) -> bool:
        """Whether nothing is left."""
        return self._left <= 0

    def deadline(self, seconds: float) -> float:
        """Return when, on the monotonic clock, `seconds` or what is left are over."""
        return time.monotonic() + min(seconds, self._left)

    def check(self) -> None:
        """Let the reading go on.

        Raises:
            ReadingInterruptedError: It has to end.
        """
        if self._interruption.is_set():
            raise ReadingInterruptedError

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the time until the end of the block."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._left -= time.monotonic() - begun
